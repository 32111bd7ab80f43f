"""The data sets of the pack. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, hookimpl

__all__ = ["peftx_datasets"]

_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"


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
    for name, summary, config, licence, source, size in (
        (
            "svhn",
            "99,289 house numbers of 32x32 colour pixels, 10 digits; without the set called extra",
            "TrainTestConfig",
            "non-commercial use, as its page says",
            "http://ufldl.stanford.edu/housenumbers/",
            "235 MiB",
        ),
        (
            "eurosat",
            "27,000 satellite images of 64x64 pixels in RGB, 10 classes of land use; no official split",
            "EuroSatConfig",
            "MIT",
            "https://github.com/phelber/eurosat",
            "about 90 MiB",
        ),
        (
            "dtd",
            "5,640 photographs of 47 textures; ten official splits, chosen by --data.fold",
            "DtdConfig",
            "for research, as its page says",
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
            "596 MiB",
        ),
        (
            "flowers102",
            "8,189 photographs of 102 flowers, with the official splits",
            "Flowers102Config",
            "none stated",
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
            "329 MiB",
        ),
        (
            "oxford_pets",
            "7,349 photographs of 37 breeds of cats and dogs",
            "TrainTestConfig",
            "CC BY-SA 4.0",
            "https://www.robots.ox.ac.uk/~vgg/data/pets/",
            "773 MiB",
        ),
        (
            "food101",
            "101,000 photographs of 101 dishes",
            "TrainTestConfig",
            "none stated; the photographs are of foodspotting.com",
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
            "4.7 GiB",
        ),
    ):
        yield DatasetSpec(
            name=f"vision.{name}",
            summary=summary,
            target=f"peftx_vision.data.{name}:load",
            locate=f"peftx_vision.data.{name}:locate",
            config=f"peftx_vision.config.data:{config}",
            licence=licence,
            source=source,
            size=size,
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
