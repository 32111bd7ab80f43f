from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ConfigError, SelectionError
from peftx_vision.methods.mosa import MoSAInsert, divergence, owners

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attached(model: nn.Module, spread: float = 0.0, **options: Any) -> Any:
    adapted = peftx.attach(model, "vision.mosa", **options)
    with torch.no_grad():
        for insert in inserts(adapted).values():
            for parameter in insert.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return adapted


def inserts(adapted: Any) -> dict[str, MoSAInsert]:
    return {m.site.key: m for m in adapted.model.modules() if isinstance(m, MoSAInsert)}


def expert(insert: MoSAInsert, down: int, up: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """D, b_D, U and b_U of two experts, as the card has them: own entries of one tensor, and a bias each."""
    hidden, width = insert.down.shape
    d, d_bias, u, u_bias = insert.down, insert.down_bias, insert.up, insert.up_bias
    if insert.split_down:
        d = torch.where(insert.down_owner == down, d, insert.start)  # type: ignore[assignment]
        d_bias = d_bias[down * hidden : (down + 1) * hidden]  # type: ignore[assignment]
    if insert.split_up:
        u = torch.where(insert.up_owner == up, u, torch.zeros_like(u))  # type: ignore[assignment]
        u_bias = u_bias[up * width : (up + 1) * width]  # type: ignore[assignment]
    return d, d_bias, u, u_bias


def branch(insert: MoSAInsert, x: Tensor, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    d, d_bias, u, u_bias = maps
    act = F.gelu if insert.activation == "gelu" else F.relu
    hidden = act(F.linear(F.layer_norm(x, x.shape[-1:], insert.norm_weight, insert.norm_bias), d, d_bias))
    return insert.scale * F.linear(hidden, u, u_bias)


def pairs(insert: MoSAInsert) -> list[tuple[int, int]]:
    downs = range(insert.experts if insert.split_down else 1)
    return [(down, up) for down in downs for up in range(insert.experts if insert.split_up else 1)]


@pytest.mark.parametrize("experts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (1, 3)])
def test_every_entry_has_one_owner_and_every_owner_its_share(experts: int, shape: tuple[int, int]) -> None:
    owner = owners(shape, experts, "seed")
    assert owner.shape == shape and owner.dtype == torch.uint8
    sizes = owner.flatten().bincount(minlength=experts)
    count = shape[0] * shape[1]
    assert len(sizes) == experts and int(sizes.sum()) == count
    assert all(abs(int(size) - count / experts) < 1 for size in sizes)
    assert torch.equal(owner, owners(shape, experts, "seed"))
    if experts > 1 and count > 10:
        assert not torch.equal(owner, owners(shape, experts, "another"))
        assert not torch.equal(owner.flatten().sort().values, owner.flatten()), "scattered, not in a row"


@pytest.mark.parametrize("share", ["down", "up", "none"])
@pytest.mark.parametrize("style", ["adaptformer", "pfeiffer"])
@pytest.mark.parametrize("train", [False, True])
def test_it_starts_as_the_base_bit_for_bit(
    share: str, style: str, train: bool, small: Small, images: Images
) -> None:
    model, x = small().train(train), images()
    before = model(x)
    assert torch.equal(attached(model, share=share, style=style).model.train(train)(x), before)


def test_the_start_of_the_maps(small: Small) -> None:
    for share in ("down", "none"):
        found = inserts(attached(small(), share=share))
        insert = found["blocks.0"]
        assert 0.98 * 24**-0.5 < float(insert.down.detach().abs().max()) <= 24**-0.5
        assert not any(p.any() for p in (insert.up, insert.up_bias, insert.down_bias, insert.norm_bias))
        assert (insert.norm_weight == 1).all()
        assert not torch.equal(insert.up_owner, found["blocks.1"].up_owner)
    assert torch.equal(insert.start, insert.down) and len(insert.down_bias) == 4 * 64
    other = inserts(attached(small(), seed=1))["blocks.0"]
    assert not torch.equal(other.up_owner, insert.up_owner)


@pytest.mark.parametrize("share", ["down", "up", "none"])
@pytest.mark.parametrize("style", ["adaptformer", "pfeiffer"])
@pytest.mark.parametrize("name", ["vit_scaled", "swin"])
def test_evaluation_is_one_dense_bottleneck_with_the_mean_of_the_experts(
    name: str, style: str, share: str, small: Small, images: Images
) -> None:
    adapted = attached(small(name, torch.float64), spread=0.3, share=share, style=style, width=5, experts=3)
    plain = small(name, torch.float64)
    for key, insert in inserts(adapted).items():
        all_maps = [expert(insert, *pair) for pair in pairs(insert)]
        mean = tuple(sum(each) / len(all_maps) for each in zip(*all_maps, strict=True))
        block: Any = plain.get_submodule(key)
        if style == "pfeiffer":
            block.register_forward_hook(lambda m, a, y, i=insert, w=mean: y + branch(i, y, w))
            continue
        seen: list[Tensor] = []
        block.norm2.register_forward_pre_hook(lambda m, a, s=seen: s.append(a[0]))
        block.register_forward_hook(
            lambda m, a, y, i=insert, w=mean, s=seen: y + branch(i, s.pop(), w).view_as(y)
        )
    torch.testing.assert_close(adapted.model(images(torch.float64)), plain(images(torch.float64)))


def test_evaluation_is_the_expectation_over_the_experts(small: Small) -> None:
    """With the first map shared, exactly."""
    insert = inserts(attached(small("vit", torch.float64), spread=0.3))["blocks.0"]
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    each = [branch(insert, x, expert(insert, 0, e)) for e in range(4)]
    torch.testing.assert_close(insert(x), sum(each) / 4)  # type: ignore[operator]


@pytest.mark.parametrize("share", ["down", "up", "none"])
def test_a_training_forward_runs_one_expert_for_all_tokens(share: str, small: Small) -> None:
    adapted = attached(small(), spread=0.3, share=share, dropout=0.0, width=6, experts=3)
    insert = inserts(adapted)["blocks.0"].train()
    x = torch.randn(2, 5, 24)
    forms = {pair: branch(insert, x, expert(insert, *pair)) for pair in pairs(insert)}
    hits = dict.fromkeys(forms, 0)
    with torch.no_grad():
        for _ in range(300):
            y = insert(x)
            (hit,) = [pair for pair, form in forms.items() if torch.allclose(y, form, atol=1e-5)]
            hits[hit] += 1
    assert all(0.6 < count * len(forms) / 300 < 1.45 for count in hits.values()), hits
    both = inserts(adapted)
    drawn = {
        tuple(torch.allclose(both[key].train()(x), both[key](x)) for key in ("blocks.0", "blocks.1"))
        for _ in range(60)
    }
    assert {(True, False), (False, True)} <= drawn, "blocks draw on their own"


def test_one_step_moves_the_chosen_experts_entries_and_bias_alone(small: Small, images: Images) -> None:
    adapted = attached(small(), dropout=0.0)
    before = {key: copy.deepcopy(insert.state_dict()) for key, insert in inserts(adapted).items()}
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=0.01, weight_decay=0.1))
    F.cross_entropy(adapted.model.train()(images()), torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    for key, insert in inserts(adapted).items():
        moved = insert.up.detach() != before[key]["up"]
        (chosen,) = insert.up_owner[moved].unique().tolist()
        assert moved[insert.up_owner == chosen].float().mean() > 0.95
        shifted = (insert.up_bias.detach() != before[key]["up_bias"]).view(4, 24)
        assert shifted[chosen].all() and int(shifted.sum()) == 24


def test_the_cards_worked_example() -> None:
    """Experts (a, 0, b, 0) and (0, c, 0, e) merge to (a, c, b, e) / 2."""
    owner = torch.tensor([[0, 1, 0, 1]])
    up = torch.tensor([[2.0, 3.0, 5.0, 7.0]])
    experts = [up * (owner == e) for e in (0, 1)]
    assert experts[0].tolist() == [[2, 0, 5, 0]] and experts[1].tolist() == [[0, 3, 0, 7]]
    layer = nn.TransformerEncoderLayer(1, 1, 2, batch_first=True, norm_first=True)
    adapted = attached(nn.Sequential(layer), experts=2, width=4, scale=1.0, also_train=[])
    (insert,) = inserts(adapted).values()
    with torch.no_grad():
        insert.up.copy_(up)
        insert.up_owner.copy_(owner)
    d, _, u, _, scale = insert.maps(None, None)
    assert torch.equal(scale * u, torch.tensor([[1.0, 1.5, 2.5, 3.5]])) and torch.equal(d, insert.down)
    for e in (0, 1):
        index = torch.tensor([e])
        assert torch.equal(insert.maps(index, index)[2], experts[e])


def test_one_expert_is_adaptformer_with_a_norm_and_gelu(small: Small, images: Images) -> None:
    trained = []
    for method, options in (
        ("vision.mosa", {"experts": 1, "consistency": 0.0}),
        ("vision.adaptformer", {"norm": "in", "activation": "gelu"}),
    ):
        torch.manual_seed(1)
        adapted = peftx.attach(small(), method, width=8, **options)
        optimizer = torch.optim.AdamW(adapted.param_groups(lr=0.01, weight_decay=0.1))
        torch.manual_seed(2)
        adapted.model.train()
        for _ in range(3):
            optimizer.zero_grad()
            adapted.loss(lambda a=adapted: _one(a, images())).backward()
            optimizer.step()
        trained.append(adapted.model.eval()(images()))
    torch.testing.assert_close(*trained)


def _one(adapted: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    scores = adapted.model(x)
    return F.cross_entropy(scores, torch.tensor([0, 1, 2])), scores


def _loss(adapted: Any, x: Tensor, passes: list[Tensor]) -> Tensor:
    def run() -> tuple[Tensor, Tensor]:
        loss, scores = _one(adapted, x)
        passes.append(scores)
        return loss, scores

    return adapted.loss(run)  # type: ignore[no-any-return]


def test_the_loss_of_two_passes(small: Small, images: Images) -> None:
    adapted = attached(small("vit", torch.float64), spread=0.3, consistency=0.7, second_loss=0.2)
    adapted.model.train()
    passes: list[Tensor] = []
    loss = _loss(adapted, images(torch.float64), passes)
    one, two = passes
    assert not torch.allclose(one, two), "other experts, another dropout"
    q1, q2 = one.softmax(-1), two.softmax(-1)

    def kl(of: Tensor, against: Tensor) -> Tensor:
        return (of.detach() * (of.detach().log() - against.log())).sum(-1).mean()

    labels = torch.tensor([0, 1, 2])
    want = F.cross_entropy(one, labels) + 0.2 * F.cross_entropy(two, labels)
    want = want + 0.7 * 0.5 * (kl(q2, q1) + kl(q1, q2))
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
    parameters = list(adapted.parameters())
    got = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(want, parameters), rtol=1e-4, atol=1e-5)


def test_without_weights_there_is_no_second_pass(small: Small, images: Images) -> None:
    adapted = attached(small(), spread=0.3, consistency=0.0)
    passes: list[Tensor] = []
    adapted.model.train()
    loss = _loss(adapted, images(), passes)
    assert len(passes) == 1 and torch.equal(loss, F.cross_entropy(passes[0], torch.tensor([0, 1, 2])))


def test_two_equal_passes_agree(small: Small, images: Images) -> None:
    adapted = attached(small(), spread=0.3, experts=1, dropout=0.0)
    passes: list[Tensor] = []
    loss = _loss(adapted, images(), passes)
    assert torch.equal(*passes)
    torch.testing.assert_close(loss, F.cross_entropy(passes[0], torch.tensor([0, 1, 2])))
    scores = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    term = divergence(scores, scores.detach().clone())
    (grad,) = torch.autograd.grad(term, scores)
    assert float(term.detach()) == pytest.approx(0, abs=1e-7) and float(grad.abs().max()) < 1e-7


def test_each_side_of_the_divergence_takes_the_other_as_given() -> None:
    one, two = (torch.randn(4, 6, requires_grad=True) for _ in range(2))
    mine, other = torch.autograd.grad(divergence(one, two), (one, two))
    q1, q2 = one.softmax(-1).detach(), two.softmax(-1).detach()
    torch.testing.assert_close(mine, (q1 - q2) / 2 / 4)
    torch.testing.assert_close(other, (q2 - q1) / 2 / 4)


@pytest.mark.parametrize(
    ("options", "adapter"),
    [
        ({}, 12 * (1_536 + 49_216 + 49_152 + 4 * 768)),  # what the official code prints
        ({"experts": 1}, 1_208_064),  # of the merged bottleneck
        ({"experts": 1, "width": 16}, 322_752),
        ({"share": "none"}, 12 * (1_536 + 2 * 49_152 + 4 * 64 + 4 * 768)),
        ({"share": "up"}, 12 * (1_536 + 2 * 49_152 + 4 * 64 + 768)),
        ({"style": "pfeiffer"}, 1_235_712),
    ],
)
def test_counts(options: dict[str, Any], adapter: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    adapted = peftx.attach(model, "vision.mosa", **options)
    counts = adapted.counts()
    assert (counts.adapter, counts.trainable) == (adapter, adapter + 76_900)
    assert adapter == sum(p.numel() for insert in inserts(adapted).values() for p in insert.parameters())


@pytest.mark.parametrize("share", ["down", "up", "none"])
def test_saved_and_loaded_it_goes_on_with_the_same_experts(
    share: str, small: Small, images: Images, tmp_path: Path
) -> None:
    adapted = attached(small(), spread=0.3, share=share, seed=3)
    y = adapted.model(images())
    artifacts.save(adapted, tmp_path / "a")
    torch.manual_seed(5)  # the start of a split first map is in the file, not drawn again
    again = artifacts.load(small(), tmp_path / "a")
    assert torch.equal(again.model(images()), y)
    outputs = []
    for each in (adapted, again):
        torch.manual_seed(7)
        outputs.append(each.model.train()(images()))
    assert torch.equal(*outputs)


def test_biases_take_no_weight_decay(small: Small) -> None:
    adapted = attached(small(), share="none")
    groups = adapted.param_groups(lr=0.1, weight_decay=0.5)
    vectors = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    for insert in inserts(adapted).values():
        own = {name for name, p in insert.named_parameters() if id(p) in vectors}
        assert own == {"norm_weight", "norm_bias", "down_bias", "up_bias"}


def test_what_cannot_work_is_refused_in_one_sentence(small: Small) -> None:
    with pytest.raises(SelectionError, match=r"\(ConvNeXtBlock\) has no norm .*set style to pfeiffer"):
        attached(small("convnext"))
    assert len(inserts(attached(small("convnext"), style="pfeiffer"))) == 4
    with pytest.raises(ConfigError, match="dropout is an option of the style adaptformer"):
        attached(small(), style="pfeiffer", dropout=0.2)
    with pytest.raises(ConfigError, match="experts"):
        attached(small(), experts=0)
