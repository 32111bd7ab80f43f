"""vision/fgvc: its grid, and the mean of the five."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftx.bench import Request, prepare
from peftx.bench.cells import Point
from peftx.config.suite import label, parse_label
from peftx.errors import DataError
from peftx_vision.data.fgvc import SETS
from peftx_vision.suites import FGVC
from peftx_vision.suites.fgvc import MEAN, averages


@pytest.mark.parametrize(
    ("method", "printed"),
    {
        **{
            "Full": 88.54,
            "Linear": 79.32,
            "Adapter": 85.66,
            "AdaptFormer": 88.48,
            "BitFit": 88.02,
            "VPT-Shallow": 84.66,
        },
        **{
            "VPT-Deep": 89.10,
            "SSF": 90.72,
            "LoRA": 84.78,
            "GPS": 91.78,
            "HST": 90.46,
            "LAST": 89.50,
            "SNF": 90.74,
        },
        **{"Adapter-8": 85.5, "MoSA": 89.9, "SNELL-32": 91.8},
    }.items(),
)
def test_scores_are_copied_as_their_printed_mean_says(method: str, printed: float) -> None:
    scores = {row.data: row.value for row in FGVC.published if row.method == method}
    assert list(scores) == [label(one) for one in FGVC.data]
    found = averages(scores)[MEAN]
    assert found == pytest.approx(printed, abs=0.0051 if printed * 100 % 10 else 0.06)
    (mean,) = (row.values[MEAN] for row in FGVC.published_averages if row.method == method)
    assert mean == round(found, 2)


def test_fewer_sets_have_no_mean() -> None:
    with pytest.raises(DataError, match="takes all 5 sets, got 4"):
        averages(dict.fromkeys("abcd", 1.0))


def test_the_grid(fgvc: Callable[..., Path], tmp_path: Path) -> None:
    request = Request(
        suite="vision/fgvc",
        methods=(parse_label("core.head"),),
        models=(parse_label("vit_micro"),),
        data_root=fgvc(),
        out=tmp_path / "out",
        search=(),
        offline=True,
    )
    rows = prepare(request).grid.rows
    assert [row.data for row in rows] == [f"vision.fgvc:{name}" for name in SETS]
    for row in rows:
        search, final = row.plan_of(row.searches()[0]), row.plan_of(row.runs(Point(1e-3))[0])
        assert search.data_config == final.data_config, "its validation lists are official"
        assert final.task_config.hflip and final.task_config.crop == 16
