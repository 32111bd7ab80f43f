"""Attaching is all or nothing: whatever is refused, the model is untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import AdapterError, ConfigError, PeftxError, SelectionError, UnknownNameError


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    model[2].weight.requires_grad_(False)
    return model


@pytest.fixture
def untouched() -> Callable[..., str]:
    """Attach, expect a refusal, compare the model with itself, and return the message."""

    def check(model: nn.Module, method: Any = "core.lora", error: type = PeftxError, **options: Any) -> str:
        def picture() -> Any:
            return (
                [
                    (path, type(module), module.training, sorted(dict(module.named_children())))
                    for path, module in model.named_modules()
                ],
                [(key, id(p), p.requires_grad) for key, p in model.named_parameters()],
                sorted(model.__dict__),
            )

        before = picture()
        values = [p.detach().clone() for p in model.parameters() if not nn.parameter.is_lazy(p)]
        with pytest.raises(error) as caught:
            peftx.attach(model, method, **options)
        assert picture() == before
        now = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
        assert all(torch.equal(a.float(), b.float()) for a, b in zip(now, values, strict=True))
        return str(caught.value)

    return check


@pytest.mark.parametrize("method", ["core.lora", "core.dora", "core.full", "core.bitfit", "core.head"])
def test_bad_targets(method: str, untouched: Callable[..., str]) -> None:
    field = "also_train" if method == "core.head" else "targets"
    assert "nowhere" in untouched(_model(), method, SelectionError, **{field: ["nowhere"]})


def test_bad_methods_and_options(untouched: Callable[..., str]) -> None:
    assert "Did you mean core.lora" in untouched(_model(), "core.lorra", UnknownNameError)
    assert "AdapterMethod" in untouched(_model(), 3, AdapterError)
    assert "rank" in untouched(_model(), "core.lora", ConfigError, rank=0, targets=["0"])
    assert "rnak" in untouched(_model(), "core.lora", ConfigError, rnak=4, targets=["0"])
    assert "not both" in untouched(_model(), "core.lora", ConfigError, config={"rank": 2}, rank=4)
    assert "HeadConfig" in untouched(_model(), "core.head", ConfigError, config=_lora_config())
    assert "rank_pattern" in untouched(
        _model(), "core.lora", ConfigError, targets=["0"], rank_pattern={"0": 0}
    )


def _lora_config() -> Any:
    from peftx.config.methods import LoRAConfig

    return LoRAConfig()


@pytest.mark.parametrize(
    "name",
    ["", "1", "a.b", "a b", "forward", "train", "training", "_modules", "board", "key", "batch_dim", "items"],
)
def test_names_that_cannot_be(name: str, untouched: Callable[..., str]) -> None:
    assert "cannot name an adapter" in untouched(_model(), error=ConfigError, name=name, targets=["0"])


@pytest.mark.parametrize("name", ["default", "a-b", "_x", "Task1", "peftx", "weight", "A"])
def test_names_that_can_be(name: str) -> None:
    model = _model()
    adapted = peftx.attach(model, "core.lora", name=name, targets=["0"], also_train=["2"])
    assert adapted.names == (name,) and model(torch.ones(3, 4)).shape == (3, 2)
    assert len(list(adapted.named_parameters(name))) == 4


def test_a_name_that_is_taken() -> None:
    adapted = peftx.attach(_model(), "core.lora", name="a", targets=["0"])
    with pytest.raises(ConfigError, match="attached already"):
        peftx.attach(adapted.model, "core.full", name="a")
    assert adapted.names == adapted.active == ("a",)
    assert peftx.attach(adapted.model, "core.full", name="b").names == ("a", "b")


def test_one_root_at_a_time(untouched: Callable[..., str]) -> None:
    model = nn.Sequential(_model(), nn.Linear(2, 2))
    inner = peftx.attach(model[0], "core.lora", targets=["0"])
    assert "another root" in untouched(model, error=AdapterError, targets=["1"])
    inner.detach()
    outer = peftx.attach(model, "core.lora", targets=["0.0"])
    assert "another root" in untouched(model[0], error=AdapterError, targets=["0"])
    outer.detach()


def test_not_a_module() -> None:
    with pytest.raises(AdapterError, match="expected a torch module"):
        peftx.attach({"a": 1}, "core.lora")  # type: ignore[arg-type]


def test_lazy_modules(untouched: Callable[..., str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2))
    assert "run the model once" in untouched(model, "core.full", AdapterError)
    model(torch.ones(1, 4))
    assert peftx.attach(model, "core.full").counts().trainable == 30


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_modules(untouched: Callable[..., str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 4)))
    assert "1 is a TorchScript module" in untouched(model, "core.full", AdapterError)
    assert "1 is a TorchScript module" in untouched(model, "core.lora", AdapterError, targets=["0"])


def test_a_part_that_is_called_like_ours(untouched: Callable[..., str]) -> None:
    model = _model()
    model.add_module("peftx", nn.Linear(2, 2))
    assert "'peftx'" in untouched(model, "core.full", AdapterError)
    model = _model()
    model[0].register_parameter("peftx", nn.Parameter(torch.ones(1)))
    assert "0 has a part named 'peftx'" in untouched(model, "core.full", AdapterError)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_bases_that_are_no_plain_floats(dtype: torch.dtype, untouched: Callable[..., str]) -> None:
    model = _model()
    model[0].weight = nn.Parameter(model[0].weight.detach().to(dtype), requires_grad=False)
    for method in ("core.lora", "core.full"):
        options = {"targets": ["glob:*"]}
        assert str(dtype) in untouched(model, method, AdapterError, **options)


def test_a_failure_in_the_middle_is_undone(
    untouched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftx.adapters import placing

    swap, calls = placing.swap_in, 0

    def fails_late(module: nn.Module) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("no more")
        swap(module)

    monkeypatch.setattr(placing, "swap_in", fails_late)
    assert untouched(_model(), "core.full", RuntimeError) == "no more"
    monkeypatch.undo()
    model = _model()
    adapted = peftx.attach(model, "core.lora", name="first", targets=["0"])
    x = torch.randn(3, 4)
    before = model(x)
    calls = 0
    monkeypatch.setattr(placing, "swap_in", fails_late)
    assert untouched(model, "core.full", RuntimeError, name="second") == "no more"
    assert adapted.names == adapted.active == ("first",)
    assert torch.equal(model(x), before)
    adapted.detach()
    assert not any("peftx" in key for key in model.state_dict())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["core.lora", "core.dora", "core.full"])
def test_attached_without_gradients_it_still_trains(mode: Any, method: str) -> None:
    model = _model()
    with mode():
        adapted = peftx.attach(model, method, **({"targets": ["0", "2"]} if method != "core.full" else {}))
    for parameter in adapted.parameters():
        assert parameter.requires_grad and not parameter.is_inference()
    model(torch.randn(3, 4)).square().sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    with mode():
        adapted.detach()
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]


def test_the_root_may_be_the_layer_itself(perturb: Callable[..., None]) -> None:
    for method in ("core.lora", "core.dora", "core.full"):
        model = nn.Linear(3, 3)
        x = torch.randn(2, 3)
        before = model(x)
        adapted = peftx.attach(model, method, targets=["glob:*"], also_train=[])
        perturb(adapted.parameters())
        assert (model(x) - before).abs().max() > 1e-3
        with adapted.per_sample([None, "default"]):
            assert torch.allclose(model(x)[0], before[0])
        adapted.detach()
        assert torch.equal(model(x), before) and type(model) is nn.Linear


def test_owning_a_bias_leaves_the_weight_to_the_method(perturb: Callable[..., None]) -> None:
    for dropout in (0.0, 0.5):
        model = _model().eval()
        adapted = peftx.attach(
            model, "core.lora", targets=["0", "2"], also_train=["0.bias"], rank=2, dropout=dropout
        )
        assert adapted.attachment().plan.keys == ("0", "2")
        assert adapted.attachment().owned.keys == ("0.bias",)
        assert adapted.counts().adapter == 2 * (8 + 6) and adapted.counts().owned == 4
        perturb(adapted.parameters())
        x = torch.randn(3, 4)
        tensors = adapted.tensors()
        delta = 8 * tensors["0", "B"] @ tensors["0", "A"]  # alpha 16 over rank 2
        weight = model[0]._parameters["weight"] + delta
        assert torch.allclose(
            model[0](x), nn.functional.linear(x, weight, tensors["0.bias", "value"]), atol=1e-5
        )
        model.train()
        assert torch.equal(model[0](x), model[0](x)) is (dropout == 0), "the delta still sees its input"


def test_what_is_owned_whole_is_not_adapted() -> None:
    adapted = peftx.attach(_model(), "core.lora", targets=["all-linear"], also_train=["2"])
    assert adapted.attachment().plan.keys == ("0",)


def test_dora_wants_weights_to_start_from(untouched: Callable[..., str]) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(AdapterError, match="meta device"):
        peftx.attach(model, "core.dora", targets=["0"], also_train=[])
    assert type(model[0]) is nn.Linear
    adapted = peftx.attach(model, "core.lora", targets=["0"], also_train=[])
    assert all(p.is_meta for p in adapted.parameters())
