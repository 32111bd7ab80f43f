"""A merged model is a plain model that answers as the adapted one did; and a refused merge has changed nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.adapters import AdapterMethod, Delta
from peftx.adapters.host import is_host
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError, ArtifactError

LOW = {"targets": ["glob:*"], "rank": 2}
METHODS: dict[str, dict[str, Any]] = {
    "core.full": {},
    "core.head": {},
    "core.bitfit": {},
    "core.lora": LOW | {"rank_pattern": {"table": 3}},
    "core.rslora": LOW,
    "core.dora": LOW,
}


class Convs(nn.Module):
    """Groups, dilation, one dimension and two."""

    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, padding=2, dilation=2, padding_mode="reflect")
        self.second = nn.Conv2d(6, 4, 3, groups=2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.third = nn.Conv1d(4, 5, 3, groups=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.second(torch.relu(self.first(x)))).flatten(2)
        return self.head(self.third(x).mean(-1))


class Lookup(nn.Module):
    """Tables with a padding row and with a limit on their rows, and an output tied to one."""

    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        self.marks = nn.Embedding(11, 8, max_norm=1.0)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.words.weight
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = self.words(ids) + self.marks(ids)
        return {"logits": self.head(x), "words": self.out(x)}


def _vit() -> tuple[nn.Module, Tensor]:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=5)
    nn.init.normal_(model.head.weight, std=0.3)
    return model, torch.randn(2, 3, 32, 32)


def _gpt2() -> tuple[nn.Module, Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=23, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config), torch.randint(0, 23, (2, 6))


def _convs() -> tuple[nn.Module, Tensor]:
    return Convs(), torch.randn(2, 4, 9, 9)


def _lookup() -> tuple[nn.Module, Tensor]:
    model, ids = Lookup(), torch.randint(0, 11, (3, 5))
    model(ids)  # shortens rows at their first use
    return model, ids


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "vit": _vit,
    "gpt2": _gpt2,
    "convs": _convs,
    "lookup": _lookup,
}


@pytest.fixture(params=[*CASES, "net"])
def case(request: pytest.FixtureRequest, build: Callable[..., nn.Module], ids: Tensor) -> Any:
    torch.manual_seed(5)
    model, x = (build(), ids) if request.param == "net" else CASES[request.param]()
    return model.eval(), x


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output.detach()]
    return [value.detach() for key, value in output.items() if isinstance(value, Tensor)]


def _distance(one: Any, other: Any) -> float:
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(_flat(one), _flat(other), strict=True)
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if "peftx" not in key}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_merged_model_is_plain_and_answers_alike(
    case: Any, perturb: Any, method: str, check: bool
) -> None:
    model, x = case
    if (type(model).__name__, method) in (("GPT2LMHeadModel", "core.head"), ("Lookup", "core.bitfit")):
        pytest.skip("nothing to train there")
    model.requires_grad_(True)
    next(model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    keys, classes, base = list(model.state_dict()), [type(m) for m in model.modules()], model(x)
    adapted = peftx.attach(model, method, **METHODS[method])
    perturb(adapted.parameters())
    before = model(x)
    assert _distance(before, base) > 1e-3, "the adapter must do something for the test to mean anything"
    report = artifacts.merge(adapted, probe=x if check else None, check=check)
    assert [type(m) for m in model.modules()] == classes and not any(is_host(m) for m in model.modules())
    assert list(model.state_dict()) == keys
    assert len(list(model.parameters())) == len(flags) or report.untied
    assert _distance(model(x), before) < 2e-6
    if not report.untied:
        assert [p.requires_grad for p in model.parameters()] == flags
    if check:
        assert report.relative is not None and report.relative < 2e-6 and not report.objection
        assert all(site.lost == 0 for site in report.sites)
        assert report.outputs[0].lost is not None and report.outputs[0].lost < 1e-4


@pytest.mark.parametrize("slices", [["attention.q"], ["attention.q", "attention.v"], ["attention.k"]])
@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
@pytest.mark.parametrize("make", ["vit", "net", "gpt2"])
def test_slices_of_fused_and_packed_projections(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, make: str, method: str, slices: list[str]
) -> None:
    torch.manual_seed(5)
    model, x = (build(), ids) if make == "net" else CASES[make]()
    adapted = peftx.attach(model.eval(), method, targets=slices, rank=2)
    perturb(adapted.parameters())
    state, before = _state(model), model(x)
    report = artifacts.merge(adapted, probe=x)
    assert _distance(model(x), before) < 2e-6
    assert {site.key for site in report.sites if "[" in site.key}
    after = model.state_dict()
    for key, old in state.items():
        if key.endswith(("qkv.weight", "in_proj_weight")):
            third = old.shape[0] // 3
            for index, part in enumerate(("attention.q", "attention.k", "attention.v")):
                rows = slice(index * third, (index + 1) * third)
                assert torch.equal(after[key][rows], old[rows]) is (part not in slices)


@pytest.mark.parametrize("check", [True, False])
def test_several_adapters_in_order(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, check: bool
) -> None:
    order = ("b", "c", "a")
    model = build()
    adapted = peftx.attach(model, "core.lora", name="a", **LOW)
    adapted.attach("core.dora", name="b", **LOW).attach("core.full", name="c")
    for name in adapted.names:
        adapted.activate(name)
        perturb(adapted.parameters(name))
    adapted.activate(*order)
    before = model(ids)
    other = copy.deepcopy(model)
    assert artifacts.merge(adapted, check=check).adapters == order
    assert _distance(model(ids), before) < 2e-6
    peftx.adapted(other).activate("a", "b", "c")
    artifacts.merge(peftx.adapted(other), *order, probe=ids)
    assert _distance(other(ids), before) < 2e-6, "named ones win over active ones"


def test_adapters_left_behind_are_refused(build: Callable[..., nn.Module], ids: Tensor, perturb: Any) -> None:
    model = build()
    adapted = peftx.attach(model, "core.lora", name="a").attach("core.lora", name="b")
    perturb(adapted.parameters())
    output = model(ids)
    with pytest.raises(AdapterError, match="a would be left"):
        artifacts.merge(adapted)
    with pytest.raises(AdapterError, match="no adapter is active"):
        artifacts.merge(adapted.activate())
    with pytest.raises(AdapterError, match="twice"):
        artifacts.merge(adapted, "a", "a")
    with pytest.raises(AdapterError, match="tolerance"):
        artifacts.merge(adapted, "a", "b", tolerance=-1)
    with pytest.raises(AdapterError, match="tolerance"):
        artifacts.merge(adapted, "a", "b", tolerance=float("nan"))
    with pytest.raises(AdapterError, match="probe"):
        artifacts.merge(adapted, "a", "b", probe=ids, check=False)
    adapted.activate("b")
    assert torch.equal(model(ids), output)


def test_tied_parameters_stay_tied_when_all_want_the_same(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.full")
    perturb(adapted.parameters())
    before = model(ids)
    report = artifacts.merge(adapted, probe=ids)
    assert model.table.weight is model.words.weight and not report.untied
    assert torch.equal(model(ids), before)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("targets", [["table"], ["words"], ["table", "words"]])
def test_tied_parameters_are_untied_when_they_part(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, targets: list[str], check: bool
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.lora", targets=targets, rank=2, also_train=[])
    perturb(adapted.parameters())
    before, old = model(ids), model.table._parameters["weight"].detach().clone()
    report = artifacts.merge(adapted, probe=ids if check else None, check=check)
    assert _distance(model(ids), before) < 2e-6
    assert report.untied == tuple(sorted(f"{name}.weight" for name in targets))
    assert model.table.weight is not model.words.weight
    assert torch.equal(model.words.weight, old) is ("words" not in targets)
    assert all(p.requires_grad for p in model.parameters())


def test_running_statistics_are_merged(build: Callable[..., nn.Module], ids: Tensor, perturb: Any) -> None:
    for check in (True, False):
        model = build()
        model.train()
        adapted = peftx.attach(model, "core.full")
        for _ in range(3):
            model(ids)
        model.eval()
        base = model.norm._buffers["running_mean"].clone()
        before = model(ids)
        artifacts.merge(adapted, check=check)
        assert not torch.equal(model.norm.running_mean, base) and int(model.norm.num_batches_tracked) == 3
        assert torch.equal(model(ids), before)


def test_probe_forms(build: Callable[..., nn.Module], ids: Tensor, perturb: Any) -> None:
    probes: tuple[Any, ...] = (
        ids,
        (ids,),
        [ids],
        {"ids": ids},
        lambda model: {"deep": [model(ids), None, "x"]},
    )
    for probe in probes:
        model = build().train()
        adapted = peftx.attach(model, "core.lora", rank=2)
        perturb(adapted.parameters())
        report = artifacts.merge(adapted, probe=probe)
        assert model.training, "the mode is as it was"
        assert len(report.outputs) == 1 and report.outputs[0].relative < 2e-6
    adapted = peftx.attach(build(), "core.lora", rank=2)
    with pytest.raises(ArtifactError, match="without a tensor"):
        artifacts.merge(adapted, probe=lambda model: "nothing")
    assert adapted.names == ("default",)


def test_the_mode_of_every_module_is_as_it_was(build: Callable[..., nn.Module], ids: Tensor) -> None:
    model = build().train()
    adapted = peftx.attach(model, "core.lora", rank=2)
    artifacts.merge(adapted, probe=ids)
    assert all(module.training for module in model.modules())


# --- refusals: nothing has changed ------------------------------------------------------------------------------


def _unchanged(
    adapted: peftx.Adapted, ids: Any, attempt: Callable[[], Any], error: type = ArtifactError
) -> str:
    model = adapted.model
    before, output = {k: v.clone() for k, v in model.state_dict().items()}, model(ids)
    parameters, classes = [id(p) for p in model.parameters()], [type(m) for m in model.modules()]
    flags, active = [p.requires_grad for p in model.parameters()], adapted.active
    with pytest.raises(error) as caught:
        attempt()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) or bool(v.isnan().any()) for k, v in before.items())
    assert [id(p) for p in model.parameters()] == parameters and [type(m) for m in model.modules()] == classes
    assert [p.requires_grad for p in model.parameters()] == flags and adapted.active == active
    assert all(
        torch.equal(a, b) or a.isnan().any() for a, b in zip(_flat(model(ids)), _flat(output), strict=True)
    )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refused_over_tolerance_and_forced(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any
) -> None:
    model = build().to(torch.bfloat16)
    adapted = peftx.attach(model, "core.lora", **LOW)
    perturb(adapted.parameters())
    said = _unchanged(adapted, ids, lambda: artifacts.merge(adapted, probe=ids, tolerance=1e-6))
    assert "the tolerance is 1e-06" in said and "bfloat16" in said
    report = artifacts.merge(adapted, probe=ids, tolerance=1e-6, force=True)
    assert "the tolerance is 1e-06" in report.objection and "forced" in report.render()
    assert not is_host(model)
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("targets", [["glob:*"], ["table"]])
def test_a_refusal_also_ties_again(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, targets: list[str]
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.dora", targets=targets, rank=2)
    perturb(adapted.parameters())
    _unchanged(adapted, ids, lambda: artifacts.merge(adapted, probe=ids, tolerance=0.0))
    assert model.table._parameters["weight"] is model.words._parameters["weight"]


def test_a_base_that_swallows_the_update_is_told_and_refused() -> None:
    model = nn.Sequential(nn.Linear(16, 16, bias=False)).to(torch.bfloat16)
    x = torch.tensor([[1.0] * 8 + [-1.0] * 8], dtype=torch.bfloat16)
    with torch.no_grad():
        model[0].weight.fill_(1.0)  # outputs of zero, which show what such weights cannot hold
        model[0].weight[15] = x[0] / 16  # but for one
    adapted = peftx.attach(model, "core.lora", targets=["0"], rank=1, alpha=1, also_train=[])
    with torch.no_grad():
        for (_, slot), tensor in adapted.tensors().items():
            tensor.fill_(1.0)
            if slot == "A":  # 2.5e-3 beside 1: below half a unit in the last place
                tensor.copy_(torch.tensor([[2.5e-3] * 8 + [0.0] * 8]))
    said = _unchanged(adapted, x, lambda: artifacts.merge(adapted, probe=x))
    assert "would lose 96 % of what the adapter does" in said
    assert _unchanged(adapted, x, lambda: artifacts.merge(adapted, probe=x, tolerance=1e-3))
    report = artifacts.merge(adapted, probe=x, force=True)
    assert report.sites[0].lost > 0.9 and "would lose" in report.objection
    assert report.outputs[0].relative < report.tolerance and "the cast to bfloat16 lost" in report.render()


def test_half_precision_is_computed_wide_and_cast_once(case: Any, perturb: Any) -> None:
    model, x = case
    model.to(torch.bfloat16)
    x = x.to(torch.bfloat16) if x.is_floating_point() else x
    adapted = peftx.attach(model, "core.lora", **LOW)
    perturb(adapted.parameters())
    wide = {key: value.float() + sum(_update(adapted, key, value)) for key, value in _base(model).items()}
    report = artifacts.merge(adapted, probe=x, force=True)
    assert report.dtype == "bfloat16" and report.tolerance == artifacts.TOLERANCES[torch.bfloat16]
    for key, value in model.state_dict().items():
        if key in wide and not key.startswith("head") and key not in report.untied and "norm" not in key:
            assert torch.equal(value, wide[key].to(value.dtype)) or report.untied, key


def _base(model: nn.Module) -> dict[str, Tensor]:
    return {
        key: p.detach().clone()
        for key, p in model.named_parameters(remove_duplicate=False)
        if "peftx" not in key
    }


def _update(adapted: peftx.Adapted, key: str, value: Tensor) -> list[Tensor]:
    """The updates of one weight by hand, from the plan and the factors."""
    found = []
    tensors, attachment = adapted.tensors(), adapted.attachment()
    for site in attachment.plan:
        path = f"{site.module}.{site.weight}" if site.module else site.weight
        if path == key:
            rank = tensors[site.key, "A"].shape[0]
            product = (attachment.config.alpha / rank) * (tensors[site.key, "B"] @ tensors[site.key, "A"])
            product = product.detach()
            found.append(product.t() if site.kind in ("linear_t", "embedding") else product.view(value.shape))
    return found


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("check", [True, False])
def test_numbers_that_are_none_are_refused(
    build: Callable[..., nn.Module], ids: Tensor, bad: float, check: bool
) -> None:
    for method in ("core.lora", "core.full", "core.dora"):
        adapted = peftx.attach(build(), method)
        with torch.no_grad():
            list(adapted.parameters())[-1].view(-1)[-1] = bad
        said = _unchanged(
            adapted, ids, lambda adapted=adapted: artifacts.merge(adapted, check=check, force=check)
        )
        assert "holds NaN or Inf" in said


def test_an_overflow_is_refused_even_by_force(build: Callable[..., nn.Module], ids: Tensor) -> None:
    model = build().half()
    adapted = peftx.attach(model, "core.lora", rank=2, targets=["attention.out"], also_train=[])
    with torch.no_grad():
        for tensor in adapted.tensors().values():
            tensor.fill_(300.0)
    said = _unchanged(adapted, ids, lambda: artifacts.merge(adapted, force=True))
    assert "overflows float16" in said


class Routed(Delta):
    """An update that depends on the input."""

    @property
    def merges(self) -> bool:
        return False

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, base: Any) -> Tensor:
        return base(x) * (1 + self.gate * x.mean())

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 1


class RoutedMethod(AdapterMethod):
    Config = AdapterConfig
    Delta = Routed
    kinds = ("linear",)


def test_what_no_weight_has_is_refused(build: Callable[..., nn.Module], ids: Tensor) -> None:
    adapted = peftx.attach(build(), RoutedMethod, targets=["head"], also_train=[])
    for options in ({"probe": ids}, {"check": False}, {"force": True}):
        said = _unchanged(adapted, ids, lambda options=options: artifacts.merge(adapted, **options))
        assert "RoutedMethod at head cannot be merged" in said


class Shifted(Delta):
    """Changes weight and bias: W' = g W, b' = g b + c."""

    changes_bias = True

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.g = nn.Parameter(torch.ones(site.shape[0]))
        self.c = nn.Parameter(torch.zeros(site.shape[0]))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        g = self.g.view(-1, *(1,) * (weight.dim() - 1))
        return weight * g, None if bias is None else self.g * bias + self.c

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 2 * int(site.shape[0])


class ShiftedMethod(AdapterMethod):
    Config = AdapterConfig
    Delta = Shifted
    kinds = ("linear", "conv1d", "conv2d", "linear_t", "packed_attention")


@pytest.mark.parametrize("check", [True, False])
def test_a_delta_that_changes_the_bias(case: Any, perturb: Any, check: bool) -> None:
    model, x = case
    adapted = peftx.attach(model, ShiftedMethod, targets=["glob:*"])
    perturb(adapted.parameters())
    before = model(x)
    artifacts.merge(adapted, probe=x if check else None, check=check)
    assert _distance(model(x), before) < 2e-6


def test_merging_under_autocast_is_still_wide(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any
) -> None:
    models = [build(), build()]
    for model in models:
        torch.manual_seed(2)
        adapted = peftx.attach(model, "core.lora", **LOW)
        perturb(adapted.parameters())
        if model is models[0]:
            artifacts.merge(adapted)
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                artifacts.merge(adapted)
    assert _same(_state(models[0]), _state(models[1]))


def test_predictions_that_change_are_counted() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    adapted = peftx.attach(model, "core.full")
    report = artifacts.merge(adapted, probe=torch.randn(5, 4))
    assert (report.outputs[0].flipped, report.outputs[0].predictions) == (0, 5)
    from peftx.artifacts.probing import compare

    one, other = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    drift = compare({"logits": one}, {"logits": other}, None, torch.float32)[0]
    assert (drift.flipped, drift.predictions, drift.max_abs) == (1, 2, 1.0)
    assert (
        compare({"hidden": one, "x": one}, {"hidden": other, "x": one}, None, torch.float32)[0].flipped
        is None
    )


def test_infinite_scores_are_no_difference_and_nan_is() -> None:
    from peftx.artifacts.probing import compare

    masked = torch.tensor([1.0, float("-inf")])
    assert compare({"s": masked}, {"s": masked.clone()}, None, torch.float32)[0].relative == 0.0
    broken = torch.tensor([1.0, float("nan")])
    assert compare({"s": masked}, {"s": broken}, None, torch.float32)[0].relative == float("inf")


def test_a_model_without_values_and_a_probe_that_fails(ids: Tensor, build: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4))
    adapted = peftx.attach(model, "core.lora", targets=["0"], also_train=[])
    with pytest.raises(ArtifactError, match=r"0\.weight is on the meta device"):
        artifacts.merge(adapted)
    calls: list[int] = []

    def fails(model: nn.Module) -> Any:
        calls.append(1)
        if len(calls) == 3:  # after the weights were written
            raise RuntimeError("the probe failed")
        return model(ids)

    adapted = peftx.attach(build(), "core.lora", targets=["glob:*"])
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1)
    _unchanged(adapted, ids, lambda: artifacts.merge(adapted, probe=fails), RuntimeError)


def test_a_model_that_is_one_layer(perturb: Any) -> None:
    model = nn.Linear(4, 4)
    adapted = peftx.attach(model, "core.lora", targets=["glob:*"], also_train=[])
    perturb(adapted.parameters())
    x = torch.randn(2, 4)
    before = model(x)
    artifacts.merge(adapted, probe=x)
    assert type(model) is nn.Linear and _distance(model(x), before) < 2e-6


def test_a_layer_that_stands_at_two_paths_is_merged_once(perturb: Any) -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    adapted = peftx.attach(model, "core.lora", targets=["0"], also_train=[])
    perturb(adapted.parameters())
    x = torch.randn(2, 4)
    before = model(x)
    report = artifacts.merge(adapted, probe=x)
    assert not report.untied and _distance(model(x), before) < 2e-6
