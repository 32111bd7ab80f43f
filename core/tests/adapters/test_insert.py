"""Inserts: every read and write point, no path around them, and the same rights as any other adapter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import peftx
from peftx.adapters import AdapterMethod, Insert, Site, SitePlan
from peftx.adapters.activations import activation_sites
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError


class PointConfig(AdapterConfig):
    targets: list[str] = Field(default=["mlp"])
    also_train: list[str] = Field(default=[])


class Scale(Insert):
    """g(x) = c * x, c of shape (D,); zero at the start."""

    def __init__(self, site: Site, config: PointConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.c = nn.Parameter(torch.zeros(site.shape[0], dtype=site.dtype))

    def insert(self, x: Tensor) -> Tensor:
        return x * self.c

    @staticmethod
    def param_count(site: Site, config: PointConfig) -> int:
        return site.shape[0]


def _method(read: Any, write: Any = "output") -> type[AdapterMethod]:
    delta = type("Point", (Scale,), {"read": read, "write": write})
    return type("Method", (AdapterMethod,), {"Config": PointConfig, "Delta": delta, "kinds": ("activation",)})


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).eval()


def _randomise(adapted: peftx.Adapted, name: str | None = None) -> None:
    with torch.no_grad():
        for parameter in adapted.parameters(name):
            parameter.normal_()


POINTS: dict[tuple[str, str], Callable[[Any, Tensor, Tensor], Tensor]] = {
    ("input", "output"): lambda f, x, c: f(x) + c * x,
    ("output", "output"): lambda f, x, c: f(x) + c * f(x),
    ("input", "input"): lambda f, x, c: f(x + c * x),
}


@pytest.mark.parametrize(("read", "write"), list(POINTS))
def test_points(read: str, write: str) -> None:
    model, x = _model(), torch.randn(2, 3, 6)
    bare, y = copy.deepcopy(model), model(x)
    adapted = peftx.attach(model, _method(read, write))
    assert torch.equal(model(x), y), "zero at the start"
    assert adapted.attachment().plan.keys == ("0.mlp", "1.mlp")
    _randomise(adapted)
    expected: Any = x
    for index, block in enumerate(bare):  # type: ignore[arg-type]
        c = model[index].mlp.peftx["default"]["insert"].c  # type: ignore[index,union-attr]
        expected = expected + POINTS[read, write](block.mlp, block.norm(expected), c)
    torch.testing.assert_close(model(x), expected)
    assert not adapted.reached(lambda: model(x))
    adapted.detach()
    assert torch.equal(model(x), y) and type(model[0].mlp) is Mlp  # type: ignore[index,union-attr]


class Parallel(_method("tap")):  # type: ignore[misc]
    """Reads the residual stream in front of the norm."""

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        sites = super().plan(model, config)
        return SitePlan(tuple(replace(s, read=s.module.replace("mlp", "norm")) for s in sites))


def test_a_tap_reads_another_module() -> None:
    model, x = _model(), torch.randn(2, 3, 6)
    bare, y = copy.deepcopy(model), model(x)
    adapted = peftx.attach(model, Parallel)
    _randomise(adapted)
    expected: Any = x
    for index, block in enumerate(bare):  # type: ignore[arg-type]
        c = model[index].mlp.peftx["default"]["insert"].c  # type: ignore[index,union-attr]
        expected = expected + block.mlp(block.norm(expected)) + c * expected
    torch.testing.assert_close(model(x), expected)
    assert model[0].mlp.peftx["default"]["insert"]._tapped is None, "no activation outlives its forward"  # type: ignore[index,union-attr]
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), expected)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.zero_()
    assert torch.equal(model(x), y)
    torch.testing.assert_close(twin(x), expected)  # the copy's taps feed the copy's inserts
    with pytest.raises(AdapterError, match=r"0\.norm, where its adapter reads, .* activation checkpointing"):
        model[0].mlp(x)  # type: ignore[index,union-attr,operator]
    adapted.attach(Parallel, name="b")
    _randomise(adapted, "b")
    alone = {name: adapted.activate(name).model(x) for name in ("default", "b")}
    with adapted.per_sample(["b", None]):
        mixed = model(x)
    torch.testing.assert_close(mixed, torch.stack([alone["b"][0], y[1]]))
    adapted.detach()
    assert torch.equal(model(x), y)
    assert not any(hasattr(type(m), "_peftx_base") for m in model.modules())


class Beside(_method("tap")):  # type: ignore[misc]
    """Reads the stream in front of the norm and writes behind the block."""

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        sites = super().plan(model, config)
        return SitePlan(tuple(replace(s, read=f"{s.module}.norm") for s in sites))


def test_a_tap_reads_a_module_within() -> None:
    model, x = _model(), torch.randn(3, 3, 6)
    bare, y = copy.deepcopy(model), model(x)
    adapted = peftx.attach(model, Beside, targets=["block"])
    assert adapted.attachment().plan.keys == ("0", "1")
    _randomise(adapted)
    expected: Any = x
    for index, block in enumerate(bare):  # type: ignore[arg-type]
        insert: Any = model[index].peftx["default"]["insert"]  # type: ignore[index,union-attr]
        expected = block(expected) + insert.c * expected
    z = model(x)
    torch.testing.assert_close(z, expected)
    assert model[0].peftx["default"]["insert"]._tapped is None  # type: ignore[index,union-attr]
    with adapted.per_sample(["default", None, "default"]), torch.no_grad():
        torch.testing.assert_close(model(x), torch.stack([z[0], y[1], z[2]]))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), z)
    z.square().sum().backward()
    plain = [p.grad.clone() for p in adapted.parameters() if p.grad is not None]
    for parameter in adapted.parameters():
        parameter.grad = None
    h = x
    for block in model:  # type: ignore[attr-defined]
        h = checkpoint(block, h, use_reentrant=False)
    h.square().sum().backward()
    torch.testing.assert_close([p.grad for p in adapted.parameters()], plain)
    adapted.detach()
    assert torch.equal(model(x), y)


def test_one_operation_may_add_and_insert() -> None:
    class Fused(Scale):
        def add(self, y: Tensor, x: Tensor) -> Tensor:
            return torch.addcmul(y, x, self.c)

        def insert(self, x: Tensor) -> Tensor:
            raise AssertionError("add is asked")

    model, x = _model(), torch.randn(2, 3, 6)
    for method in (_method("output"), _method("input", "input"), Parallel):
        adapted = peftx.attach(model, method)
        _randomise(adapted)
        want = model(x)
        state = {key: value.detach().clone() for key, value in adapted.tensors().items()}
        adapted.detach()
        fused = type(
            "M",
            (method,),
            {"Delta": type("F", (Fused,), {"read": method.Delta.read, "write": method.Delta.write})},
        )
        adapted = peftx.attach(model, fused)
        with torch.no_grad():
            for key, value in adapted.tensors().items():
                value.copy_(state[key])
        torch.testing.assert_close(model(x), want)
        adapted.detach()


class Convolving(nn.Module):
    """A block that keeps its channels second, as ConvNeXt's, and four of them beside four rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_dw, self.norm, self.mlp = (
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.LayerNorm(4),
            nn.Sequential(),
        )
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(self.conv_dw(x).movedim(1, -1))).movedim(-1, 1)


