"""What the vision pack offers. The entry point ``vision`` of the group ``peftx.plugins`` names this module.

Light on purpose: descriptors only, everything else is imported when it is used. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import (
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    Needs,
    Offers,
    PanelSpec,
    SuiteSpec,
    TaskSpec,
    hookimpl,
)

__all__ = [
    "PEFTX_API",
    "peftx_datasets",
    "peftx_methods",
    "peftx_models",
    "peftx_panels",
    "peftx_suites",
    "peftx_tasks",
]

PEFTX_API = 1

_SNELL_SITES = ("linear", "linear_t", "conv1d", "conv2d", "packed_attention")
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Methods that come from vision; those of core run on every task here as well."""
    yield MethodSpec(
        name="vision.snell",
        summary="SNELL: a sparse update of full rank, made from thin factors by a kernel",
        target="peftx_vision.methods.snell:SNELL",
        config="peftx_vision.config.methods:SNELLConfig",
        paper="arXiv:2411.01800",
        licence="Apache-2.0",
        tags=("sparse",),
        needs=Needs(sites=_SNELL_SITES),
        size="rank",
    )
    yield MethodSpec(
        name="vision.snella",
        summary="SNELLA: SNELL whose maps compete for a shrinking budget of entries",
        target="peftx_vision.methods.snella:SNELLA",
        config="peftx_vision.config.methods:SNELLAConfig",
        paper="arXiv:2510.24037",
        licence="Apache-2.0",
        tags=("sparse", "scheduled"),
        needs=Needs(sites=_SNELL_SITES),
        size="rank",
    )
    yield MethodSpec(
        name="vision.ssf",
        summary="SSF: the output of every layer scaled and shifted by channel; merges exactly",
        target="peftx_vision.methods.ssf:SSF",
        config="peftx_vision.config.ssf:SSFConfig",
        paper="arXiv:2210.08823",
        licence="Apache-2.0",
        tags=("features",),
        needs=Needs(sites=("linear", "linear_t", "conv1d", "conv2d", "packed_attention", "norm")),
    )
    yield MethodSpec(
        name="vision.hydra",
        summary="Hydra: a low-rank branch beside a layer and one behind it; merges exactly",
        target="peftx_vision.methods.hydra:Hydra",
        config="peftx_vision.config.hydra:HydraConfig",
        paper="arXiv:2309.06922",
        licence="Apache-2.0",
        tags=("low-rank",),
        needs=Needs(sites=("linear", "linear_t", "packed_attention")),
        size="rank",
    )
    for depth, where in (("shallow", "in front of the first block"), ("deep", "in front of every block")):
        yield MethodSpec(
            name=f"vision.vpt_{depth}",
            summary=f"VPT, {depth}: trained tokens among those of the image, {where}",
            target=f"peftx_vision.methods.vpt:VPT{depth.capitalize()}",
            config="peftx_vision.config.vpt:VPTConfig",
            paper="arXiv:2203.12119",
            licence="Apache-2.0",
            tags=("tokens",),
            needs=Needs(sites=("activation",)),
            size="prompts",
        )
    yield MethodSpec(
        name="vision.adaptformer",
        summary="AdaptFormer: a bottleneck beside the feed-forward network of every block",
        target="peftx_vision.methods.adaptformer:AdaptFormer",
        config="peftx_vision.config.adaptformer:AdaptFormerConfig",
        paper="arXiv:2205.13535",
        licence="Apache-2.0",
        tags=("bottleneck",),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.mosa",
        summary="MoSA: a bottleneck split into sparse experts, trained one at a time, merged to one",
        target="peftx_vision.methods.mosa:MoSA",
        config="peftx_vision.config.mosa:MoSAConfig",
        paper="arXiv:2312.02923",
        licence="Apache-2.0",
        tags=("bottleneck", "sparse"),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.bi_adaptformer",
        summary="Bi-AdaptFormer: AdaptFormer with one to four bits an entry",
        target="peftx_vision.methods.bi_adapter:BiAdaptFormer",
        config="peftx_vision.config.bi_adapter:BiAdaptFormerConfig",
        paper="arXiv:2307.16867",
        licence="Apache-2.0",
        tags=("bottleneck", "quantised"),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.bi_lora",
        summary="Bi-LoRA: a low-rank update whose factors have one to four bits an entry; merges exactly",
        target="peftx_vision.methods.bi_adapter:BiLoRA",
        config="peftx_vision.config.bi_adapter:BiLoRAConfig",
        paper="arXiv:2307.16867",
        licence="Apache-2.0",
        tags=("low-rank", "quantised"),
        needs=Needs(sites=("linear", "linear_t", "packed_attention")),
        size="width",
    )
    yield MethodSpec(
        name="vision.adaptertune",
        summary="AdapterTune: a bottleneck behind every block, which starts by adding nothing",
        target="peftx_vision.methods.adaptertune:AdapterTune",
        config="peftx_vision.config.adaptertune:AdapterTuneConfig",
        paper="arXiv:2603.14706",
        licence="Apache-2.0",
        tags=("bottleneck",),
        needs=Needs(sites=("activation",)),
        size="rank",
    )


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """The tasks; classification is the default."""
    yield TaskSpec(
        name="vision.classification",
        summary="image classification with any timm model or vit_micro",
        target="peftx_vision.tasks.classification:Classification",
        config="peftx_vision.config.tasks:ClassificationConfig",
        offers=Offers(sites=("linear", "conv2d", "norm", "embedding", "parameter", "activation")),
        default_data="vision.digits",
        default_model="vision.vit_micro",
        default_method="core.lora",
        models="peftx_vision.models.names:known",
    )


