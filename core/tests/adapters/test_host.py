"""The class swap: what changes on a module, what does not, and how faults in it show themselves."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.adapters import AdapterMethod, Delta
from peftx.adapters.host import base_class, is_host
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError


def _linear(**options: Any) -> tuple[nn.Module, peftx.Adapted]:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    return model, peftx.attach(model, "core.lora", **({"targets": ["0"], "also_train": []} | options))


def test_an_adapted_module_is_still_what_it_was() -> None:
    model, _ = _linear()
    assert isinstance(model[0], nn.Linear) and is_host(model[0]) and not is_host(model[2])
    assert type(model[0]) is not nn.Linear and base_class(model[0]) is nn.Linear
    assert type(model[0]).__name__ == "Linear" and type(model[0]).__module__ == nn.Linear.__module__
    assert base_class(model[2]) is nn.Linear
    other, _ = _linear()
    assert type(other[0]) is type(model[0]), "one class for all, made once"


def test_a_weight_reads_as_what_the_adapter_made_of_it(perturb: Callable[..., None]) -> None:
    model, adapted = _linear()
    base = model[0].weight.detach().clone()
    assert torch.equal(model[0].weight, base)
    perturb(adapted.parameters())
    x = torch.randn(4, 3)
    assert torch.allclose(nn.functional.linear(x, model[0].weight, model[0].bias), model[0](x), atol=1e-6)
    assert not torch.allclose(model[0].weight, base, atol=1e-3)
    with adapted.disabled():
        assert torch.equal(model[0].weight, base)
    assert torch.equal(model[0]._parameters["weight"], base)
    assert torch.equal(model.state_dict()["0.weight"], base)


def test_a_forward_keeps_its_signature() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, ids: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
            """Says what it does."""
            return self.layer(ids) * scale

    model = Model()
    before = inspect.signature(model.forward)
    adapted = peftx.attach(model, "core.lora", targets=["layer"], also_train=[])
    # trainers choose by it what columns of the data a model is given
    assert inspect.signature(model.forward) == before and list(before.parameters) == [
        "ids",
        "labels",
        "scale",
    ]
    assert inspect.signature(type(model).forward) == inspect.signature(Model.forward)
    assert inspect.signature(model.layer.forward) == inspect.signature(nn.Linear(3, 2).forward)
    assert type(model).forward.__doc__ == "Says what it does."
    assert model(torch.ones(1, 3), scale=2.0).shape == (1, 2)
    adapted.detach()
    assert type(model).forward is Model.forward


def test_called_by_keyword_or_by_name(perturb: Callable[..., None]) -> None:
    model, adapted = _linear()
    perturb(adapted.parameters())
    x = torch.randn(4, 3)
    assert torch.allclose(model[0](input=x), model[0](x), atol=1e-6)
    assert torch.allclose(model[0].forward(x), model[0](x))
    assert torch.allclose(nn.Linear.forward(model[0], x), model[0](x), atol=1e-6)


def test_a_parameter_can_be_replaced_under_an_adapter() -> None:
    model, adapted = _linear()
    model[0].weight = nn.Parameter(torch.zeros(3, 3))
    model[0].bias = None
    assert not model[0](torch.ones(1, 3)).any()
    adapted.detach()
    assert not model[0].weight.any() and model[0].bias is None
    with pytest.raises(TypeError):
        model[0].weight = torch.zeros(3, 3)


def test_a_parameter_can_give_way_to_a_plain_tensor() -> None:
    """As pruning and the old weight norm do."""
    model, _ = _linear(targets=["2"])
    del model[2].weight
    assert not hasattr(model[2], "weight")
    model[2].weight = torch.ones(2, 3)
    assert torch.equal(model[2].weight, torch.ones(2, 3))


class Faulty(Delta):
    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.value = nn.Parameter(torch.zeros(site.shape))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.misspelt, bias

    @staticmethod
    def param_count(site: Any, config: Any = None) -> int:
        return int(site.numel)


class FaultyMethod(AdapterMethod):
    Config = AdapterConfig
    Delta: ClassVar[Any] = Faulty
    kinds = ("linear", "packed_attention")


def test_a_fault_in_a_delta_is_not_swallowed() -> None:
    """An AttributeError inside a property makes torch look the name up again: it would find the frozen weight."""
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)})
    peftx.attach(model, FaultyMethod)
    x = torch.randn(3, 2, 8)
    with pytest.raises(AdapterError, match=r"adapter on attn failed.*misspelt"):
        model["attn"](x, x, x)


class Additive(Faulty):
    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.value, None if bias is None else bias + self.value.flatten(1).sum(1)

    changes_bias = True


class AdditiveMethod(FaultyMethod):
    Delta: ClassVar[Any] = Additive


@pytest.mark.parametrize("targets", [["attention"], ["attention.q", "attention.v"]])
def test_a_delta_that_changes_the_bias_too(targets: list[str], perturb: Callable[..., None]) -> None:
    """A method of somebody else's, given as a class, on a weight that is read and on one that is called."""
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "mlp": nn.Sequential(nn.Linear(8, 8))}).eval()
    nn.init.normal_(model["attn"].in_proj_bias)
    adapted = peftx.attach(model, AdditiveMethod, targets=[*targets, "mlp.0"])
    perturb(adapted.parameters())
    plain = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "mlp": nn.Sequential(nn.Linear(8, 8))}).eval()
    with torch.no_grad():
        plain["attn"].in_proj_weight.copy_(model["attn"].in_proj_weight)
        plain["attn"].in_proj_bias.copy_(model["attn"].in_proj_bias)
        plain["attn"].out_proj.weight.copy_(model["attn"].out_proj.weight)
        plain["attn"].out_proj.bias.copy_(model["attn"].out_proj.bias)
        plain["mlp"][0].weight.copy_(model["mlp"][0].weight)
        plain["mlp"][0].bias.copy_(model["mlp"][0].bias)
    values = adapted.tensors()
    inner = model["attn"]._parameters["in_proj_bias"]
    moved = (model["attn"].in_proj_bias - inner).view(3, 8).abs().amax(1) > 0
    assert moved.tolist() == ([True] * 3 if targets == ["attention"] else [True, False, True])
    assert ("mlp.0", "value") in values
    x = torch.randn(3, 2, 8)
    assert torch.allclose(model["attn"](x, x, x)[0], plain["attn"](x, x, x)[0], atol=1e-6)
    assert torch.allclose(model["mlp"](x), plain["mlp"](x), atol=1e-6)


