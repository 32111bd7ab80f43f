"""The page of a run: sound, complete, true to the record, and the same every time."""

from __future__ import annotations

import copy
import json
import random
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from peftx.errors import RunError
from peftx.report import write_run
from peftx.report.figures import column, score
from peftx.report.markup import VOID

EVIL = "<script>alert('x')</script> \"quoted\" & </style>"


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what a page would fetch, run, or link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts, self.fetched, self.links, self.handlers = 0, [], [], []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(name)
            if name in ("src", "srcset", "data") or (name == "href" and tag != "a"):
                self.fetched.append(value)
            if name == "href" and tag == "a":
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def written(folder) -> str:
    return write_run(folder).read_text(encoding="utf-8")


def table(text: str, caption: str) -> list[list[str]]:
    """The cells of the table with that caption, row by row."""
    body = (
        text.partition(f"<caption>{caption}</caption>")[2].partition("</thead>")[2].partition("</table>")[0]
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in rows
    ]


def test_it_is_sound_fetches_nothing_and_runs_one_script(make_run) -> None:
    text = written(make_run())
    page = Page(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert page.scripts == 1 and page.fetched == [] and page.handlers == []
    outward = [link for link in page.links if not link.startswith("#")]
    assert outward == ["https://example.org/data"]
    assert "url(" not in text and "@import" not in text
    places = {link[1:] for link in page.links if link.startswith("#")}
    assert all(f'id="{place}"' in text for place in places)


def test_every_figure_of_the_results_is_the_records(make_run, record) -> None:
    text = written(make_run(record))
    rows = record["rows"]
    found = table(text, "results by method")
    assert [row[0] for row in found] == [row["method"] for row in rows]
    columns = list(zip(*found, strict=True))
    assert list(columns[1]) == [f"{row['trainable']:,}" for row in rows]
    assert list(columns[2]) == [f"{100 * row['trainable'] / 809_098:.2f}" for row in rows]
    assert list(columns[3]) == column([row["stored_bytes"] for row in rows], "bytes")[1]
    for place, split in ((4, "val"), (5, "test")):
        assert list(columns[place]) == [f"{row['metrics'][split]['accuracy']:.2f}" for row in rows]
    own = rows[0]["metrics"]["test"]["accuracy"]
    assert list(columns[6])[1:] == [
        f"{row['metrics']['test']['accuracy'] - own:+.2f}".replace("-", "−") for row in rows[1:]
    ]
    assert list(columns[7]) == column([row["peak_memory_bytes"] for row in rows], "bytes")[1]
    assert list(columns[8]) == column([row["seconds"] for row in rows], "seconds")[1]
    assert list(columns[9]) == ["6 of 8"] * 3 and list(columns[10]) == ["0.01", "0.03", "0.001"]
    # and with all their digits
    for row in rows:
        assert f'data-value="{row["metrics"]["test"]["accuracy"]!r}"' in text


@pytest.mark.parametrize("split", ["test", "val"])
def test_every_metric_is_the_records(make_run, record, split) -> None:
    text = written(make_run(record))
    long = {"test": "test", "val": "validation"}[split]
    found = table(text, f"all metrics on the {long} split")
    kinds = ["percent", "plain", "count", "plain", "plain", "plain", "plain"]
    for place, (name, kind) in enumerate(zip(record["rows"][0]["metrics"][split], kinds, strict=True), 1):
        values = [row["metrics"][split][name] for row in record["rows"]]
        assert [row[place] for row in found] == column(values, kind)[1], name


def test_efficiency_is_the_records(make_run, record) -> None:
    found = table(written(make_run(record)), "efficiency by method")
    rows = [row["efficiency"] for row in record["rows"]]
    columns = list(zip(*found, strict=True))
    assert list(columns[4]) == [f"{row['forward_overhead']:.2f}" for row in rows]
    assert list(columns[5]) == ["1.00", "–", "–"]
    assert list(columns[6]) == ["2"] * 3
    for row in record["rows"]:
        row["efficiency"] = {}
    assert 'id="efficiency"' not in written(make_run(record, "other"))


def test_the_headline_says_score_place_and_what_one_seed_is_worth(make_run, record) -> None:
    rows = record["rows"]
    for row, value in zip(rows, (98.0, 96.0, 99.0), strict=True):
        row["metrics"]["test"]["accuracy"] = value
    text = " ".join("".join(Page(written(make_run(record))).text).split())
    assert "test accuracy98.00 %" in text and "359 samples" in text
    assert (
        "core.lora is 1.00 points behind core.full, the best of the other rows, and trains 12.1 times fewer parameters."
        in text
    )
    assert "One of 359 samples is 0.28 points" in text and "(95 % Wilson interval)" in text
    assert "One seed is no spread" in text


def test_the_best_row_is_ahead_and_a_tie_is_level(make_run, record) -> None:
    for row, value in zip(record["rows"], (99.0, 96.0, 98.0), strict=True):
        row["metrics"]["test"]["accuracy"] = value
    assert "core.lora is 1.00 points ahead of core.full" in written(make_run(record))
    record["rows"][2]["metrics"]["test"]["accuracy"] = 99.0
    assert "core.lora is level with core.full" in written(make_run(record, "tie"))


def test_where_less_is_better(make_run, record) -> None:
    record |= {"primary": "loss", "higher_is_better": False}
    for row, value in zip(record["rows"], (0.1, 0.3, 0.2), strict=True):
        row["metrics"]["test"]["loss"] = value
    text = written(make_run(record))
    assert "core.lora is 0.1 nats ahead of core.full" in text and "test loss (nats), ↓ better" in text
    assert re.search(r'class="num best" data-value="0.1"', text)


def test_validation_scores_are_called_so(make_run, record) -> None:
    for row in record["rows"]:
        del row["metrics"]["test"]
    text = written(make_run(record))
    assert "Scores are on validation data, which also chose the epoch." in text
    assert "validation accuracy (%), ↑ better" in text and "test accuracy" not in text


def test_foreign_text_stays_text(make_run, record) -> None:
    record["data"] |= {
        "name": EVIL,
        "classes": [EVIL, "a"],
        "card": {"licence": EVIL, EVIL: EVIL, "synthetic": EVIL},
    }
    record["model"] = {"name": EVIL, EVIL: [EVIL]}
    record |= {
        "notes": [EVIL],
        "next": [EVIL],
        "status": "failed",
        "error": EVIL,
        "task": EVIL,
        "primary": EVIL,
    }
    record["units"] = {EVIL: EVIL}
    record["environment"] |= {"device_name": EVIL, EVIL: EVIL}
    record["versions"] |= {EVIL: EVIL}
    record["rows"][0]["options"] = {EVIL: EVIL}
    record["rows"][0]["peak_memory_how"] = EVIL
    record["rows"][1] = {"method": EVIL, "error": EVIL}
    for row in record["rows"][::2]:
        row["metrics"]["test"] = {EVIL: 3.0}
    folder = make_run(record)
    (folder / "config.toml").write_text(f"# {EVIL}")
    lines = [{"row": EVIL, "event": "step", "step": n, "loss": 1.0, "lr": 0.1} for n in range(5)]
    lines += [{"row": EVIL, "event": "epoch", "epoch": 1, "step": 4, f"val_{EVIL}": 1.0}]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    text = written(folder)
    page = Page(text)
    assert page.scripts == 1 and page.handlers == [] and page.fetched == []
    assert "<script>alert" not in text and text.count("</style>") == 1
    assert any(EVIL in part for part in page.text), "it is shown as it is"


def test_the_same_files_give_the_same_bytes(make_run, record) -> None:
    folder = make_run(record)
    first = write_run(folder).read_bytes()
    assert write_run(folder).read_bytes() == first
    assert b"\r" not in first


def test_two_thousand_steps_of_four_rows_fit(make_run, make_record) -> None:
    record = make_record(("core.lora", "core.head", "core.full", "core.dora"))
    path = write_run(make_run(record, steps=2000))
    assert path.stat().st_size < 400_000


def test_a_spike_of_one_step_is_on_the_page_after_2000(make_run) -> None:
    assert ",9.75" in written(make_run(steps=2000))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("training", "This run was not finished when the page was written."),
        ("interrupted", "This run was interrupted."),
        ("failed", "This run failed:"),
    ],
)
def test_an_unfinished_run_says_so_and_shows_what_there_is(make_run, record, status, words) -> None:
    record |= {"status": status, "plan": [{"method": "core.lora"}] * 4}
    if status == "failed":
        record["error"] = "after step 12 the loss is nan"
    text = written(make_run(record))
    said = " ".join("".join(Page(text).text).split())
    assert words in said and "3 of 4 rows are done" in said
    assert ("after step 12" in said) == (status == "failed")
    assert ("peftx run --resume" in said) == (status != "failed")
    assert table(text, "results by method")


