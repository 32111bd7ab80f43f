"""GPT4TS: norms, positional embedding and projections of a frozen language model."""

from __future__ import annotations

from peftx.adapters.methods.full import Full
from peftx_timeseries.config.methods import GPT4TSConfig

__all__ = ["GPT4TS"]


class GPT4TS(Full):
    """`timeseries.gpt4ts`: the adapter owns every norm, the positional table and both projections, and trains them.

    T. Zhou et al., "One Fits All: Power General Time Series Analysis by Pretrained LM", NeurIPS 2023, arXiv:2302.11939.
    """

    Config = GPT4TSConfig