class Trunk(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("trunk", ["frozen_stats", "eval", "train"])
def test_trunk_policies_hold_through_train(trunk: str) -> None:
    model = Trunk()
    adapted = peftx.attach(model, "core.lora", targets=["conv"], dropout=0.5, trunk=trunk)
    x = torch.randn(8, 3, 5, 5)
    before = model.norm.running_mean.clone()
    for _ in range(2):
        model.train()
        model(x)
        assert torch.equal(model.norm.running_mean, before) is (trunk != "train")
        assert model.norm.training is (trunk == "train") and model.drop.training is (trunk != "eval")
        delta = next(m for m in model.modules() if isinstance(m, Delta) and m.site.key == "conv")
        assert delta.training, "an adapter's own dropout stays on"
        model.eval()
        assert not any(m.training for m in model.modules())
    wrapper = nn.Sequential(model).train()  # as data-parallel wrappers do
    assert model.norm.training is (trunk == "train")
    wrapper.eval()
    assert not any(m.training for m in model.modules())
    adapted.detach()
    assert model.train().norm.training


def test_a_frozen_trunk_is_deterministic_and_only_the_adapter_drops() -> None:
    model = Trunk().train()
    adapted = peftx.attach(model, "core.lora", targets=["conv"], dropout=0.5, trunk="eval")
    x = torch.randn(8, 3, 5, 5)
    assert torch.equal(model(x), model(x)), "B is zero, so the adapter's dropout cannot show yet"
    with torch.no_grad():
        adapted.tensors()["conv", "B"].normal_()
    assert not torch.allclose(model(x), model(x), atol=1e-4)
    with adapted.disabled():
        assert torch.equal(model(x), model(x))


def test_a_linear_probe_leaves_every_parameter_and_buffer_alone() -> None:
    model = Trunk().train()
    adapted = peftx.attach(model, "core.head")
    before = {key: value.clone() for key, value in model.state_dict().items() if "peftx" not in key}
    optimizer = torch.optim.AdamW(adapted.param_groups(0.1, weight_decay=0.1))
    for _ in range(3):
        model.train()
        model(torch.randn(8, 3, 5, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_policies_of_adapters_that_come_and_go() -> None:
    model = Trunk().train()
    adapted = peftx.attach(model, "core.lora", name="a", targets=["conv"])
    assert not model.norm.training and model.drop.training
    adapted.attach("core.head", name="b")
    assert not model.drop.training
    adapted.remove("b")
    assert model.drop.training and not model.norm.training
    adapted.remove("a")
    assert model.norm.training


def test_generated_classes_pickle_and_copy() -> None:
    model, adapted = _linear()
    twin = pickle.loads(pickle.dumps(model))  # our own bytes
    x = torch.randn(2, 3)
    assert torch.equal(twin(x), model(x)) and type(twin[0]) is type(model[0])
    part = copy.deepcopy(model[0])
    assert torch.equal(part(x), model[0](x))
    adapted.detach()
    assert is_host(part) and not is_host(model[0])


def test_a_class_changed_afterwards_cannot_be_put_back() -> None:
    model, adapted = _linear()
    model[0].__class__ = type("Sharded", (type(model[0]),), {})
    with pytest.raises(AdapterError, match="was changed after its adapter was attached"):
        adapted.detach()


def test_functional_calls_see_other_values() -> None:
    model, _ = _linear()
    x = torch.randn(2, 3)
    values = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    assert not torch.func.functional_call(model, values, (x,)).any()
    assert model(x).any()


def test_parametrised_layers_keep_their_parametrisation(perturb: Callable[..., None]) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    x = torch.randn(2, 3)
    before = model(x)
    adapted = peftx.attach(model, "core.full")
    assert torch.equal(model(x), before)
    perturb(adapted.parameters())
    assert (model(x) - before).abs().max() > 1e-3
    assert adapted.reached(lambda: model(x)) == ()
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    adapted.detach()
    assert torch.equal(model(x), before)


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ParameterList([torch.ones(3), torch.ones(3)])
        self.named = nn.ParameterDict({"a": torch.ones(3)})
        self.values = nn.Parameter(torch.ones(3))  # the name of a method of module containers
        self.own = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        for value in self.listed:
            x = x + value
        return self.own * x * self.named["a"] + self.values


def test_parameters_in_lists_and_under_awkward_names(perturb: Callable[..., None]) -> None:
    model = Lists()
    x = torch.randn(2, 3)
    before = model(x)
    adapted = peftx.attach(model, "core.full")
    assert torch.equal(model(x), before)
    for parameter in adapted.parameters():
        kept = parameter.detach().clone()
        perturb([parameter])
        assert (model(x) - before).abs().max() > 1e-4
        with torch.no_grad():
            parameter.copy_(kept)
    model(x).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    assert adapted.counts().trainable == 13
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    adapted.detach()
    assert torch.equal(model(x), before) and all(p.grad is None for p in model.parameters())


def test_a_module_with_two_parents_is_one_place(perturb: Callable[..., None]) -> None:
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.Tanh()), "b": nn.Sequential(shared)})
    x = torch.randn(2, 3)
    before = model["b"](model["a"](x))
    adapted = peftx.attach(model, "core.lora", targets=["all-linear"], also_train=[])
    assert adapted.attachment().plan.keys == ("a.0",)
    perturb(adapted.parameters())
    assert model["a"][0] is model["b"][0]
    assert (model["b"](x) - shared(x)).abs().max() == 0
    adapted.detach()
    assert torch.equal(model["b"](model["a"](x)), before) and type(shared) is nn.Linear


