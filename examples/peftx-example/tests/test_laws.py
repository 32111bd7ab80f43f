"""The laws of the conformance kit that ships with peftx: one test for each law and small model."""

from __future__ import annotations

from peftx.testing import MethodLaws, PluginLaws


class TestVera(MethodLaws):
    method = "example.vera"


class TestVeraWithATrainedBank(MethodLaws):
    method = "example.vera"
    options = {"train_bank": True}  # noqa: RUF012
    cases = ("linear", "timm_vit")


class TestRouter(MethodLaws):
    method = "example.router"


class TestBottleneck(MethodLaws):
    method = "example.bottleneck"


class TestPlugin(PluginLaws):
    domain = "example"
