"""What the vision pack offers. The entry point ``vision`` of the group ``peftx.plugins`` names this module.

Light on purpose: descriptors only, everything else is imported when it is used. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import ModelSpec, Offers, PanelSpec, SuiteSpec, TaskSpec, hookimpl
from peftx_vision.plugin.datasets import peftx_datasets
from peftx_vision.plugin.methods import peftx_methods

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
        reference="core.head",
        models="peftx_vision.models.names:known",
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
    yield PanelSpec("vision.pictures", "Images", "peftx_vision.report:pictures")


@hookimpl
def peftx_suites() -> Iterator[SuiteSpec]:
    """The benchmark suites."""
    yield SuiteSpec(
        name="vision.quick",
        summary="every method on the digits, all and 100 of them; three minutes a method on two cores, no download",
        target="peftx_vision.suites:QUICK",
    )
    yield SuiteSpec(
        name="vision.cifar",
        summary="CIFAR-10 and CIFAR-100, whole and with 1,000 training images, on ViT-B/16",
        target="peftx_vision.suites:CIFAR",
    )
    yield SuiteSpec(
        name="vision.vtab1k",
        summary="the nineteen tasks of VTAB-1k on ViT-B/16, with both of its averages; you bring the data",
        target="peftx_vision.suites:VTAB1K",
        averages="peftx_vision.suites.vtab1k:averages",
    )
    yield SuiteSpec(
        name="vision.fgvc",
        summary="five sets of fine-grained classes on ViT-B/16, with their mean; you bring the data",
        target="peftx_vision.suites:FGVC",
        averages="peftx_vision.suites.fgvc:averages",
    )
