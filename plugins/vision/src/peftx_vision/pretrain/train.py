"""The pretraining loop: AdamW, warm-up and cosine, bf16 autocast, and a checkpoint that can be continued.

One image counts as one pass, since no image is ever seen twice. A run that was stopped and continued ends with the
same bits as one that was not: batches depend on (seed, step) alone, and the checkpoint holds everything else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW

from ..models.vit_micro import build_vit_micro
from .checkpoint import read_checkpoint, write_checkpoint
from .mix import Batch, Mix
from .objective import Losses, Pretraining

WARM_UP = 0.06  # share of the steps
WEIGHT_DECAY = 0.05
LARGEST_GRADIENT = 1.0  # norm


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained bits (besides the versions of torch and the kind of processor).

    Two stages, each with its own warm-up and cosine. The first teaches figures on flat and textured grounds. It is
    left before its cosine has come down, at `figure_passes` of `figure_horizon`; the second adds grounds of dead
    leaves and the layout loss, and brings the learning rate to zero.
    """

    seed: int = 0
    passes: int = 424_000  # of both stages
    figure_passes: int = 224_000
    figure_horizon: int = 600_000
    figure_lr: float = 1.5e-3
    lr: float = 1e-3  # of the second stage
    batch_size: int = 64
    bf16: bool = True

    @property
    def steps(self) -> int:
        return math.ceil(self.passes / self.batch_size)

    @property
    def figure_steps(self) -> int:
        return min(self.steps, math.ceil(self.figure_passes / self.batch_size))

    def lr_at(self, step: int) -> float:
        if step < self.figure_steps:
            return self.figure_lr * lr_factor(step, math.ceil(self.figure_horizon / self.batch_size))
        return self.lr * lr_factor(step - self.figure_steps, self.steps - self.figure_steps)


class Trainer:
    """The network, its optimiser and the step they have reached."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.mix = Mix(recipe.seed)
        self.step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = Pretraining(build_vit_micro(num_classes=0, pretrained=False))
        positions = self.model.trunk.pos_embed
        assert positions is not None
        positions.requires_grad_(False)  # fixed sines and cosines
        for block in self.model.trunk.blocks:
            # On CPU in bf16 the fused kernel's backward takes 32 ms a block where plain matrix products take 2.
            block.attn.fused_attn = False
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.names = list(named)
        decayed = [p for p in named.values() if p.ndim > 1]
        others = [p for p in named.values() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)

    def train_step(self, batch: Batch | None = None) -> Losses:
        """One update, on the batch of this step unless another is given."""
        second = self.step >= self.recipe.figure_steps
        if batch is None:
            batch = self.mix.batch(self.step, self.recipe.batch_size, leaves=second)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.step)
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.recipe.bf16):
            losses = self.model(batch, with_layout=second)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.step += 1
        return losses

    def save(self, path: Path) -> None:
        parameters = dict(self.model.named_parameters())
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name in self.names:
            for slot, value in self.optimizer.state[parameters[name]].items():
                tensors[f"optimizer.{slot}.{name}"] = value
        write_checkpoint(path, tensors, {"step": self.step, "recipe": asdict(self.recipe)})

    def load(self, path: Path) -> None:
        """Continue from `path`; it must come from the same recipe."""
        tensors, facts = read_checkpoint(path, {"recipe": asdict(self.recipe)})
        self.model.load_state_dict(_with_prefix(tensors, "model."))
        parameters = dict(self.model.named_parameters())
        for slot in ("step", "exp_avg", "exp_avg_sq"):
            for name, value in _with_prefix(tensors, f"optimizer.{slot}.").items():
                self.optimizer.state[parameters[name]][slot] = value
        self.step = int(facts["step"])

    def trunk_weights(self) -> dict[str, Tensor]:
        """What is shipped: the trunk in fp32, no head, timm's names."""
        return {
            name: value.detach().float().contiguous() for name, value in self.model.trunk.state_dict().items()
        }


def lr_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def train(
    trainer: Trainer,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
    report_every: int = 100,
    save_every: int = 500,
) -> None:
    """Train to the end of the recipe, continuing from `checkpoint` when it exists."""
    if checkpoint is not None and checkpoint.exists():
        trainer.load(checkpoint)
        report(f"continuing at step {trainer.step}")
    recipe, sums, since, start = trainer.recipe, dict[str, float](), 0, time.perf_counter()
    while trainer.step < recipe.steps:
        losses = trainer.train_step()
        since += 1
        for field in fields(losses):
            sums[field.name] = sums.get(field.name, 0.0) + getattr(losses, field.name).item()
        if trainer.step % report_every == 0 or trainer.step == recipe.steps:
            rate = since * recipe.batch_size / (time.perf_counter() - start)
            means = "  ".join(f"{name} {value / since:.3f}" for name, value in sums.items())
            report(f"step {trainer.step}/{recipe.steps}  {means}  {rate:.0f} images/s")
            sums, since, start = {}, 0, time.perf_counter()
        if checkpoint is not None and (trainer.step % save_every == 0 or trainer.step == recipe.steps):
            trainer.save(checkpoint)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
