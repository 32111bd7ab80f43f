from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from peftx_kernels import KernelError, lora_linear, register, table, tiers, use
from peftx_kernels.availability import interpreting, why_no_triton


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(table, "_table", {op: dict(names) for op, names in table._table.items()})
    yield
    monkeypatch.undo()
    use(None)


def call() -> torch.Tensor:
    return lora_linear(torch.ones(2, 3), torch.ones(4, 3), None, torch.ones(1, 3), torch.ones(4, 1), 1.0)


def other(*args: Any, **options: Any) -> str:
    return "other"


def test_auto_chooses_eager_and_says_why() -> None:
    use("auto")
    tier = tiers()["lora_linear"]
    assert (tier.name, tier.available) == ("eager", ("reference", "eager", "triton"))
    assert "library calls" in tier.reason and tier.by_call == (not why_no_triton() and not interpreting())


def test_the_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTX_KERNELS", "reference")
    use(None)
    assert {tier.name for tier in tiers().values()} == {"reference"}
    assert tiers()["dora_linear"].reason == "PEFTX_KERNELS=reference"
    assert table.implementation("lora_linear").__module__.endswith("lora_linear.reference")
    assert call().shape == (2, 4)


def test_one_op_can_be_chosen_alone() -> None:
    use("auto,dora_linear=reference")
    assert tiers()["dora_linear"].name == "reference"
    assert tiers()["lora_linear"].name == "eager"


def test_missing_implementation_is_one_sentence_naming_the_others() -> None:
    table._table["lora_linear"].pop("triton")
    use("triton")
    with pytest.raises(
        KernelError, match="'triton' implementation of lora_linear, which has only reference, eager"
    ):
        call()
    with pytest.raises(KernelError, match="PEFTX_KERNELS=auto"):
        tiers()


def test_kernels_that_cannot_run_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "why_no_triton", lambda: "no CUDA GPU is visible")
    use("lora_linear=triton")
    with pytest.raises(KernelError, match=r"kernels of lora_linear, but no CUDA GPU is visible; set .*=auto"):
        call()
    use("auto")
    assert "because no CUDA GPU is visible" in tiers()["lora_linear"].reason


def test_kernels_run_call_by_call_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is published for Linux only")
    import peftx_kernels.ops.lora_linear.triton as kernels

    monkeypatch.setattr(table, "why_no_triton", lambda: "")
    monkeypatch.setattr(kernels, "lora_linear", other)
    use("auto")
    assert tiers()["lora_linear"].by_call and tiers()["lora_linear"].name == "eager"
    assert isinstance(call(), torch.Tensor)  # not for tensors on a CPU
    monkeypatch.setattr(kernels, "fits", lambda *_, **__: True)
    use("auto")
    assert call() == "other"


def test_unknown_names_are_refused() -> None:
    use("trition")
    with pytest.raises(KernelError, match="'trition'; expected one of auto, eager, reference, triton"):
        call()
    use("lora_liner=eager")
    with pytest.raises(KernelError, match=r"op 'lora_liner'; the ops are .*dora_linear, .*lora_linear"):
        call()


def test_a_registered_implementation_runs_only_when_asked_for() -> None:
    register("lora_linear", "other", other)
    assert isinstance(call(), torch.Tensor)
    use("other")
    assert call() == "other"
    assert tiers()["lora_linear"].name == "other"
    assert tiers()["dora_linear"].name == "eager"  # has no such implementation: keeps the built-in choice
    use("lora_linear=eager")
    assert isinstance(call(), torch.Tensor)


def test_registering_after_the_choice_takes_effect() -> None:
    use("lora_linear=late")
    with pytest.raises(KernelError, match="'late'"):
        call()
    register("lora_linear", "late", f"{other.__module__}:other")
    register("lora_linear", "late", f"{other.__module__}:other")  # the same again is no conflict
    assert tiers()["lora_linear"].name == "late"


def test_register_refuses_conflicts_and_unknown_ops() -> None:
    with pytest.raises(KernelError, match="already has an implementation called 'eager'"):
        register("lora_linear", "eager", other)
    with pytest.raises(KernelError, match="no kernel op is called 'lora'"):
        register("lora", "x", other)