def test_tied_tables_stay_tied_under_full(
    case_of: Callable[[str], Any], perturb: Callable[..., None]
) -> None:
    case = case_of("transformers_gpt2")
    model = case.build()
    assert model.lm_head.weight is model.transformer.wte.weight
    adapted = case.attach(model, "core.full")
    assert (
        adapted.counts().trainable
        == sum(p.numel() for p in adapted.parameters())
        == adapted.counts().base_total
    )
    perturb(adapted.parameters())
    assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    case.call(model, *case.samples()).sum().backward()
    assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    adapted.detach()
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    "name", ["packed_attention", "timm_vit", "timm_beit", "transformers_gpt2", "timm_swin"]
)
@pytest.mark.parametrize("parts", ["q", "k", "v", "qv", "kv", "qkv"])
def test_slices_change_their_own_rows(
    case_of: Callable[[str], Any], name: str, parts: str, perturb: Callable[..., None]
) -> None:
    """Against the same model with the update written into its fused weight by hand, read and called alike."""
    case = case_of(name)
    model, plain, inputs = case.build(), case.build(), case.samples()
    options = {"also_train": [], "targets": [f"attention.{part}" for part in parts], "rank": 2}
    adapted = peftx.attach(model, "core.lora", **options)
    perturb(adapted.parameters())
    tensors = adapted.tensors()
    with torch.no_grad():
        for site in adapted.attachment().plan:
            weight = plain.get_submodule(site.module)._parameters[site.weight]
            rows = (weight.t() if site.kind == "linear_t" else weight).chunk(3)["qkv".index(site.part)]
            rows.add_(8 * tensors[site.key, "B"] @ tensors[site.key, "A"])  # alpha 16 over rank 2
        assert torch.allclose(case.call(model, *inputs), case.call(plain, *inputs), atol=1e-4)
        for site in adapted.attachment().plan:
            weight = plain.get_submodule(site.module)._parameters[site.weight]
            assert torch.allclose(getattr(model.get_submodule(site.module), site.weight), weight, atol=1e-5)
    assert torch.allclose(case.call(model, *inputs), case.call(plain, *inputs), atol=1e-4)


