"""Models of torch's own layers, one for each kind of site and each way torch has of reading a weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftx.testing.cases.case import Case, Images, Sequence, Tokens

__all__ = ["PLAIN_CASES", "Toy"]


class Toy(nn.Module):
    """A trunk, then a mean over what is left of positions, then a head that says it is one."""

    peftx_head = "head"

    def __init__(self, trunk: nn.Module, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 3)
        self.channels_first = channels_first

    def forward(self, *inputs: Tensor) -> Tensor:
        y = self.trunk(*inputs)
        if self.channels_first:
            y = y.flatten(2).mean(2)
        elif y.dim() == 3:
            y = y.mean(1)
        return self.head(y)


class PackedAttention(nn.Module):
    """nn.MultiheadAttention as a trunk: (B, T, D) in and out, whatever layout the attention itself wants."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2, **options)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        key = x if key is None else key
        if not self.attn.batch_first:
            x, key = x.transpose(0, 1), key.transpose(0, 1)
        y, weights = self.attn(x, key, key)
        y = y if self.attn.batch_first else y.transpose(0, 1)
        return y + weights.sum() * 0


class Encoder(nn.Module):
    """nn.TransformerEncoder with a padding mask: in evaluation mode it takes the nested-tensor fast path."""

    def __init__(self, padded: bool, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)
        self.padded = padded
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.padded:
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[:, -1] = True
        y = self.encoder(x if self.batch_first else x.transpose(0, 1), src_key_padding_mask=mask)
        return (y if self.batch_first else y.transpose(0, 1))[:, :3]


class Decoder(nn.Module):
    """nn.TransformerDecoder over a memory, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True), 1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.decoder(x, memory, tgt_mask=causal)


PLAIN_CASES: tuple[Case, ...] = (
    Case(
        "linear",
        lambda: Toy(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)), 4),
        Sequence(6),
        targets=("glob:trunk.*",),
        kinds=("linear",),
    ),
    Case(
        "conv1d",
        lambda: Toy(
            nn.Sequential(
                nn.Conv1d(3, 6, 3, stride=2, padding=2, dilation=2, padding_mode="circular"),
                nn.Tanh(),
                nn.Conv1d(6, 4, 3, groups=2, padding="same"),
            ),
            4,
            channels_first=True,
        ),
        lambda n: (torch.randn(n, 3, 11),),
        targets=("glob:trunk.*",),
        kinds=("conv1d",),
    ),
    Case(
        "conv2d",
        lambda: Toy(
            nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, padding=1),
                nn.Tanh(),
                nn.Conv2d(6, 6, 3, padding=2, dilation=2, padding_mode="reflect"),
                nn.Conv2d(6, 4, (3, 1), groups=2, bias=False),
            ),
            4,
            channels_first=True,
        ),
        Images(9),
        targets=("glob:trunk.*",),
        kinds=("conv2d",),
    ),
    Case(
        "embedding",
        lambda: Toy(nn.Embedding(9, 4, padding_idx=0), 4),
        Tokens(9),
        targets=("trunk",),
        kinds=("embedding",),
    ),
    Case(
        "embedding_max_norm",
        lambda: Toy(nn.Embedding(9, 4, max_norm=0.5, scale_grad_by_freq=True), 4),
        Tokens(9),
        targets=("trunk",),
        kinds=("embedding",),
    ),
    Case(
        "norms",
        lambda: Toy(
            nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Tanh(),
                nn.GroupNorm(2, 4),
                nn.Flatten(),
                nn.LayerNorm(64),
                nn.Linear(64, 6),
                nn.LayerNorm(6, bias=False),
            ),
            6,
        ),
        Images(6),
        targets=("trunk.0", "trunk.6"),
        kinds=(
            "conv2d",
            "linear",
            "norm",
        ),
    ),
    Case(
        "packed_attention",
        lambda: Toy(PackedAttention(8, batch_first=True), 8),
        Sequence(),
        kinds=(
            "activation",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "packed_attention_sequence_first",
        lambda: Toy(PackedAttention(8), 8),
        Sequence(),
        kinds=(
            "activation",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "packed_attention_widths",
        lambda: Toy(PackedAttention(8, kdim=6, vdim=6, batch_first=True), 8),
        lambda n: (torch.randn(n, 5, 8), torch.randn(n, 4, 6)),
        kinds=(
            "activation",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "packed_attention_bias_kv",
        lambda: Toy(PackedAttention(8, add_bias_kv=True, batch_first=True), 8),
        Sequence(),
        kinds=(
            "activation",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "encoder",
        lambda: Toy(Encoder(padded=False), 8),
        Sequence(),
        kinds=(
            "activation",
            "linear",
            "norm",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "encoder_padded",
        lambda: Toy(Encoder(padded=True), 8),
        Sequence(),
        kinds=(
            "activation",
            "linear",
            "norm",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "encoder_sequence_first",
        lambda: Toy(Encoder(padded=False, batch_first=False), 8),
        Sequence(),
        kinds=(
            "activation",
            "linear",
            "norm",
            "packed_attention",
            "parameter",
        ),
    ),
    Case(
        "decoder",
        lambda: Toy(Decoder(), 8),
        lambda n: (torch.randn(n, 3, 8), torch.randn(n, 5, 8)),
        kinds=(
            "activation",
            "linear",
            "norm",
            "packed_attention",
            "parameter",
        ),
    ),
)