@hookimpl
def peftx_datasets() -> Iterator[DatasetSpec]:
    """The data sets. Loaders that were never run on all the official files say so: `verified` is False."""
    yield DatasetSpec(
        name="vision.digits",
        summary="1,797 handwritten digits of 8x8 pixels, 10 classes; comes with scikit-learn",
        target="peftx_vision.data.digits:load",
        locate="peftx_vision.data.digits:locate",
        config="peftx_vision.config.data:DigitsConfig",
        licence="CC BY 4.0",
        source="https://archive.ics.uci.edu/dataset/80",
        size="in scikit-learn",
    )
    yield DatasetSpec(
        name="vision.cifar10",
        summary="60,000 colour photographs of 32x32 pixels, 10 classes",
        target="peftx_vision.data.cifar:load_cifar10",
        locate="peftx_vision.data.cifar:locate_cifar10",
        config="peftx_vision.config.data:CifarConfig",
        aliases=("cifar",),
        licence="none stated",
        source=_CIFAR,
        size="162 MiB",
        verified=False,
    )
    yield DatasetSpec(
        name="vision.cifar100",
        summary="60,000 colour photographs of 32x32 pixels, 100 classes (fine labels)",
        target="peftx_vision.data.cifar:load_cifar100",
        locate="peftx_vision.data.cifar:locate_cifar100",
        config="peftx_vision.config.data:CifarConfig",
        licence="none stated",
        source=_CIFAR,
        size="161 MiB",
        verified=False,
    )
    for name, summary, function, licence, source, size in (
        (
            "mnist",
            "70,000 handwritten digits of 28x28 grey pixels, 10 classes",
            "mnist",
            "CC BY-SA 3.0, as commonly stated",
            "http://yann.lecun.com/exdb/mnist/",
            "11 MiB",
        ),
        (
            "fashion_mnist",
            "70,000 pieces of clothing of 28x28 grey pixels, 10 classes",
            "fashion",
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
            "30 MiB",
        ),
    ):
        yield DatasetSpec(
            name=f"vision.{name}",
            summary=summary,
            target=f"peftx_vision.data.mnist:load_{function}",
            locate=f"peftx_vision.data.mnist:locate_{function}",
            config="peftx_vision.config.data:MnistConfig",
            licence=licence,
            source=source,
            size=size,
            verified=False,
        )
    yield DatasetSpec(
        name="vision.medmnist",
        summary="eleven sets of medical images of 28x28 pixels, chosen by --data.flag",
        target="peftx_vision.data.medmnist:load",
        locate="peftx_vision.data.medmnist:locate",
        config="peftx_vision.config.data:MedMnistConfig",
        licence="CC BY 4.0",
        source="https://github.com/MedMNIST/MedMNIST",
        size="by flag",
        verified=False,
    )
    yield DatasetSpec(
        name="vision.vtab",
        summary="one of the nineteen tasks of VTAB-1k, as folder and lists, such as vtab:cifar or vtab:kitti",
        target="peftx_vision.data.vtab:load",
        locate="peftx_vision.data.vtab:locate",
        config="peftx_vision.config.data:VtabConfig",
        licence="that of each data set",
        source="https://arxiv.org/abs/1910.04867",
        verified=False,
        parametric=True,
    )
    yield DatasetSpec(
        name="vision.fgvc",
        summary="one of five sets of fine-grained classes: fgvc:cub, nabirds, flowers, dogs, cars",
        target="peftx_vision.data.fgvc:load",
        locate="peftx_vision.data.fgvc:locate",
        config="peftx_vision.config.data:FgvcConfig",
        licence="that of each data set",
        source="https://arxiv.org/abs/2203.12119",
        verified=False,
        parametric=True,
    )
    yield DatasetSpec(
        name="vision.imagefolder",
        summary="your own images: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg",
        target="peftx_vision.data.imagefolder:load",
        locate="peftx_vision.data.imagefolder:locate",
        config="peftx_vision.config.data:ImageFolderConfig",
        licence="the folder's own",
        source="PATH",
        parametric=True,
    )


@hookimpl
def peftx_models() -> Iterator[ModelSpec]:
    """The model that ships with the pack; any timm name works as well (`TaskSpec.models`)."""
    yield ModelSpec(
        name="vision.vit_micro",
        summary="a small ViT whose pretrained weights ship with the pack",
        target="peftx_vision.models.registered:vit_micro",
        config="peftx_vision.config.tasks:VitMicroConfig",
        licence="Apache-2.0",
        source="pretrained by peftx_vision.pretrain",
        params=807_808,  # without a head
    )


@hookimpl
def peftx_panels() -> Iterator[PanelSpec]:
    """What the page of a classification shows beside its scores."""
    yield PanelSpec("vision.confusion", "Classes", "peftx_vision.report:confusion")


@hookimpl
def peftx_suites() -> Iterator[SuiteSpec]:
    """The benchmark suites."""
    yield SuiteSpec(
        name="vision.quick",
        summary="every method on the digits, all and 100 of them; three minutes a method on two cores, no download",
        target="peftx_vision.suites:QUICK",
    )