@pytest.mark.parametrize(("read", "write"), list(POINTS))
def test_the_features_are_where_the_block_keeps_them(read: str, write: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Convolving(), Convolving()).eval(), torch.randn(3, 4, 4, 4)
    assert [site.channel_dim for site in activation_sites(model) if site.role == "block"] == [1, 1]
    assert {site.channel_dim for site in activation_sites(model) if site.role == "mlp"} == {-1}
    bare = copy.deepcopy(model)
    adapted = peftx.attach(model, _method(read, write), targets=["block"])
    _randomise(adapted)
    expected: Any = x
    for index, block in enumerate(bare):
        c = model[index].peftx["default"]["insert"].c  # type: ignore[index,union-attr]
        expected = POINTS[read, write](block, expected, c[:, None, None])
    torch.testing.assert_close(model(x), expected)
    with adapted.per_sample(["default", None, None]):
        mixed = model(x)
    torch.testing.assert_close(mixed, torch.cat([expected[:1], bare(x)[1:]]))


def test_they_compose_with_weights_and_mix() -> None:
    model, x = _model(), torch.randn(4, 3, 6)
    y = model(x)
    adapted = peftx.attach(model, _method("output"), name="insert")
    _randomise(adapted)
    adapted.attach("core.lora", name="lora", rank=2, also_train=[])
    with torch.no_grad():
        for parameter in adapted.parameters("lora"):
            parameter.normal_()
    alone = {name: adapted.activate(name).model(x) for name in ("insert", "lora")}
    both = adapted.activate("insert", "lora").model(x)
    assert not torch.allclose(both, alone["insert"]) and not torch.allclose(both, alone["lora"])
    with adapted.per_sample(["insert", None, "lora", "insert"]):
        mixed = model(x)
    expected = torch.stack([alone["insert"][0], y[1], alone["lora"][2], alone["insert"][3]])
    torch.testing.assert_close(mixed, expected)


