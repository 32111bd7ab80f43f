"""The papers' arithmetic on a 4 x 4 map, computed by hand: both tiers give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from peftx_kernels import SnellPart, snell_update, use
from peftx_kernels.ops.snell_linear.reference import kernel_map

A = [[[0, 0], [1, 0], [0, 1], [1, 1]], [[0, 0], [0, 0], [1, 0], [0, 2]]]
B = [[[0, 0], [2, 0], [0, 2], [3, 4]], [[1, 0], [0, 1], [0, 0], [3, 4]]]
V = [
    [-0.1, 0.1, 0.2, 0],
    [0, 0, 0.223607, -0.052786],
    [0.1, 0.082185, 0, -0.022950],
    [-0.082185, 0.041421, -0.058579, 0],
]


@pytest.fixture(params=["eager", "reference"], autouse=True)
def tier(request: pytest.FixtureRequest) -> Iterator[None]:
    use(request.param)
    yield
    use(None)


def part(dtype: torch.dtype = torch.float32, **fields: object) -> SnellPart:
    a, b = (torch.tensor(t, dtype=dtype).requires_grad_() for t in (A, B))
    return SnellPart(0, 4, a, b)._replace(**fields)


def mixed(alpha: float, gamma: float, beta: float, **fields: object) -> SnellPart:
    values = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (alpha, gamma, beta)]
    return part(torch.float64, mix=tuple(values), **fields)


def close(got: Tensor, want: object, tolerance: float = 1.5e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=tolerance, rtol=0)


def test_the_map() -> None:
    close(snell_update(part(mode="dense")).t(), V)
    close(kernel_map(part(), torch.float32).t(), V)


def test_half_of_it() -> None:
    s = snell_update(part(sparsity=0.5)).t()
    assert int((s != 0).sum()) == 8
    close(
        s,
        [
            [-0.01, 0.01, 0.04, 0],
            [0, 0, 0.05, 0],
            [0.01, 0.006754, 0, 0],
            [-0.006754, 0, -0.003431, 0],
        ],
    )


def test_a_quarter_of_it_and_ties_dropped() -> None:
    # in float64, where the three magnitudes of 0.1 are one number
    s = snell_update(part(torch.float64, sparsity=0.75)).t()
    want = torch.zeros(4, 4)
    want[0, 2], want[1, 2] = 0.04, 0.05
    close(s, want)


def test_other_modes() -> None:
    paper = snell_update(part(mode="paper", sparsity=0.5)).t()
    close(paper[0, 2], 0.029443)  # t = .052786, the eighth smallest magnitude
    assert int((paper != 0).sum()) == 8
    everything = snell_update(part(mode="paper", sparsity=0.0)).t()
    close(everything[0, 2], 0.04)
    soft = snell_update(part(mode="soft", sparsity=0.5)).t()
    close(soft[0, :3], [-0.044317, 0.044317, 0.144317])  # t = .055683, interpolated


def test_gradients_of_the_sum() -> None:
    one = part(sparsity=0.5)
    d_a, d_b = torch.autograd.grad(snell_update(one).sum(), (one.a, one.b))
    close(d_a[0, 0], [-0.01, -0.02])
    close(d_a[0, 2], [-0.007351, 0.013675])
    close(d_b[1, 0], [-0.013675, 0.007351])


def test_equal_rows_have_no_gradient_and_no_nan() -> None:
    a = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]).requires_grad_()
    b = a.detach().clone().requires_grad_()
    mix = tuple(torch.tensor([v], requires_grad=True) for v in (1.0, 1.0, 0.5))
    one = SnellPart(0, 1, a, b, 0.0, "dense", mix)
    d_a, d_b = torch.autograd.grad(snell_update(one).sum(), (a, b))
    assert d_a.count_nonzero() == d_b.count_nonzero() == 0


def test_equal_groups_cancel() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1, 5, 3).expand(2, 5, 3), torch.randn(1, 7, 3).expand(2, 7, 3)
    assert snell_update(SnellPart(0, 7, a, b, mode="dense")).count_nonzero() == 0


def test_rows_of_a_are_rows_of_v() -> None:
    torch.manual_seed(0)
    a, b, order = torch.randn(2, 5, 3), torch.randn(2, 7, 3), torch.randperm(5)
    one = SnellPart(0, 7, a, b, 0.4)
    assert torch.equal(snell_update(one._replace(a=a[:, order])), snell_update(one)[:, order])


def test_without_mixture_it_is_snell() -> None:
    for sparsity in (0.0, 0.5, 0.9):
        torch.testing.assert_close(
            snell_update(mixed(0.0, 1.0, 0.0, sparsity=sparsity)),
            snell_update(part(torch.float64, sparsity=sparsity)),
        )


def test_the_mixture_sums_over_the_outputs() -> None:
    v = snell_update(part(torch.float64, mode="dense"))
    for alpha, gamma, beta in ((1.0, 1.0, 0.0), (2.0, 0.05, 0.3), (-1.0, -0.2, 0.1)):
        added = snell_update(mixed(alpha, gamma, beta, mode="dense")) - v
        close(added.sum(0), [alpha + 4 * beta] * 4, 1e-12)  # one sum for each input


def test_a_large_gamma_is_uniform() -> None:
    v = snell_update(part(torch.float64, mode="dense"))
    close(snell_update(mixed(2.0, 1e9, 0.25, mode="dense")), v + 2.0 / 4 + 0.25, 1e-9)


def test_a_tiny_gamma_stays_finite() -> None:
    for gamma in (1e-4, -1e-4):
        one = mixed(1.0, gamma, 0.0, mode="dense")
        s = snell_update(one)
        assert s.isfinite().all()
        assert all(
            g.isfinite().all() for g in torch.autograd.grad(s.square().sum(), [one.a, one.b, *one.mix])
        )


def test_mixture_gradients_pass_kept_entries_only() -> None:
    def gradients(sparsity: float) -> tuple[Tensor, ...]:
        one = mixed(1.0, 0.5, 0.1, sparsity=sparsity)
        return torch.autograd.grad(snell_update(one).sum(), one.mix or ())

    assert all(float(g) == 0 for g in gradients(1.0))  # nothing is larger than the largest
    one = mixed(1.0, 0.5, 0.1, sparsity=0.5)
    s = snell_update(one)
    kept = (s != 0).double()
    v = snell_update(one._replace(mode="dense")).detach()
    factor = v.abs() * kept
    # beta is added to every entry: its gradient is the sum of K
    close(torch.autograd.grad(s.sum(), one.mix[2])[0][0], factor.sum(), 1e-12)
    values = snell_update(part(torch.float64, mode="dense")).detach()
    shares = torch.softmax(values / 0.5, 0)
    close(gradients(0.5)[0][0], (factor * shares).sum(), 1e-12)


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    found = torch.zeros_like(at)
    for index in range(at.numel()):
        moved = [at.detach().clone() for _ in range(2)]
        moved[0].view(-1)[index] += step
        moved[1].view(-1)[index] -= step
        found.view(-1)[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


@pytest.mark.parametrize("mode", ["official", "paper"])
def test_gradient_is_that_of_a_constant_factor(mode: str) -> None:
    torch.manual_seed(2)
    mix = tuple(torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.8, 0.6, 0.2))
    a, b = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    one = SnellPart(0, 7, a, b, 0.6, mode, mix, 0.7)
    dense = one._replace(mode="dense")
    s, v = snell_update(one), snell_update(dense).detach()
    factor = (s / v).detach()
    probe = torch.randn_like(s)
    got = torch.autograd.grad((s * probe).sum(), (a, b, *mix))

    def frozen(**fields: object) -> Tensor:
        return (snell_update(dense._replace(**fields)).detach() * factor * probe).sum()

    wants = [finite_difference(lambda t: frozen(a=t), a), finite_difference(lambda t: frozen(b=t), b)]
    for index in range(3):

        def moved(t: Tensor, index: int = index) -> Tensor:
            return frozen(mix=tuple(t if i == index else m.detach() for i, m in enumerate(mix)))

        wants.append(finite_difference(moved, mix[index]))
    for one_got, want in zip(got, wants, strict=True):
        torch.testing.assert_close(one_got, want, rtol=1e-6, atol=1e-8)
