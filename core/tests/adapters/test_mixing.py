"""One batch, several adapters: every sample gets exactly what its own adapter gives it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.errors import AdapterError, UnknownNameError

IDS = ["a", None, "b", "a"]


def _two(case: Any, method: str, perturb: Callable[..., None]) -> tuple[nn.Module, peftx.Adapted]:
    model = case.build()
    adapted = case.attach(model, method, name="a")
    perturb(adapted.tensors("a").values())
    case.attach(model, "core.lora", name="b")
    perturb(adapted.tensors("b").values(), seed=4)
    return model, adapted


def _alone(case: Any, adapted: peftx.Adapted, inputs: Any) -> dict[str | None, Tensor]:
    found: dict[str | None, Tensor] = {}
    with adapted.disabled():
        found[None] = case.call(adapted.model, *inputs)
    for name in ("a", "b"):
        adapted.activate(name)
        found[name] = case.call(adapted.model, *inputs)
    return found


def test_equals_each_adapter_alone(case: Any, method: str, perturb: Callable[..., None]) -> None:
    model, adapted = _two(case, method, perturb)
    inputs = case.samples(4)
    for grad, ids in ((False, IDS), (True, IDS), (False, ["b", None, None, "b"]), (False, ["a"] * 4)):
        with torch.set_grad_enabled(grad):
            alone = _alone(case, adapted, inputs)
            wanted = torch.stack([alone[name][i] for i, name in enumerate(ids)])
            with adapted.per_sample(ids):
                try:
                    mixed = case.call(model, *inputs)
                except AdapterError:
                    assert case.unmixed and method == "core.full"  # may be refused, never be wrong
                    assert "a" in ids
                    continue
        assert torch.allclose(mixed, wanted, atol=1e-5, rtol=1e-4)
        assert not (case.unmixed and method == "core.full" and ids is IDS)
        assert adapted.active == ("b",), "the selection is the block's alone"


@pytest.mark.parametrize(
    "name",
    [
        "conv2d",
        "packed_attention_sequence_first",
        "encoder",
        "timm_vit",
        "timm_swin",
        "timm_beit",
        "transformers_bert",
    ],
)
@pytest.mark.parametrize("method", ["core.full", "core.lora", "core.dora"])
def test_gradients_are_those_of_the_own_samples(
    case_of: Callable[[str], Any], name: str, method: str, perturb: Callable[..., None]
) -> None:
    case = case_of(name)
    model, adapted = _two(case, method, perturb)
    inputs = case.samples(4)
    wanted: dict[str, list[Tensor]] = {}
    for adapter in ("a", "b"):
        own = [i for i, name in enumerate(IDS) if name == adapter]
        adapted.activate(adapter)
        case.call(model, *(x[own] for x in inputs)).square().sum().backward()
        wanted[adapter] = [p.grad.clone() for p in adapted.tensors(adapter).values()]
        model.zero_grad()
    adapted.train_only("a", "b")
    with adapted.per_sample(IDS):
        case.call(model, *inputs).square().sum().backward()
    for adapter, gradients in wanted.items():
        for parameter, gradient in zip(adapted.tensors(adapter).values(), gradients, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, gradient, atol=1e-4 * (1 + gradient.abs().max().item()))


def test_sites_a_batch_does_not_use_stay_out_of_the_way(case_of: Callable[[str], Any]) -> None:
    """An adapter on the root must not hide another one further in, when only that one is in the batch."""
    case = case_of("timm_vit")  # its root holds the class token, so `a` sits there and `b` does not
    model = case.build()
    adapted = case.attach(model, "core.full", name="a")
    adapted.attach("core.lora", name="b", rank=2, also_train=[])
    with torch.no_grad():
        for tensor in adapted.tensors("b").values():
            tensor.add_(torch.randn_like(tensor))
        x = case.samples()[0]
        b = model(x)
        with adapted.disabled():
            base = model(x)
        with adapted.per_sample(["b", None, None, "b"]):
            mixed = model(x)
    assert torch.allclose(mixed, torch.stack((b[0], base[1], base[2], b[3])), atol=1e-5)
    assert not torch.allclose(b, base, atol=1e-3)


MASKS: dict[str, Any] = {
    "none": {},
    "weights": {"need_weights": True, "average_attn_weights": False},
    "two": {"attn_mask": torch.ones(5, 4).triu(1).bool()},
    "three": {"attn_mask": torch.randn(8, 5, 4)},
    "padding": {
        "key_padding_mask": torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    },
}


@pytest.mark.parametrize("targets", [["attention"], ["attention.out"], ["attention.q", "attention.v"]])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_packed_attention(
    mask: str, batch_first: bool, targets: list[str], perturb: Callable[..., None]
) -> None:
    """4 samples, 5 queries over 4 keys, 2 heads; also when only the output layer, read by name, is adapted."""
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, batch_first=batch_first)}).eval()
    adapted = peftx.attach(model, "core.lora", name="a", targets=targets, also_train=[])
    perturb(adapted.parameters())
    adapted.attach("core.dora", name="b", targets=targets, also_train=[])
    perturb(adapted.parameters())
    x, key = torch.randn(4, 5, 8), torch.randn(4, 4, 8)
    if not batch_first:
        x, key = x.transpose(0, 1), key.transpose(0, 1)
    options = {"need_weights": False} | MASKS[mask]

    def run() -> tuple[Tensor, Tensor | None]:
        y, weights = model["attn"](x, key, key, **options)
        return y if batch_first else y.transpose(0, 1), weights

    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            with adapted.disabled():
                found: dict[str | None, Any] = {None: run()}
            for name in ("a", "b"):
                adapted.activate(name)
                found[name] = run()
            with adapted.per_sample(IDS):
                y, weights = run()
        for i, name in enumerate(IDS):
            assert torch.allclose(y[i], found[name][0][i], atol=1e-5)
            if weights is not None:
                assert torch.allclose(weights[i], found[name][1][i], atol=1e-5)
        assert not torch.allclose(found["a"][0], found[None][0], atol=1e-3)


def _linear(**options: Any) -> tuple[nn.Module, peftx.Adapted]:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    return model, peftx.attach(model, "core.lora", name="a", targets=["glob:*"], also_train=[], **options)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_wrong_number_of_ids_is_refused(count: int, case_of: Callable[[str], Any]) -> None:
    for name in (
        "linear",
        "packed_attention",
        "packed_attention_sequence_first",
        "timm_swin",
        "transformers_gpt2",
    ):
        case = case_of(name)
        model = case.build()
        adapted = case.attach(model, "core.lora", name="a")
        message = rf"multiple of {count}, the number of adapter ids"
        with adapted.per_sample(["a"] + [None] * (count - 1)), pytest.raises(AdapterError, match=message):
            case.call(model, *case.samples(4))


def test_unknown_and_empty_ids_are_refused() -> None:
    _, adapted = _linear()
    with pytest.raises(UnknownNameError, match="'b'"), adapted.per_sample(["a", "b"]):
        pass
    with pytest.raises(AdapterError, match="empty"), adapted.per_sample([]):
        pass


def test_an_error_ends_the_selection() -> None:
    model, adapted = _linear()
    with pytest.raises(ValueError, match="mine"), adapted.per_sample(["a", None]):
        raise ValueError("mine")
    with pytest.raises(AdapterError), adapted.per_sample(["a", None]):
        model(torch.ones(3, 3))
    assert adapted.active == ("a",)
    assert model(torch.ones(3, 3)).shape == (3, 2)


def test_a_sample_may_be_several_rows(perturb: Callable[..., None]) -> None:
    model, adapted = _linear()
    perturb(adapted.parameters())
    x = torch.randn(6, 4, 3)
    y = model(x)
    with adapted.disabled():
        base = model(x)
    with adapted.per_sample([None, "a", None]):
        mixed = model(x)
    assert torch.allclose(mixed, torch.cat((base[:2], y[2:4], base[4:])), atol=1e-6)


class Reader(nn.Module):
    """Reads a child's weight by name; asks for its dtype first, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(3, 3)
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.to(self.table.weight.dtype) @ self.table.weight)