def test_a_cache_is_not_filled_by_parts_of_a_batch() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 20, (3, 4))

    def logits(**options: Any) -> Tensor:
        return model(ids, **options).logits.detach()

    base = logits()
    adapted = peftx.attach(model, _method("output"), name="a", targets=["block"])
    adapted.attach(_method("input"), name="b", targets=["block"])
    alone = {}
    for name in ("a", "b"):
        adapted.activate(name)
        _randomise(adapted, name)
        alone[name] = logits()
    with adapted.per_sample(["a", "b", None]):
        with pytest.raises(AdapterError, match=r"(cache|past_key_values), a DynamicCache.*use_cache=False"):
            logits(use_cache=True)
        mixed = logits(use_cache=False)
    torch.testing.assert_close(mixed, torch.stack([alone["a"][0], alone["b"][1], base[2]]))
    with adapted.per_sample(["a"] * 3):  # nothing to split
        torch.testing.assert_close(logits(use_cache=True), alone["a"])


def test_a_dict_that_hooks_fill_is_refused_as_well() -> None:
    class Remembers(Mlp):
        def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:  # type: ignore[override]
            if cache is not None:
                cache["x"] = x
            return super().forward(x)

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = Remembers()

        def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
            return self.mlp(x, cache)

    adapted = peftx.attach(Holder(), _method("output"), targets=["mlp"])
    with adapted.per_sample(["default", None]):
        assert adapted.model(torch.randn(2, 6)).shape == (2, 6)
        with pytest.raises(AdapterError, match="cache, a dict"):
            adapted.model(torch.randn(2, 6), {})


def test_checkpointing_and_compile() -> None:
    model, x = _model(), torch.randn(2, 3, 6, requires_grad=True)
    adapted = peftx.attach(model, Parallel)
    _randomise(adapted)
    model(x).square().sum().backward()
    plain = [p.grad.clone() for p in adapted.parameters() if p.grad is not None]
    for parameter in adapted.parameters():
        parameter.grad = None
    adapted._board.forget_pending()
    h = x
    for block in model:  # type: ignore[attr-defined]
        h = checkpoint(block, h, use_reentrant=False)
    h.square().sum().backward()
    torch.testing.assert_close([p.grad for p in adapted.parameters()], plain)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("target", ["attention", "block"])
