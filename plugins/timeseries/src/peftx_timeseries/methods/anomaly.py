"""What a detector of anomalies has to beat: a distance, a closed form, and noise.

zero reconstruction   x^_t = 0                     a row's score is its mean squared distance from the training mean
PCA                   x^_t = V V' (x_t - m) + m    V: leading components of the training rows, m their mean
random score          x^_t = x_t + sqrt(u_t)       u uniform in [0, 1), the score: what point adjustment gives to noise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from peftx.errors import ConfigError, DataError
from peftx.tasks import ModelMethod, Task
from peftx_timeseries.config.anomaly import PCAConfig, RandomScoreConfig, ZeroConfig
from peftx_timeseries.tasks.rows import HasBlocks, row_shapes_of

__all__ = ["PCA", "RandomScore", "ZeroReconstruction"]


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # (B, L, M)
        return torch.zeros_like(x)


class _Noise(nn.Module):
    #: is handed the number of each row beside the values
    by_row = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:  # (B, L, M), (B, L)
        """A row's noise follows from its number and the seed, whatever batch it comes in."""
        drawn = torch.from_numpy(_uniform(rows.cpu().numpy(), self.seed)).to(x.device)
        return x + drawn.sqrt().to(x.dtype)[..., None]


def _uniform(rows: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Numbers in [0, 1) from whole numbers (SplitMix64: G. Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        state = rows.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        state *= np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


class _Leading(nn.Module):
    """An affine map of `rows` rows and their channels at a time."""

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.linear = nn.Linear(channels * rows, channels * rows)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, M)
        groups = x.reshape(len(x), -1, self.rows * x.shape[-1])
        return self.linear(groups).reshape(x.shape)


class ZeroReconstruction(ModelMethod):
    """`timeseries.zero_reconstruction`: every row is expected at the training mean."""

    Config = ZeroConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        row_shapes_of(task)
        return _Zero()


class RandomScore(ModelMethod):
    """`timeseries.random_score`: scores drawn at random.

    S. Kim et al., "Towards a Rigorous Evaluation of Time-series Anomaly Detection", AAAI 2022, arXiv:2109.05257.
    """

    Config = RandomScoreConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        row_shapes_of(task)
        return _Noise(config.score_seed)


class PCA(ModelMethod):
    """`timeseries.pca`: rows from the leading components of the training rows, in closed form.

    As many components as explain the fraction asked for, but never all: something must be left to be an error.
    """

    Config = PCAConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        """As `ModelMethod.build`.

        Raises:
            ConfigError: the rows taken together do not divide a window.
        """
        shapes = row_shapes_of(task)
        if shapes.length % config.rows:
            raise ConfigError(
                f"{config.rows} rows at a time do not divide a window of {shapes.length}: choose another --method.rows"
            )
        return _Leading(shapes.channels, config.rows)

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """The projection from all groups of training rows. Raises DataError when there are too few."""
        blocks = cast("HasBlocks", task).blocks("train", scoring=True)
        shapes = row_shapes_of(task)
        size = shapes.channels * config.rows
        count, total, gram = 0, np.zeros(size), np.zeros((size, size))
        # groups as the model meets them: a window's, and of the last one of a series only those that are new in it
        for window in range(len(blocks)):
            rows = blocks.values[
                blocks.start[window] + blocks.skip[window] : blocks.start[window] + blocks.length
            ]
            whole = rows[len(rows) % config.rows :].reshape(-1, size).astype(np.float64)
            count, total, gram = count + len(whole), total + whole.sum(0), gram + whole.T @ whole
        if count <= size:
            raise DataError(
                f"{count:,} groups of {config.rows} training rows are too few for components of {size} values: choose "
                "a smaller --method.rows"
            )
        mean = total / count
        variance, vectors = np.linalg.eigh(gram / count - np.outer(mean, mean))
        variance = np.clip(variance[::-1], 0.0, None)
        share = np.cumsum(variance) / max(variance.sum(), np.finfo(np.float64).tiny)
        kept = min(int(np.searchsorted(share, config.explained - 1e-12)) + 1, size - 1)
        leading = vectors[:, ::-1][:, :kept]
        weight = leading @ leading.T
        bias = mean - weight @ mean
        return {"linear.weight": torch.from_numpy(weight), "linear.bias": torch.from_numpy(bias)}
