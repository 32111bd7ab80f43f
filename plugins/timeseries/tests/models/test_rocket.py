"""ROCKET's kernels and features, against loops."""

from __future__ import annotations

import numpy as np
import torch

from peftx_timeseries.models.rocket import Rocket, draw_kernels


def rocket(kernels: int = 40, channels: int = 3, length: int = 30, normalise: bool = False) -> Rocket:
    torch.manual_seed(0)
    return Rocket(channels, length, 4, kernels, normalise)


def by_hand(model: Rocket, x: np.ndarray) -> np.ndarray:  # (M, T) -> (2 K,)
    most, share = [], []
    for kernel, bias, (size, dilation, padding) in zip(
        model.weight.double().numpy(), model.bias.tolist(), model.form.tolist(), strict=True
    ):
        padded = np.pad(x, ((0, 0), (padding, padding)))
        places = padded.shape[1] - (size - 1) * dilation
        values = [
            bias + sum(float(kernel[:, w] @ padded[:, at + w * dilation]) for w in range(size))
            for at in range(max(places, 0))
        ]
        most.append(max(values, default=0.0))
        share.append(float(np.mean([value > 0 for value in values])) if values else 0.0)
    return np.array(most + share)


def test_features_are_the_largest_value_and_the_share_above_zero() -> None:
    model, x = rocket(), torch.randn(3, 3, 30)
    found = model.features(x)
    for row, one in zip(found, x, strict=True):
        np.testing.assert_allclose(row.numpy(), by_hand(model, one.double().numpy()), rtol=1e-4, atol=1e-5)


def test_a_shorter_sample_has_the_features_it_has_by_itself() -> None:
    model, x = rocket(), torch.randn(4, 3, 30)
    ends = torch.tensor([30, 17, 8, 3])
    seen = (torch.arange(30) < ends[:, None]).float()
    found = model.features(x, seen)
    for row, one, end in zip(found, x, ends.tolist(), strict=True):
        np.testing.assert_allclose(
            row.numpy(), by_hand(model, one[:, :end].double().numpy()), rtol=1e-4, atol=1e-5
        )


def test_standardised_samples_do_not_tell_their_scale() -> None:
    model, x = rocket(normalise=True), torch.randn(2, 3, 30)
    seen = (torch.arange(30) < torch.tensor([[30], [20]])).float()
    torch.testing.assert_close(model.features(5 * x + 3, seen), model.features(x, seen), rtol=1e-3, atol=1e-3)
    flat = torch.ones(1, 3, 30)
    assert model.features(flat).isfinite().all()


def test_kernels_are_as_the_paper_draws_them() -> None:
    torch.manual_seed(1)
    weight, bias, form = draw_kernels(2000, 6, 100)
    size, dilation, padding = form.unbind(1)
    assert weight.shape == (2000, 6, 11) and set(size.tolist()) == {7, 9, 11}
    used = weight.abs().sum(2) > 0
    assert used.any(1).all() and used.sum(1).float().mean() > 1.5 and int(used.sum(1).max()) <= 6
    assert weight.sum(2).abs().max() < 1e-5
    assert bias.min() >= -1 and bias.max() <= 1 and abs(float(bias.mean())) < 0.1
    assert ((size - 1) * dilation <= 99).all() and dilation.max() > 8 and dilation.min() == 1
    assert set(padding.tolist()) > {0} and ((padding == 0) | (padding == (size - 1) * dilation // 2)).all()
    assert 0.4 < float((padding > 0).float().mean()) < 0.6
    # shorter samples than any of the paper's kernels
    weight, _, form = draw_kernels(5, 1, 4)
    assert weight.shape == (5, 1, 4) and (form[:, :2] == torch.tensor([4, 1])).all()


def test_kernels_that_were_loaded_are_the_ones_that_are_used() -> None:
    model, x = rocket(), torch.randn(2, 3, 30)
    torch.manual_seed(1)
    other = Rocket(3, 30, 4, 40)
    assert not torch.equal(other.form, model.form)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.features(x), model.features(x))


def test_the_same_kernels_for_the_same_generator() -> None:
    first, second = rocket().state_dict(), rocket().state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    torch.manual_seed(1)
    assert not torch.equal(Rocket(3, 30, 4, 40).weight, first["weight"])