def test_a_run_that_has_only_begun_has_a_page(make_run, record) -> None:
    record |= {"status": "training", "rows": []}
    lines = '{"row": "core.lora", "event": "step", "step": 1, "loss": 2.0, "lr": 0.1}\n{"row": "core.l'
    text = written(make_run(record, metrics=lines))
    Page(text)
    assert 'id="curves"' in text and 'id="cost"' not in text


def test_a_failed_baseline_is_named_with_its_cause(make_run, record) -> None:
    record["rows"][1] = {"method": "core.head", "error": "the head was not found"}
    text = written(make_run(record))
    assert "core.head</strong> failed: <span>the head was not found" in text
    assert [row[0] for row in table(text, "results by method")] == ["core.lora", "core.full"]


def test_losses_that_are_no_numbers_are_left_out(make_run, record) -> None:
    lines = [{"row": "core.lora", "event": "step", "step": n, "loss": None, "lr": 0.1} for n in range(1, 5)]
    record["rows"][0]["metrics"]["test"] = {"accuracy": None, "loss": None}
    text = written(make_run(record, metrics="\n".join(json.dumps(line) for line in lines)))
    Page(text)
    assert "Training loss" not in text and "Learning rate" in text


def test_options_of_all_rows_stand_side_by_side(make_run, record) -> None:
    found = {row[0]: row[1:] for row in table(written(make_run(record)), "settings of every row")}
    assert found["train.lr"] == ["0.01", "0.03", "0.001"]
    assert found["method.rank"] == ["8", "–", "–"]


