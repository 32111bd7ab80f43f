"""The training loop: it learns, its targets are what they say, and a continued run equals an uninterrupted one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peftx.errors import ModelError
from peftx_vision.pretrain.__main__ import main
from peftx_vision.pretrain.mix import Mix
from peftx_vision.pretrain.objective import layout_of, pixels_of_patches
from peftx_vision.pretrain.train import Recipe, Trainer, lr_factor, train

# Six steps of eight images, the second stage from the fourth on.
TINY = Recipe(seed=3, passes=48, figure_passes=24, figure_horizon=48, batch_size=8)


def test_a_step_lowers_the_loss_of_a_fixed_batch() -> None:
    trainer = Trainer(replace(TINY, figure_lr=3e-4))
    batch = Mix(0).batch(step=0, size=16)
    before = trainer.train_step(batch).total.item()
    assert trainer.train_step(batch).total.item() < before


@pytest.mark.parametrize("stop", [2, 4])  # before and after the second stage has begun
def test_a_continued_run_equals_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    straight = Trainer(TINY)
    train(straight, report=lambda line: None)
    first, second = Trainer(TINY), Trainer(TINY)
    for _ in range(stop):
        first.train_step()
    first.save(tmp_path / "checkpoint")
    train(second, tmp_path / "checkpoint", report=lambda line: None)
    assert second.step == straight.step == 6
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    Trainer(TINY).save(tmp_path / "checkpoint")
    with pytest.raises(ModelError, match="another run"):
        Trainer(replace(TINY, seed=4)).load(tmp_path / "checkpoint")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="delete it to start anew"):
        Trainer(TINY).load(tmp_path / "checkpoint")


def test_the_command_writes_a_trunk_without_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert (
        main(["--seed", "0", "--passes", "64", "--threads", str(threads), "--out", str(tmp_path / "out")])
        == 0
    )
    assert '"passes": 64' in capsys.readouterr().out
    weights = load_file(tmp_path / "out")
    assert weights.keys() == Trainer(TINY).trunk_weights().keys()
    assert not any(name.startswith("head") for name in weights)


def test_positions_do_not_move() -> None:
    trainer = Trainer(TINY)
    before = trainer.trunk_weights()["pos_embed"].clone()
    trainer.train_step()
    assert torch.equal(trainer.trunk_weights()["pos_embed"], before)


def test_learning_rate() -> None:
    assert lr_factor(0, 100) == pytest.approx(1 / 6)
    assert lr_factor(5, 100) == 1.0
    assert lr_factor(99, 100) < 0.001
    assert TINY.figure_steps == 3 and TINY.steps == 6
    assert TINY.lr_at(5) < TINY.lr_at(3) == TINY.lr


def test_patches_are_in_the_order_of_the_tokens() -> None:
    mask = torch.arange(32 * 32).reshape(1, 32, 32)
    patches = pixels_of_patches(mask)
    assert patches.shape == (1, 64, 16)
    assert torch.equal(patches[0, 0], mask[0, :4, :4].flatten())
    assert torch.equal(patches[0, 1], mask[0, :4, 4:8].flatten())
    assert torch.equal(patches[0, 8], mask[0, 4:8, :4].flatten())


def test_layout_of_a_flat_image_has_colours_and_no_edges() -> None:
    image = torch.tensor([0.0, 0.5, 1.0])[None, :, None, None].expand(1, 3, 32, 32)
    layout = layout_of(image)[0]
    assert torch.equal(layout[:192].reshape(3, 64), torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 64))
    assert not layout[192:].any()