def test_a_weight_read_from_outside_is_never_shared_silently(perturb: Callable[..., None]) -> None:
    model = Reader()
    adapted = peftx.attach(model, "core.lora", targets=["table"], also_train=[])
    perturb(adapted.parameters())
    x = torch.randn(2, 3)
    with (
        adapted.per_sample(["default", None]),
        pytest.raises(AdapterError, match=r"table\.weight is read from"),
    ):
        model(x)
    adapted.attach("core.lora", name="out", targets=["out"], also_train=[])
    perturb(adapted.parameters())
    y = model(x)
    with adapted.per_sample(["out", None]):  # nobody in the batch adapts the table
        mixed = model(x)
    assert torch.allclose(mixed[0], y[0], atol=1e-6) and not torch.allclose(mixed[1], y[1], atol=1e-3)


class Rotary(nn.Module):
    """A module with a parameter of its own, a table over positions, and as many positions as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, rope: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = x * rope + self.bias
        return y if attn_mask is None else attn_mask @ y


def test_what_belongs_to_positions_is_not_split(perturb: Callable[..., None]) -> None:
    model = Rotary()
    adapted = peftx.attach(model, "core.full")
    perturb(adapted.parameters())
    x, rope = torch.randn(4, 4, 3), torch.randn(4, 3)
    y = model(x, rope)
    with adapted.per_sample(["default", None] * 2):
        mixed = model(x, rope)
        assert torch.allclose(mixed, model(x, rope=rope))
        with pytest.raises(AdapterError, match="square attn_mask"):
            model(x, rope, torch.ones(4, 4))
    assert torch.allclose(mixed[::2], y[::2]) and torch.allclose(mixed[1::2], (x * rope)[1::2])


class Pooled(Rotary):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return (x + self.bias).mean()


def test_results_that_cannot_be_put_together_are_refused() -> None:
    model = Pooled()
    adapted = peftx.attach(model, "core.full")
    with adapted.per_sample(["default", None]), pytest.raises(AdapterError, match="cannot be put together"):
        model(torch.randn(2, 3))
