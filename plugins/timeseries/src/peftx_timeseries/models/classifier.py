"""A frozen language model as a classifier: all channels of a sample at once, patch by patch, are its tokens.

    x            M channels of L steps, padded by `stride` copies of the last step
    tokens       W_in vec(x[:, patch]) + b_in            (P, D), M p values a token, P = floor((L - p) / s) + 2
    h            gelu(trunk(tokens))                     (P, D), 0 for tokens of padding alone
    y            W_out LayerNorm(vec(h)) + b_out         (C,)

No sample is standardised by itself here, as one is for a forecast: how large it is may say what it is. Padding behind
the end of a shorter sample is 0, the trunk does not look at tokens that hold nothing else, and what it makes of them
counts as 0.

T. Zhou et al., "One Fits All: Power General Time Series Analysis by Pretrained LM", NeurIPS 2023, arXiv:2302.11939.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftx_timeseries.models.forecaster import patches_of, projection
from peftx_timeseries.models.hosts import Trunk

__all__ = ["SeriesClassifier"]


class SeriesClassifier(nn.Module):
    """``(B, M, L) -> (B, C)``, logits.

    Args:
        trunk: maps tokens (B, P, D) and their mask (B, P) to features (B, P, D); D is its attribute `width`.
        channels: M.
        length: steps of the input, L.
        classes: C.
        patch, stride: steps of a patch, and between two.
        seed: of the two projections, which are drawn apart from everything else.
    """

    #: all but the trunk is new, whatever the trunk is: to peftx it is the head
    peftx_head = ("in_layer", "norm", "out_layer")

    def __init__(
        self,
        trunk: Trunk,
        *,
        channels: int,
        length: int,
        classes: int,
        patch: int = 8,
        stride: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.channels, self.length, self.patch, self.stride = channels, length, patch, stride
        self.patches = patches_of(length, patch, stride)
        generator = torch.Generator().manual_seed(seed)
        self.trunk = trunk
        self.in_layer = projection(channels * patch, trunk.width, generator)
        self.norm = nn.LayerNorm(trunk.width * self.patches)
        self.out_layer = projection(trunk.width * self.patches, classes, generator)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Classify samples x (B, M, L) without missing values; `seen` (B, L) is 1 up to the end of each and 0 behind
        it, and what x holds there is not looked at."""
        if seen is None:
            return self.out_layer(self.norm(F.gelu(self.trunk(self._tokens(x))).flatten(1)))
        steps = F.pad(seen[:, None], (0, self.stride), mode="replicate")[:, 0]
        mask = steps.unfold(1, self.patch, self.stride).amax(2)
        x = torch.where(seen[:, None] > 0, x, 0.0)
        features = F.gelu(self.trunk(self._tokens(x), mask))
        features = torch.where(mask[..., None] > 0, features, 0.0)
        return self.out_layer(self.norm(features.flatten(1)))

    def _tokens(self, x: Tensor) -> Tensor:  # (B, P, D)
        padded = F.pad(x, (0, self.stride), mode="replicate")
        patches = padded.unfold(2, self.patch, self.stride)  # (B, M, P, p)
        return self.in_layer(patches.transpose(1, 2).flatten(2))