def test_no_fast_path_passes_them_by(target: str) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, padded = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padded[0, 3:] = True
    with torch.no_grad():
        before = model(x, src_key_padding_mask=padded)
    adapted = peftx.attach(model, _method("output"), targets=[target])
    _randomise(adapted)
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=padded)
    slow = model.train()(x, src_key_padding_mask=padded)
    torch.testing.assert_close(fast[~padded], slow[~padded])
    assert not torch.allclose(fast[~padded], before[~padded])
    model.eval()
    with adapted.disabled(), torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=padded)[~padded], before[~padded])
    adapted.detach()
    with torch.no_grad():
        assert torch.equal(model(x, src_key_padding_mask=padded)[~padded], before[~padded])


@pytest.mark.parametrize("method", ["insert", "core.lora"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_padded_stack_comes_whole_to_what_is_adapted_in_one_layer(
    method: str, layer: int, mixed: bool
) -> None:
    """torch asks the first layer alone whether all of them may be given nested tensors."""
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True), 2
    ).eval()
    x, padded = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padded[0, 3:] = True
    if method == "insert":
        adapted = peftx.attach(model, _method("output"), targets=[f"layers.{layer}"])
    else:
        adapted = peftx.attach(model, method, targets=[f"glob:layers.{layer}.*"], rank=2, also_train=[])
    _randomise(adapted)
    with adapted.disabled():
        base = model(x, src_key_padding_mask=padded)
    y = model(x, src_key_padding_mask=padded)
    assert not torch.allclose(y[~padded], base[~padded])
    with torch.no_grad():
        if mixed:
            with adapted.per_sample(["default", None, "default"]):
                fast = model(x, src_key_padding_mask=padded)
            y = torch.stack([y[0], base[1], y[2]])
        else:
            fast = model(x, src_key_padding_mask=padded)
    torch.testing.assert_close(fast[~padded], y[~padded])


def test_around_may_do_anything() -> None:
    class Prompt(Scale):
        """Three trained tokens in front of the sequence, cut off again."""

        def __init__(self, site: Site, config: Any, weight: Tensor, bias: Tensor | None) -> None:
            super().__init__(site, config, weight, bias)
            self.c = nn.Parameter(torch.randn(3, site.shape[0]))

        def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            (x,) = args
            y = call(torch.cat((self.c.expand(x.shape[0], -1, -1), x), 1), **kwargs)
            return y[:, 3:]

    class Prompts(_method("output")):  # type: ignore[misc]
        Delta = Prompt
        starts_as = "shifted"

    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2
    )
    x = torch.randn(2, 3, 8, 8)
    before = model.eval()(x)
    adapted = peftx.attach(model, Prompts, targets=["block"])
    y = model(x)
    assert y.shape == before.shape and not torch.allclose(y, before)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())


def test_a_container_runs_its_members_and_not_its_adapters() -> None:
    model = nn.Sequential(nn.Sequential(), nn.Linear(6, 2))
    model[0].fc1, model[0].fc2 = nn.Linear(6, 8), nn.Linear(8, 6)
    x = torch.randn(3, 6)
    y = model(x)
    adapted = peftx.attach(model, _method("output"))
    inner: Any = model[0]
    assert torch.equal(model(x), y)
    assert len(inner) == 2 and inner[-1] is inner.fc2 and list(inner) == [inner.fc1, inner.fc2]
    assert type(inner[:1]) is nn.Sequential and inner[:1][0] is inner.fc1
    _randomise(adapted)
    torch.testing.assert_close(model(x), model[1](inner(x)))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x))
    adapted.detach()
    assert type(inner) is nn.Sequential and torch.equal(model(x), y)


def test_there_is_nothing_to_merge() -> None:
    adapted = peftx.attach(_model(), _method("output"))
    insert = adapted.model[0].mlp.peftx["default"]["insert"]  # type: ignore[index,union-attr]
    assert not insert.merges
    with pytest.raises(AdapterError, match="cannot be merged"):
        insert.effective(torch.zeros(1), None)


def test_weight_methods_do_not_see_them() -> None:
    model = _model()
    adapted = peftx.attach(model, "core.lora", rank=1, also_train=[])
    assert all(site.kind == "linear" for site in adapted.attachment().plan)
