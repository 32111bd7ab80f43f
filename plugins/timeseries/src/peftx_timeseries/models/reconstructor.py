"""A frozen language model that reconstructs windows of all channels: what it cannot reconstruct is taken for anomalous.

    z_g          (x_g - mu_g) / sigma_g    each channel of each segment g of s rows by itself; s = 0: z = x
    tokens       (z_t, 0, ..., 0)          a row's M channels filled up with zeros to the width D, or W_in z_t + b_in
    h            trunk(tokens)             (L, D)
    y_g          (W_out h_t[:F] + b_out) sigma_g + mu_g

T. Zhou et al., "One Fits All: Power General Time Series Analysis by Pretrained LM", NeurIPS 2023, arXiv:2302.11939.
Here as in its public code: segments of 25 rows, tokens filled up with zeros, the first F features of the trunk, no
layer between them and the channels. Left out: what that code declares for this task and never calls (an embedding, a
norm).

With segments of their own means, a level that moved for longer than a segment is no error of any reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftx.errors import ConfigError
from peftx_timeseries.models.forecaster import EPSILON, projection
from peftx_timeseries.models.hosts import Trunk

__all__ = ["Reconstructor"]


class Reconstructor(nn.Module):
    """``(B, L, M) -> (B, L, M)``.

    Args:
        trunk: maps tokens (B, L, D) to features (B, L, D); D is its attribute `width`.
        channels: M.
        segment: rows that are standardised by themselves, a divisor of every L; 0 for none.
        linear: tokens by a projection of the channels, in place of zeros behind them.
        features: features that are projected back, F; None for all D.
        seed: of the projections, which are drawn apart from everything else.

    Raises:
        ConfigError: more channels than a token has places, or more features than there are.
    """

    #: the projections are new, whatever the trunk is: to peftx they are the head
    peftx_head = ("in_layer", "out_layer")

    def __init__(
        self,
        trunk: Trunk,
        *,
        channels: int,
        segment: int = 25,
        linear: bool = False,
        features: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        width = trunk.width
        if channels > width and not linear:
            raise ConfigError(
                f"{channels} channels do not fit into tokens of width {width}: take --task.embedding linear, or a "
                "wider host"
            )
        if features is not None and features > width:
            raise ConfigError(
                f"{features} features were asked for with --task.features, and the host has {width}"
            )
        generator = torch.Generator().manual_seed(seed)
        self.segment, self.features, self.width = segment, features or width, width
        self.trunk = trunk
        self.in_layer = projection(channels, width, generator) if linear else None
        self.out_layer = projection(self.features, channels, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct windows without missing values."""
        if self.segment:
            parts = x.unflatten(1, (-1, self.segment))
            mean = parts.mean(2, keepdim=True)
            std = (parts.var(2, keepdim=True, unbiased=False) + EPSILON).sqrt()
            z = ((parts - mean) / std).flatten(1, 2)
        else:
            z = x
        tokens = F.pad(z, (0, self.width - z.shape[-1])) if self.in_layer is None else self.in_layer(z)
        y = self.out_layer(self.trunk(tokens)[..., : self.features])
        if not self.segment:
            return y
        return (y.unflatten(1, (-1, self.segment)) * std + mean).flatten(1, 2)
