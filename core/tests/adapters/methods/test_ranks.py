"""A rank above what a layer's update can have is told in one sentence that names the layer, and works."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import peftx
from peftx.cli import main
from peftx.errors import ConfigError, PeftxWarning

SENTENCE = (
    "the rank 9 is above what an update of 0, a map of 16 to 8, can have: 8 does the same with fewer values"
)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 32), nn.Conv2d(2, 3, 1))


@pytest.mark.parametrize("method", ["core.lora", "core.rslora", "core.dora"])
def test_attaching_warns_and_names_the_layer(method: str) -> None:
    with pytest.warns(PeftxWarning, match=f"^{method}: {SENTENCE}$") as told:
        peftx.attach(net(), method, targets=["0"], rank=9)
    assert len(told) == 1 and told[0].filename == __file__
    explained = peftx.explain(net(), method, targets=["0"], rank=9)
    assert explained.notes == (SENTENCE,)
    assert explained.render().splitlines()[-1] == f"note: {SENTENCE}"
    assert explained.to_dict()["notes"] == (SENTENCE,)


def test_several_layers_are_counted() -> None:
    explained = peftx.explain(net(), "core.lora", targets=["glob:*"], rank=9)
    assert explained.notes == (SENTENCE + ", and 2 more sites are such",)


def test_a_rank_that_fits_is_not_spoken_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PeftxWarning)
        peftx.attach(net(), "core.lora", targets=["0", "2"], rank=8)
        # of its own by a pattern, where the common rank would be too much
        peftx.attach(net(), "core.lora", targets=["0", "2"], rank=64, rank_pattern={".*": 4})
        # the update of a sparse method is of any rank
        peftx.attach(net(), "core.shira", targets=["0"], rank=100)
    explained = peftx.explain(net(), "core.lora", targets=["0", "2"], rank=2, rank_pattern={"2": 20})
    assert explained.notes[0].startswith(
        "the rank 20 is above what an update of 2, a map of 8 to 32, can have"
    )


def test_it_trains_all_the_same() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.warns(PeftxWarning):
        adapted = peftx.attach(model, "core.lora", targets=["0"], rank=7)
    model(torch.ones(2, 4)).sum().backward()
    assert adapted.counts().adapter == 7 * (4 + 3)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank"):
        peftx.attach(net(), "core.lora", targets=["0"], rank=0)
    with pytest.raises(ConfigError, match=r"the rank of 0 must be at least 1, got 0; mend rank_pattern"):
        peftx.attach(net(), "core.lora", targets=["0"], rank_pattern={"0": 0})


def test_on_the_command_line_it_is_a_note_and_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peftx_vision")
    assert main(["explain", "core.lora", "--model", "vit_micro", "--rank", "200"]) == 0
    told = capfd.readouterr()
    assert "note: the rank 200 is above what an update of blocks.0.attn" in told.out
    assert "PeftxWarning" not in told.err


@pytest.mark.slow
def test_a_run_keeps_it_among_its_notes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peftx_vision")
    command = "run core.lora --data digits --limit-train 20 --rank 200 --targets mlp.down --epochs 1 --baselines none"
    assert main([*command.split(), "--no-efficiency", "--out", str(tmp_path / "run")]) == 0
    told = capfd.readouterr()
    assert (
        "note: core.lora: the rank 200 is above what an update of blocks.0.mlp.fc2, a map of 512 to 128"
        in (told.out + told.err)
    )
    assert (tmp_path / "run" / "report.html").read_text().count("the rank 200 is above") == 1
