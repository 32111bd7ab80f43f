"""One batch, several adapters: every sample gets exactly what its own adapter gives it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import peftx
from peftx.adapters.methods.lora import LoRA, LoRADelta
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


class Positions(nn.Module):
    """A table of positions that is asked once for all samples, or for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.out(x + self.position_embeddings(index))


# core.lora shares the product with a layer's weight where it can, core.dora has none to share
@pytest.mark.parametrize("method", ["core.lora", "core.dora", "core.full"])
@pytest.mark.parametrize("form", ["(P,)", "(1, P)", "(B, P)"])
def test_a_table_of_positions_that_is_asked_once_gives_each_sample_its_own(
    method: str, form: str, perturb: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    model = Positions()
    options = {"targets": ["embedding.position"]} if method != "core.full" else {}
    for seed, name in enumerate("ab"):
        adapted = peftx.attach(model, method, name=name, also_train=[], **options)
        perturb(adapted.tensors(name).values(), seed=seed + 3)
    index = {"(P,)": torch.arange(4), "(1, P)": torch.arange(4)[None]}.get(form, torch.arange(4).repeat(4, 1))
    inputs = (torch.randn(4, 4, 3), index)
    alone: dict[str | None, Tensor] = {}
    for name in ("a", "b"):
        adapted.activate(name)
        alone[name] = model(*inputs)
    with adapted.disabled():
        alone[None] = model(*inputs)
    with adapted.per_sample(IDS):
        mixed = model(*inputs)
    wanted = torch.stack([alone[name][sample] for sample, name in enumerate(IDS)])
    assert torch.allclose(mixed, wanted, atol=1e-6)
    assert not torch.allclose(alone["a"], alone["b"], atol=1e-2)


class Pooled(Rotary):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return (x + self.bias).mean()


def test_results_that_cannot_be_put_together_are_refused() -> None:
    model = Pooled()
    adapted = peftx.attach(model, "core.full")
    with adapted.per_sample(["default", None]), pytest.raises(AdapterError, match="cannot be put together"):
        model(torch.randn(2, 3))


# Layers whose adapters share the product with the base weight


class Products(TorchDispatchMode):
    """Counts the products with each of some weights."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.of = {weight.untyped_storage().data_ptr(): 0 for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("mm", "addmm", "linear"):
            for one in args:
                if isinstance(one, Tensor) and one.dim() == 2 and one.untyped_storage().data_ptr() in self.of:
                    self.of[one.untyped_storage().data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def _mlp(*methods: str, **options: Any) -> tuple[nn.Module, peftx.Adapted]:
    """A fused projection of three slices and an output, under adapters named after their place."""
    model = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8))
    for index, method in enumerate(methods):
        peftx.attach(model, method, name="abcd"[index], targets=["glob:*"], also_train=[], **options)
    adapted = peftx.adapted(model)
    with torch.no_grad():
        for name in adapted.names:
            for tensor in adapted.tensors(name).values():
                tensor.add_(0.3 * torch.randn_like(tensor))
    return model, adapted


def _grads(adapted: peftx.Adapted) -> list[Tensor]:
    found = [p.grad for name in adapted.names for p in adapted.tensors(name).values()]
    for name in adapted.names:
        for parameter in adapted.tensors(name).values():
            parameter.grad = None
    return [torch.empty(0) if grad is None else grad for grad in found]


def test_one_product_with_the_base_whatever_the_number_of_adapters() -> None:
    model, adapted = _mlp("core.lora", "core.rslora", "core.lora", rank=2)
    adapted.train_only("a", "b", "c")
    weights = [model[place]._parameters["weight"] for place in (0, 2)]
    x = torch.randn(5, 7, 8, requires_grad=True)
    with Products(*weights) as products, adapted.per_sample(["a", "b", None, "c", "a"]):
        model(x).square().sum().backward()
    assert list(products.of.values()) == [2, 2], "once forward and once backward for each layer"


def test_other_methods_take_a_product_for_each_part() -> None:
    model, adapted = _mlp("core.lora", "core.dora", rank=2)
    weight = model[0]._parameters["weight"]
    with torch.no_grad(), Products(weight) as products, adapted.per_sample(["a", "b", "a"]):
        model(torch.randn(3, 8))
    assert products.of[weight.untyped_storage().data_ptr()] > 1


class Louder(LoRADelta):
    """A subclass with another product, which must not be taken for LoRA's."""

    def forward(self, x: Tensor, base: Any) -> Tensor:
        return super().forward(x, base) + 1


class Loud(LoRA):
    Delta = Louder


def test_a_subclass_with_its_own_product_keeps_it() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    adapted = peftx.attach(model, Loud, name="a", targets=["glob:*"], also_train=[])
    adapted.attach("core.lora", name="b", targets=["glob:*"], also_train=[])
    x = torch.randn(2, 3)
    with adapted.disabled():
        base = model(x)
    with adapted.per_sample(["a", "b"]):
        assert torch.allclose(model(x), base + torch.tensor([[1.0], [0.0]]), atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_shared_and_separate_products_agree(
    batch_first: bool, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and every gradient of an encoder, with dropout off (rate only says that the adapters have one)."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=batch_first)
    adapted = peftx.attach(layer, "core.lora", name="a", rank=2, dropout=rate, targets=["mlp"], also_train=[])
    adapted.attach("core.lora", name="b", rank=5, dropout=rate, targets=["mlp.down"], also_train=[])
    with torch.no_grad():
        for name in adapted.names:
            for tensor in adapted.tensors(name).values():
                tensor.add_(0.3 * torch.randn_like(tensor))
    adapted.train_only("a", "b")
    layer.eval()
    x = torch.randn(4, 6, 16) if batch_first else torch.randn(6, 4, 16)
    results = []
    for together in (True, False):
        if not together:
            monkeypatch.setattr(LoRADelta, "grouped", classmethod(lambda *_: None))
        with adapted.per_sample(["b", "a", None, "b"]):
            y = layer(x)
            y.square().sum().backward()
        results.append([y, *_grads(adapted)])
    for one, two in zip(*results, strict=True):
        assert one.numel() and torch.allclose(one, two, atol=1e-5, rtol=1e-4)


def test_slices_of_a_fused_projection(case_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("timm_vit")
    model = case.build()
    adapted = peftx.attach(
        model, "core.lora", name="a", targets=["attention.q", "attention.v"], also_train=[]
    )
    adapted.attach("core.lora", name="b", targets=["attention.qkv"], rank=3, also_train=[])
    with torch.no_grad():
        for name in adapted.names:
            for tensor in adapted.tensors(name).values():
                tensor.add_(0.1 * torch.randn_like(tensor))
    inputs = case.samples(4)
    with torch.no_grad(), adapted.per_sample(["a", "b", None, "a"]):
        together = case.call(model, *inputs)
        monkeypatch.setattr(LoRADelta, "grouped", classmethod(lambda *_: None))
        apart = case.call(model, *inputs)
    assert torch.allclose(together, apart, atol=1e-5) and not torch.allclose(
        together[0], together[2], atol=1e-3
    )


def test_adapters_with_other_dropouts_are_drawn_apart() -> None:
    model, adapted = _mlp("core.lora", rank=2, dropout=0.5)
    adapted.attach("core.lora", name="b", targets=["glob:*"], rank=2, also_train=[])
    x = torch.randn(64, 8)
    model.train()
    with torch.no_grad(), adapted.per_sample(["a"] * 32 + ["b"] * 32):
        one, two = model(x), model(x)
    assert torch.equal(one[32:], two[32:]) and not torch.equal(one[:32], two[:32])


def test_recomputed_activations_are_kept_once() -> None:
    """With recompute_activations a mixed batch keeps no input of the second layer, which its GELU can make again."""
    kept = []
    for recompute in (False, True):
        model, adapted = _mlp("core.lora", "core.lora", rank=2, recompute_activations=recompute)
        x, found = torch.randn(4, 50, 8, requires_grad=True), {}

        def pack(t: Tensor, found: dict[int, int] = found) -> Tensor:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            adapted.per_sample(["a", "b", None, "a"]),
        ):
            y = model(x)
        kept.append(sum(found.values()))
        y.sum().backward()
    assert kept[0] - kept[1] == 4 * 50 * 24 * 4


def test_a_mixed_batch_in_one_graph() -> None:
    torch._dynamo.reset()
    model, adapted = _mlp("core.lora", "core.lora", rank=2)
    adapted.train_only("a", "b")
    x = torch.randn(4, 6, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with adapted.per_sample(["a", None, "b", "a"]):
        y = compiled(x)
        y.square().sum().backward()
        got = _grads(adapted)
        z = model(x)
        z.square().sum().backward()
    assert torch.allclose(y, z, atol=1e-6)
    for one, two in zip(got, _grads(adapted), strict=True):
        assert one.numel() and torch.allclose(one, two, atol=1e-4)
