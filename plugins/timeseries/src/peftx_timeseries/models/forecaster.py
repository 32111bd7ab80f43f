"""A frozen language model as a forecaster: one channel's window becomes patches, the patches are its tokens.

    mu, sigma    mean and deviation of the window
    z            (x - mu) / sigma, padded by `stride` copies of its last value
    tokens       W_in z[patch] + b_in                               (P, D), P = floor((L - p) / s) + 2
    h            trunk(tokens)                                      (P, D)
    y            (W_out vec(h) + b_out) sigma + mu                  (H,)

Covariates, where there are some, are added in two places, both zero at the start and a part of the head:

    tokens      += W_c c[patch]         c: all C covariates over the input, padded as z is       W_c (D, C p)
    y           += V_{., h} k(t + h)    k: the C_k known ones at the row that is forecast        V (C_k, H)

so that the trunk sees what was known and has happened, and each row what is known of it. These are C p D + C_k H values
(with the linear forecast as a start also those of U, see `peftx_timeseries.models.covariates`).

Beside a linear forecast of its own (`residual`) the trunk either corrects it, or is averaged with it:

    correct      y = trunk + line                       both trained together, W_out and b_out start at zero
    average      y = share * trunk + (1 - share) * line; a loss looks at the trunk `alone`, and the line stays

What two forecasts get wrong apart from each other an average loses, while a correction learns the training months.

T. Zhou et al., "One Fits All: Power General Time Series Analysis by Pretrained LM", NeurIPS 2023, arXiv:2302.11939; the
normalisation is that of T. Kim et al. (RevIN, ICLR 2022) without its trained part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftx.errors import ConfigError, ModelError
from peftx_timeseries.models.covariates import CovariateMap, both
from peftx_timeseries.models.hosts import Trunk

__all__ = ["EPSILON", "Forecaster", "normalise", "patches_of", "projection"]

#: Added to the variance of a window: a constant one is then 0 and not 0 / 0.
EPSILON = 1e-5


def patches_of(length: int, patch: int, stride: int) -> int:
    """Patches of a window, P = floor((L - p) / s) + 2.

    Raises:
        ConfigError: the window is shorter than a patch.
    """
    if length < patch:
        raise ConfigError(
            f"an input of {length} rows is shorter than a patch of {patch}: take a longer --task.input-length or a "
            "shorter --model.patch"
        )
    return (length - patch) // stride + 2


def normalise(x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the window standardised by itself, and its mean and deviation, (B, 1) each.

    The population's deviation, with `EPSILON` added to the variance. `seen` (B, L) is 1 where a value was observed: the
    statistics are those of the observed values, and the others become 0, the window's mean.
    """
    if seen is None:
        mean = x.mean(1, keepdim=True)
        std = (x.var(1, keepdim=True, unbiased=False) + EPSILON).sqrt()
        return (x - mean) / std, mean, std
    count = seen.sum(1, keepdim=True).clamp(min=1)
    mean = (x * seen).sum(1, keepdim=True) / count
    std = (((x - mean).square() * seen).sum(1, keepdim=True) / count + EPSILON).sqrt()
    return (x - mean) / std * seen, mean, std