def test_synthetic_and_unchecked_data_are_called_so(make_run) -> None:
    said = written(make_run())
    assert "generated: synthetic data" in said and "never run on the official files" in said


def test_what_a_split_counts_and_what_a_card_says_stay_short(make_run, record) -> None:
    data = record["data"]
    data["unit"] = "rows"
    data["card"] |= {
        "channels": [f"c{number}" for number in range(800)],
        "scaler": {"mean": [[0.123456789] * 800]},
    }
    text = written(make_run(record))
    assert f"{data['sizes']['test']:,} rows" in text and "0.123456789" not in text
    assert "800: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, …" in text and "c12," not in text


def test_a_record_that_lacks_anything_still_has_a_page(make_run, record) -> None:
    """Whatever is taken out of a record or turned into nonsense, there is a sound page."""
    draw = random.Random(0)

    def damage(value, depth=0):
        if isinstance(value, dict):
            kept = {k: damage(v, depth + 1) for k, v in value.items() if draw.random() > 0.12}
            return kept
        if isinstance(value, list):
            return [damage(v, depth + 1) for v in value]
        return draw.choice([None, "text", -1, [], {}]) if draw.random() < 0.08 else value

    for number in range(40):
        broken = damage(copy.deepcopy(record)) | {"format": 1}
        folder = make_run(record, f"run{number}")
        (folder / "record.json").write_text(json.dumps(broken))
        Page(written(folder))


def test_it_cannot_be_written_is_one_sentence_and_leaves_nothing(make_run) -> None:
    folder = make_run()
    target = folder / "report.html"
    target.mkdir()
    (target / "x").touch()
    with pytest.raises(RunError, match=r"cannot write .*report.html"):
        write_run(folder)
    assert not list(folder.glob(".report*"))


def test_scores_in_the_strip_are_those_of_the_rows(make_run, record) -> None:
    text = written(make_run(record))
    shown = re.findall(r'<span class="value" data-value="([^"]+)" title="[^"]+">([^<]+)</span>', text)
    expected = [row["metrics"]["test"]["accuracy"] for row in record["rows"]]
    assert shown == [(repr(value), score(value, "%")) for value in expected]
