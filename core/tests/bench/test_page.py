"""The page of a bench, from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from peftx.bench import Outcome, write_page
from peftx.errors import RunError
from peftx.plugins.registry import Registry

POINTS = ({"name": "toy.points", "spread": 2.0},)


def test_the_page_is_written_again_from_the_folder(
    bench: Callable[..., Outcome], inline: None, registry: Registry, tmp_path: Path
) -> None:
    outcome = bench(data=POINTS, seeds=1, published=True)
    assert outcome.page is not None
    first = outcome.page.read_bytes()
    outcome.page.unlink()
    assert write_page(tmp_path / "out", registry) == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "report.html").read_bytes() == first
    elsewhere = write_page(tmp_path / "out", registry, tmp_path / "page.html")
    assert elsewhere.read_bytes() == first
    text = first.decode()
    for standing in outcome.boards[0].standings:
        assert standing.label in text
    assert "Sorter" in text and "a book" in text, "published rows were asked for"


def test_an_unfinished_bench_has_a_page(
    bench: Callable[..., Outcome], inline: None, registry: Registry, tmp_path: Path
) -> None:
    bench(data=POINTS, seeds=1, methods=({"name": "grid.raising"},))
    assert "no luck today" in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_without_a_bench(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no bench"):
        write_page(tmp_path, registry)
    (tmp_path / "bench.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(RunError, match="holds no bench"):
        write_page(tmp_path, registry)
    (tmp_path / "bench.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="written by a later peftx"):
        write_page(tmp_path, registry)