@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
def test_a_nested_batch_reaches_an_adapted_layer(method: str) -> None:
    """A hook keeps one encoder layer off torch's fast path, and the stack still hands it nested tensors."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    adapted = peftx.attach(model, method, rank=2, targets=["mlp"], also_train=[])
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, padded = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padded[0, 3:] = True
    expected = model(x, src_key_padding_mask=padded)
    nested: list[bool] = []
    hooked: Any = model.layers[1]
    hooked.linear1.register_forward_hook(lambda module, inputs, output: nested.append(inputs[0].is_nested))
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=padded)[~padded], expected[~padded])
    assert nested == [True], "otherwise this test shows nothing"


class _Careless(Delta):
    """Returns what its option says in place of the pair (weight, bias)."""

    def effective(self, weight: Tensor, bias: Tensor | None) -> Any:
        return {"alone": weight, "short": (weight[1:], bias)}[self.config.returns]

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.config = config
        self.gain = nn.Parameter(torch.ones(()))

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 1


class _CarelessConfig(AdapterConfig):
    returns: str = "alone"


class _CarelessMethod(AdapterMethod):
    Config = _CarelessConfig
    Delta = _Careless
    kinds = ("linear",)


@pytest.mark.parametrize(
    "returns, message",
    [("alone", r"a Parameter, expected the pair"), ("short", r"\(1, 3\), expected \(2, 3\)")],
)
def test_a_careless_effective_is_told_what_it_returned(returns: str, message: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    peftx.attach(model, _CarelessMethod, targets=["0"], also_train=[], returns=returns)
    with pytest.raises(AdapterError, match=f"_Careless.effective at 0 returned .*{message}"):
        model(torch.randn(1, 3))
    with pytest.raises(AdapterError, match=r"_Careless\.effective at 0"):
        _ = model[0].weight
