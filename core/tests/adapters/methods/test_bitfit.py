"""core.bitfit: biases told by their exact name, and nothing else moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import peftx
import peftx.artifacts
from peftx.adapters.base import Base
from peftx.errors import SelectionError


def _keys(model: nn.Module, **options: Any) -> set[str]:
    return {row.key for row in peftx.explain(model, "core.bitfit", **options).rows}


@pytest.mark.parametrize(
    "name", ["timm_vit", "transformers_vit", "transformers_bert", "transformers_gpt2", "conv2d"]
)
def test_takes_every_bias_and_the_head(case_of: Callable[[str], Any], name: str) -> None:
    model = case_of(name).build()
    heads = {"head.weight", "classifier.weight"}
    wanted = {key for key, _ in model.named_parameters() if key.endswith(".bias") or key in heads}
    assert _keys(model) == wanted


def test_biases_by_another_name(case_of: Callable[[str], Any]) -> None:
    beit = _keys(case_of("timm_beit").build())
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= beit
    packed = _keys(case_of("packed_attention_bias_kv").build())
    assert packed == {"trunk.attn.in_proj_bias", "trunk.attn.out_proj.bias", "head.bias", "head.weight"}


def test_relative_position_tables_are_no_biases(case_of: Callable[[str], Any]) -> None:
    for name in ("timm_swin", "timm_beit"):
        model = case_of(name).build()
        assert (
            any("relative_position_bias_table" in key for key, _ in model.named_parameters())
            or name == "timm_beit"
        )
        assert not any("table" in key or "rel_pos" in key for key in _keys(model))


def test_without_norms_and_by_role(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    assert not any("norm" in key for key in _keys(model, norms=False))
    assert _keys(model) - _keys(model, norms=False) == {
        *(f"blocks.{i}.norm{n}.bias" for i in (0, 1) for n in (1, 2)),
        "norm.bias",
    }
    assert _keys(model, targets=["mlp.up"], also_train=[]) == {f"blocks.{i}.mlp.fc1.bias" for i in (0, 1)}
    assert _keys(model, targets=["attention"], exclude=["attention.out"], also_train=[]) == {
        f"blocks.{i}.attn.qkv.bias" for i in (0, 1)
    }


def test_a_model_without_biases_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Embedding(3, 3))
    with pytest.raises(SelectionError, match="has a bias"):
        peftx.attach(model, "core.bitfit")
    assert [type(m) for m in model] == [nn.Linear, nn.Embedding]


def test_only_the_listed_vectors_change(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model = case.build().train()
    adapted = peftx.attach(model, "core.bitfit")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(adapted.param_groups(0.1, weight_decay=0.5))
    for _ in range(3):
        optimizer.zero_grad()
        case.call(model, *case.samples()).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, _ in adapted.named_parameters()}


def test_biases_do_not_decay(case_of: Callable[[str], Any]) -> None:
    adapted = peftx.attach(case_of("timm_vit").build(), "core.bitfit", also_train=[])
    assert [group["weight_decay"] for group in adapted.param_groups(0.1, weight_decay=0.5)] == [0.0, 0.0]


def test_adds_exactly_the_change_of_the_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 4, 1))
    x = torch.randn(2, 3)
    before = model[0](x)
    adapted = peftx.attach(model, "core.bitfit")
    change = torch.randn(4)
    with torch.no_grad():
        adapted.tensors()["0.bias", "value"].add_(change)
    assert torch.allclose(model[0](x), before + change, atol=1e-6)


def test_switching_tasks_back_and_forth_is_exact(
    case_of: Callable[[str], Any], perturb: Callable[..., None]
) -> None:
    case = case_of("timm_swin")
    model, inputs = case.build(), case.samples()
    adapted = peftx.attach(model, "core.bitfit", name="a").attach("core.bitfit", name="b")
    perturb(adapted.tensors("a").values(), seed=1)
    perturb(adapted.tensors("b").values(), seed=2)
    with torch.no_grad():
        first = {name: case.call(adapted.activate(name).model, *inputs) for name in ("a", "b")}
        for name in ("a", "b", "a"):
            assert torch.equal(case.call(adapted.activate(name).model, *inputs), first[name])


#: fused biases: model -> (module, parameter)
FUSED = {
    "timm_vit": ("blocks.0.attn.qkv", "bias"),
    "packed_attention": ("trunk.attn", "in_proj_bias"),
    "packed_attention_widths": ("trunk.attn", "in_proj_bias"),
    "encoder": ("trunk.encoder.layers.0.self_attn", "in_proj_bias"),
    "transformers_gpt2": ("transformer.h.0.attn.c_attn", "bias"),
}
fused = pytest.mark.parametrize("name", FUSED)


def _place(model: nn.Module, name: str) -> tuple[Any, str, str]:
    path, parameter = FUSED[name]
    return model.get_submodule(path), parameter, f"{path}.{parameter}"


def test_the_papers_smaller_set_has_46080_values() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    smaller: dict[str, Any] = {"targets": ["attention.q", "mlp.up"], "also_train": []}
    assert peftx.explain(model, "core.bitfit", **smaller).counts.trainable == 12 * (768 + 3072) == 46080
    adapted = peftx.attach(model, "core.bitfit", **smaller)
    counts = adapted.counts()
    assert (counts.trainable, counts.owned, counts.adapter) == (46080, 46080, 0)
    assert counts.stored_bytes == 4 * 46080
    assert adapted.explain().counts == counts
    assert {row.shape for row in adapted.explain().rows} == {(768,), (3072,)}


@fused
@pytest.mark.parametrize("part", ["q", "v"])
def test_a_slice_starts_as_the_base_and_takes_effect(
    case_of: Callable[[str], Any], perturb: Callable[..., None], name: str, part: str
) -> None:
    case = case_of(name)
    model, inputs = case.build(), case.samples()
    for value in model.parameters():  # torch takes other kernels for weights that are frozen, adapter or not
        value.requires_grad_(value.dim() < 2)
    before = case.call(model, *inputs)
    adapted = peftx.attach(model, "core.bitfit", targets=[f"attention.{part}"], also_train=[])
    module, parameter, key = _place(model, name)
    base = module._parameters[parameter].clone()
    rows = base.shape[0] // 3
    assert f"{key}[{part}]" in adapted.attachment().owned.keys
    assert all(value.shape == (rows,) for value in adapted.tensors().values())
    assert torch.equal(case.call(model, *inputs), before)
    assert adapted.reached(lambda: case.call(model, *inputs)) == ()
    perturb(adapted.tensors().values())
    after = case.call(model, *inputs)
    assert not torch.allclose(after, before, atol=1e-4)
    # the same change, made to a whole bias by hand
    adapted.detach()
    start = "qkv".index(part) * rows
    twin = copy.deepcopy(model)
    adapted = peftx.attach(model, "core.bitfit", targets=[f"attention.{part}"], also_train=[])
    perturb(adapted.tensors().values())
    with torch.no_grad():
        for (site, _), value in adapted.tensors().items():
            twin.get_parameter(site.partition("[")[0])[start : start + rows] = value
    assert torch.allclose(case.call(model, *inputs), case.call(twin, *inputs), atol=1e-5)


@fused
def test_a_slice_has_the_gradient_of_its_rows_and_nothing_else_has_one(
    case_of: Callable[[str], Any], name: str
) -> None:
    case = case_of(name)
    model, inputs = case.build(), case.samples()
    module, parameter, key = _place(model, name)
    case.call(model, *inputs).square().sum().backward()
    whole = module._parameters[parameter].grad
    model.zero_grad()
    rows = whole.shape[0] // 3
    adapted = peftx.attach(model, "core.bitfit", targets=["attention.v"], also_train=[])
    case.call(model, *inputs).square().sum().backward()
    assert torch.allclose(
        adapted.tensors()[f"{key}[v]", "value"].grad, whole[2 * rows :], rtol=1e-4, atol=1e-5
    )
    trained = {id(value) for value in adapted.tensors().values()}
    assert all((p.grad is not None) == (id(p) in trained) for p in model.parameters())


@fused
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rows_outside_the_slice_stay_bit_for_bit(
    case_of: Callable[[str], Any], name: str, optimizer: str
) -> None:
    case = case_of(name)
    model = case.build()
    adapted = peftx.attach(model, "core.bitfit", targets=["attention.q"], also_train=[])
    module, parameter, _ = _place(model, name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    base = module._parameters[parameter].clone()
    rows = base.shape[0] // 3
    groups = list(adapted.parameters())
    optim: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.1)
        if optimizer == "sgd"
        else torch.optim.AdamW(groups, lr=0.05, weight_decay=0.1)
    )
    for _ in range(5):
        optim.zero_grad()
        case.call(model, *case.samples()).square().sum().backward()
        optim.step()
    now = getattr(module, parameter)
    assert torch.equal(now[rows:], base[rows:])
    assert not (now[:rows] == base[:rows]).any()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, _ in adapted.named_parameters()}
    model = adapted.detach()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@fused
def test_the_gradient_of_the_keys_is_rounding(case_of: Callable[[str], Any], name: str) -> None:
    case = case_of(name)
    model = case.build().double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in case.samples())
    targets = [f"attention.{part}" for part in "qkv"]
    adapted = peftx.attach(model, "core.bitfit", targets=targets, also_train=[])
    case.call(model, *inputs).square().sum().backward()
    key = _place(model, name)[2]
    size = {part: adapted.tensors()[f"{key}[{part}]", "value"].grad.abs().max().item() for part in "qkv"}
    assert size["k"] <= 1e-6 * size["q"] and size["q"] > 0 and size["v"] > 0


@fused
def test_a_slice_is_saved_and_loaded(
    case_of: Callable[[str], Any], perturb: Callable[..., None], tmp_path: Path, name: str
) -> None:
    case = case_of(name)
    model, inputs = case.build(), case.samples()
    adapted = peftx.attach(model, "core.bitfit", targets=["attention.q", "attention.v"], also_train=[])
    perturb(adapted.tensors().values())
    wanted = case.call(model, *inputs)
    peftx.artifacts.save(adapted, tmp_path)
    other = case.build()
    loaded = peftx.artifacts.load(other, tmp_path)
    assert loaded.attachment().owned == adapted.attachment().owned
    assert torch.equal(case.call(other, *inputs), wanted)


@pytest.mark.parametrize("name", ["timm_vit", "transformers_gpt2"])
def test_slices_leave_the_product_whole(
    case_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = case_of(name)
    model = case.build()
    peftx.attach(model, "core.bitfit", targets=["attention.q", "attention.v"], also_train=[])
    products: list[bool] = []
    run = Base.run

    def counted(self: Base, x: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        # a copy, or a cut, of the weight would stand elsewhere or be smaller
        stored = self.module._parameters["weight"]
        products.append(weight.data_ptr() == stored.data_ptr() and weight.numel() == stored.numel())
        return run(self, x, weight, bias)

    monkeypatch.setattr(Base, "run", counted)
    case.call(model, *case.samples())
    blocks = 2 if name == "timm_vit" else 1
    assert products == [True] * blocks


def test_the_whole_bias_wins_and_a_slice_may_be_excluded(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    qkv = {f"blocks.{i}.attn.qkv.bias" for i in (0, 1)}
    only: dict[str, Any] = {"also_train": []}
    assert _keys(model, targets=["attention.q", "qkv"], **only) == qkv
    assert _keys(model, targets=["qkv"], exclude=["attention.k"], **only) == {
        f"{key}[{part}]" for key in qkv for part in "qv"
    }
    assert _keys(model, targets=["blocks.1.attn.qkv.bias[v]"], **only) == {"blocks.1.attn.qkv.bias[v]"}
    assert not any("qkv" in key for key in _keys(model, exclude=["glob:*.qkv.bias"]))
    # what an adapter owns whole is not owned again by the slice
    assert _keys(model, targets=["attention.q"], also_train=["blocks.0.attn.qkv"]) == {
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.1.attn.qkv.bias[q]",
    }


def test_a_slice_of_a_weight_is_not_trained_by_its_bias_alone(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    with pytest.raises(SelectionError, match=r"'attention\.q'"):
        peftx.explain(model, "core.full", targets=["attention.q"])
    with pytest.raises(SelectionError, match=r"'attention\.q'"):
        peftx.explain(model, "core.lora", also_train=["attention.q"])


def test_slices_of_several_adapters(case_of: Callable[[str], Any], perturb: Callable[..., None]) -> None:
    case = case_of("timm_vit")
    model, inputs = case.build(), case.samples()
    adapted = peftx.attach(model, "core.bitfit", name="q", targets=["attention.q"], also_train=[])
    adapted.attach("core.bitfit", name="v", targets=["attention.v"], also_train=[])
    adapted.attach("core.lora", name="low", targets=["attention.q", "attention.v"], rank=2, also_train=[])
    adapted.attach("core.bitfit", name="all", targets=["attention.qkv"], also_train=[])
    for seed, name in enumerate(("q", "v", "low", "all")):
        perturb(adapted.tensors(name).values(), seed=seed)
    qkv = _place(model, "timm_vit")[0]
    q, v, whole = (next(iter(adapted.tensors(name).values())) for name in ("q", "v", "all"))
    adapted.activate("q", "v")
    assert torch.equal(qkv.bias[:8], q) and torch.equal(qkv.bias[16:], v)
    assert all(value.requires_grad for name in "qv" for value in adapted.tensors(name).values())
    # two orders of a bias and a low-rank update, which are one function
    first = case.call(adapted.activate("q", "low").model, *inputs)
    assert torch.allclose(case.call(adapted.activate("low", "q").model, *inputs), first, atol=1e-5)
    assert qkv.weight.shape == (24, 8) and torch.equal(qkv.bias[:8], q)
    # a later whole bias hides the slices, a later slice only part of the whole
    adapted.activate("q", "all")
    assert torch.equal(qkv.bias, whole) and not q.requires_grad and whole.requires_grad
    adapted.activate("all", "q")
    assert torch.equal(qkv.bias, torch.cat((q, whole[8:]))) and q.requires_grad and whole.requires_grad
    with adapted.per_sample(["q", "all", None, "v"]):
        mixed = case.call(model, *inputs)
    for row, name in enumerate(("q", "all", None, "v")):
        adapted.activate(*([name] if name else []))
        assert torch.allclose(case.call(model, *inputs)[row], mixed[row], atol=1e-5)