def projection(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer as torch begins it, drawn from a generator of its own: weight and bias uniform in +-1/sqrt(in)."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


class Forecaster(nn.Module):
    """``(B, L) -> (B, H)``, or ``(B, H, Q)`` with Q quantiles.

    Args:
        trunk: maps tokens (B, P, D) to features (B, P, D); D is its attribute `width`.
        length: rows of the input, L.
        horizon: rows of the forecast, H.
        patch, stride: rows of a patch, and between two.
        quantiles: values for each row, Q; 0 for a point forecast without a last dimension.
        linear: start as a linear forecast of its own (`residual`), whose values somebody has to set; the head behind
            the trunk starts at zero.
        share: with `linear`, average instead: the trunk's weight beside the line, between 0 and 1.
        known, past: covariates known ahead of time, and only as they happen, C_k and C_p; they come standardised, 0
            where one is missing.
        covariate_rows: with `linear`, rows of the covariates that it looks at.
        seed: of the two projections, which are drawn apart from everything else.
    """

    #: what it looks at of a batch, besides the windows, where it is there
    reads = ("seen", "known", "past")
    #: the projections are new, whatever the trunk is: to peftx they are the head
    peftx_head = ("in_layer", "out_layer", "residual", "covariate_in", "covariate_out")

    def __init__(
        self,
        trunk: Trunk,
        *,
        length: int,
        horizon: int,
        patch: int = 16,
        stride: int = 8,
        quantiles: int = 0,
        linear: bool = False,
        share: float | None = None,
        known: int = 0,
        past: int = 0,
        covariate_rows: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if share is not None and (known or past or quantiles):
            raise ConfigError(
                "--model.residual average averages point forecasts without covariates: leave out --task.quantiles, and "
                "take --task.covariates none"
            )
        self.known, self.past, self.share = known, past, share
        self.length, self.horizon, self.quantiles = length, horizon, quantiles
        self.patch, self.stride = patch, stride
        self.patches = patches_of(length, patch, stride)
        generator = torch.Generator().manual_seed(seed)
        width = trunk.width
        self.trunk = trunk
        self.in_layer = projection(patch, width, generator)
        outputs = horizon * max(quantiles, 1)
        self.out_layer = projection(width * self.patches, outputs, generator)
        self.residual = nn.Linear(length - 1, horizon) if linear else None
        if self.residual is not None:
            nn.init.zeros_(self.residual.weight)
            nn.init.zeros_(self.residual.bias)
        if linear and share is None:
            nn.init.zeros_(self.out_layer.weight)
            nn.init.zeros_(self.out_layer.bias)
        # zero, and so without a seed: it starts as the forecaster that knows no covariates, to the last bit
        self.covariate_in = nn.Linear(patch * (known + past), width, bias=False) if known + past else None
        if self.covariate_in is not None:
            nn.init.zeros_(self.covariate_in.weight)
        rows = covariate_rows if linear else 0
        self.covariate_out = (
            CovariateMap(known, past, length, horizon, rows) if known or past * rows else None
        )

    def forward(
        self,
        x: Tensor,
        seen: Tensor | None = None,
        known: Tensor | None = None,
        past: Tensor | None = None,
        *,
        alone: bool = False,
    ) -> Tensor:
        """Forecast from windows x (B, L) without missing values; `seen` (B, L) is 0 where one was filled in.

        `alone`: the trunk's own forecast, where it is averaged with a line.

        `known` (B, C_k, L + H) and `past` (B, C_p, L) are the covariates that it was made for.

        Raises:
            ModelError: they are not there, or others.
        """
        y = self._forecast(x, seen, self._tokens(known, past), alone)
        if self.covariate_out is None:
            return y
        with torch.autocast(x.device.type, enabled=False):  # a part of the closed form, as `residual` is
            more = self.covariate_out(known, past)
        return y + (more[..., None] if self.quantiles else more)

    def _tokens(self, known: Tensor | None, past: Tensor | None) -> Tensor | None:
        """What the covariates add to the tokens, (B, P, D)."""
        given = tuple(0 if part is None else part.shape[1] for part in (known, past))
        if given != (self.known, self.past):
            raise ModelError(
                f"a forecaster for {self.known} known and {self.past} past covariates was given {given[0]} and "
                f"{given[1]}: give those that it was trained with"
            )
        if self.covariate_in is None:
            return None
        padded = F.pad(both(known, past, self.length), (0, self.stride), mode="replicate")
        return self.covariate_in(padded.unfold(2, self.patch, self.stride).transpose(1, 2).flatten(2))

    def _forecast(self, x: Tensor, seen: Tensor | None, more: Tensor | None, alone: bool) -> Tensor:
        z, mean, std = normalise(x, seen)
        padded = F.pad(z[:, None], (0, self.stride), mode="replicate")[:, 0]
        tokens = self.in_layer(padded.unfold(1, self.patch, self.stride))
        features = self.trunk(tokens if more is None else tokens + more)
        y = self.out_layer(features.flatten(1))
        if self.quantiles:
            y = y.view(len(x), self.horizon, self.quantiles)
            mean, std = mean[..., None], std[..., None]
        if self.residual is None or (alone and self.share is not None):
            return y * std + mean
        last = x[:, -1:]
        # next to nothing to compute, and what everything else only corrects: exact whatever the trunk's precision is
        with torch.autocast(x.device.type, enabled=False):
            line = self.residual(x[:, :-1] - last) + last
        if self.share is not None:
            return self.share * (y * std + mean) + (1 - self.share) * line
        return y * std + (line[..., None] if self.quantiles else line)
