"""From suites to rows: names, options, folders, and what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Request, find_suite
from peftx.bench.cells import Point, slug
from peftx.bench.grid import Grid, build_grid
from peftx.config.run import Choice
from peftx.config.suite import Suite
from peftx.errors import ConfigError, DataError, PluginError, UnknownNameError
from peftx.plugins.registry import Registry

LEAST = {"task": "toy.sorting", "about": "Points.", "data": ["points"], "methods": ["core.head"]}


@pytest.fixture
def grid(registry: Registry) -> Callable[..., Grid]:
    def make(suite: dict[str, Any] | None = None, **asked: Any) -> Grid:
        made = Suite.model_validate({**LEAST, **(suite or {})})
        return build_grid("mine", made, Request.model_validate({"suite": "mine", **asked}), registry)

    return make


def choices(*labels: str) -> tuple[Choice, ...]:
    from peftx.config.suite import parse_label

    return tuple(map(parse_label, labels))


def test_rows_are_methods_on_data_with_full_names(grid: Callable[..., Grid]) -> None:
    found = grid(
        {
            "methods": ["head", {"name": "lora", "rank": 2}],
            "data": ["points", {"name": "points", "classes": 4}],
        }
    )
    assert [(row.label, row.data, row.model) for row in found.rows] == [
        ("core.head", "toy.points", "toy.net"),
        ("core.lora rank=2", "toy.points", "toy.net"),
        ("core.head", "toy.points classes=4", "toy.net"),
        ("core.lora rank=2", "toy.points classes=4", "toy.net"),
    ]
    assert found.rows[3].folder == "toy.points-classes=4/toy.net/core.lora-rank=2"
    assert found.rows[3].plan.method_config.rank == 2 and found.rows[3].plan.data_config.classes == 4


def test_all_means_every_adapter_method_that_fits(grid: Callable[..., Grid]) -> None:
    labels = {row.label for row in grid({"methods": ["all"]}).rows}
    assert {"core.head", "core.lora", "core.full", "core.bitfit", "core.dora", "grid.deadly"} <= labels
    assert not {"toy.convonly", "toy.distil", "toy.camera", "toy.replay"} & labels


def test_all_and_a_setting_of_one_method_are_two_rows(grid: Callable[..., Grid]) -> None:
    labels = [
        row.label for row in grid({"methods": ["all", {"name": "core.lora", "rank": 2}, "core.lora"]}).rows
    ]
    assert labels.count("core.lora") == 1 and labels.count("core.lora rank=2") == 1


def test_settings_of_a_data_set_stand_over_the_suites_and_under_the_commands(
    grid: Callable[..., Grid],
) -> None:
    suite = {
        "train": {"epochs": 5, "batch_size": 8, "lr": 0.5},
        "data": ["toy.points", {"name": "toy.points", "classes": 4, "train": {"epochs": 2, "batch_size": 4}}],
    }
    first, second = grid(suite, train={"batch_size": 30}).rows
    assert first.values["train"] == {"epochs": 5, "batch_size": 30, "lr": 0.5}
    assert second.values["train"] == {"epochs": 2, "batch_size": 30, "lr": 0.5}


def test_a_data_set_named_on_the_command_line_keeps_what_the_suite_says_of_it(
    grid: Callable[..., Grid],
) -> None:
    suite = {"data": [{"name": "toy.points", "classes": 4, "train": {"epochs": 2}}, "toy.points"]}
    rows = grid(suite, data=choices("points classes=4", "points classes=5")).rows
    assert [(row.data, row.values["train"]) for row in rows] == [
        ("toy.points classes=4", {"epochs": 2}),
        ("toy.points classes=5", {}),
    ]


def test_the_same_data_asked_another_question_is_a_row_of_its_own(grid: Callable[..., Grid]) -> None:
    suite = {
        "task_options": {"explode_at": 8},
        "data": [
            "points",
            {"name": "points", "task": {"explode_at": 4}},
            {"name": "points", "task": {"explode_at": 2}},
        ],
    }
    found = grid(suite)
    assert [(row.data, row.plan.task_config.explode_at) for row in found.rows] == [
        ("toy.points", 8),
        ("toy.points task.explode_at=4", 4),
        ("toy.points task.explode_at=2", 2),
    ]
    assert len({row.folder for row in found.rows}) == 3
    asked = grid(suite, data=choices("points task.explode_at=2", "points task.explode_at=16 classes=4"))
    assert [(row.data, row.plan.task_config.explode_at) for row in asked.rows] == [
        ("toy.points task.explode_at=2", 2),
        ("toy.points classes=4 task.explode_at=16", 16),
    ]
    with pytest.raises(ConfigError, match=r"--task\.wide"):
        grid({"data": [{"name": "points", "task": {"wide": 2}}]})


def test_cells_have_a_folder_a_seed_and_the_shared_settings(grid: Callable[..., Grid]) -> None:
    (row,) = grid({"seeds": 2, "train": {"lr": 0.5}}, precision="bf16").rows
    cells = row.runs()
    assert [cell.folder for cell in cells] == [f"toy.points/toy.net/core.head/seed{k}" for k in (0, 1)]
    assert [cell.config["seed"] for cell in cells] == [0, 1]
    config = row.plan_of(cells[1]).config
    assert config.seed == 1 and config.precision == "bf16" and config.baselines == [] and not config.report
    assert config.test and config.train.lr == 0.5


def test_cells_of_a_search_share_rates_seed_and_head_rate_and_see_no_test(grid: Callable[..., Grid]) -> None:
    found = grid({"methods": ["core.head", "core.full"], "rates": [0.1, 0.01]}, search=())
    assert found.points == (Point(0.01), Point(0.1))
    for row in found.rows:
        cells = row.searches()
        assert [cell.folder for cell in cells] == [f"{row.folder}/search/lr={rate}" for rate in (0.01, 0.1)]
        for cell in cells:
            config = row.plan_of(cell).config
            assert config.seed == 0 and not config.test and config.train.lr == cell.rate
            assert "head_lr" in config.train.model_fields_set and config.train.head_lr is None
        assert [cell.config["train"]["lr"] for cell in row.runs(Point(0.1))] == [0.1] * 3


def test_weight_decays_are_tried_at_every_rate(grid: Callable[..., Grid]) -> None:
    suite = {"weight_decays": [0.01, 0], "train": {"weight_decay": 0.5}}
    found = grid(suite, search=(0.1, 0.3), search_decay=())
    (row,) = found.rows
    assert row.points == (Point(0.1, 0.0), Point(0.1, 0.01), Point(0.3, 0.0), Point(0.3, 0.01))
    assert found.protocol["search"] == {"lr": [0.1, 0.3], "weight_decay": [0.0, 0.01]}
    cells = row.searches()
    assert [cell.folder.rpartition("/")[2] for cell in cells] == [
        "lr=0.1,weight_decay=0.0",
        "lr=0.1,weight_decay=0.01",
        "lr=0.3,weight_decay=0.0",
        "lr=0.3,weight_decay=0.01",
    ]
    for cell, point in zip(cells, row.points, strict=True):
        train = row.plan_of(cell).config.train
        assert (train.lr, train.weight_decay) == point
    assert {one.config["train"]["weight_decay"] for one in row.runs(row.points[1])} == {0.01}
    assert row.plan_of(row.runs(Point(0.1))[0]).config.train.weight_decay == 0.5, "what is not searched stays"
    with pytest.raises(ConfigError, match="--search weight_decay goes with --search lr"):
        grid(suite, search_decay=(0.1,))
    with pytest.raises(ConfigError, match=r"--search weight_decay and --train.weight-decay 0.1: give one"):
        grid(suite, search=(0.1,), search_decay=(), train={"weight_decay": 0.1})


def test_a_search_may_have_data_of_its_own(grid: Callable[..., Grid]) -> None:
    suite = {"data": [{"name": "points", "spread": 2.0, "search": {"spread": 3.0, "test": False}}]}
    (row,) = grid(suite, search=(0.1,)).rows
    assert row.data == "toy.points spread=2", "its name is that of what is scored"
    (search,), runs = row.searches(), row.runs(Point(0.1))
    assert search.config["data"] == {"name": "toy.points", "spread": 3.0, "test": False}
    assert {one.config["data"]["spread"] for one in runs} == {2.0}
    assert row.plan_of(search).data_config.spread == 3.0 and row.plan_of(runs[0]).data_config.spread == 2.0
    # named on the command line, the suite's data set is still the suite's, with other options as well
    data = choices("points spread=2", "points classes=4", "toy.file:x")
    first, second, other = grid(suite, search=(0.1,), data=data).rows
    assert first.search == second.search == {"spread": 3.0, "test": False} and not other.search
    assert second.searches()[0].config["data"] == {
        "name": "toy.points",
        "classes": 4,
        "spread": 3.0,
        "test": False,
    }


def test_a_data_set_that_a_suite_searches_in_two_ways_has_no_search_with_other_options(
    grid: Callable[..., Grid],
) -> None:
    suite = {"data": ["points", {"name": "points", "classes": 4, "search": {"spread": 3.0}}]}
    rows = grid(suite, search=(0.1,), data=choices("points classes=5", "points classes=4")).rows
    assert [dict(row.search) for row in rows] == [{}, {"spread": 3.0}]


def test_options_of_a_search_are_checked_whether_one_searches_or_not(grid: Callable[..., Grid]) -> None:
    suite = {"data": [{"name": "points", "search": {"spraed": 3.0}}]}
    for search in (None, (0.1,)):
        with pytest.raises(ConfigError, match=r"--data.spraed: no such option\. Did you mean"):
            grid(suite, search=search)


def test_all_data_that_are_not_there_are_told_at_once(grid: Callable[..., Grid]) -> None:
    absent = [{"name": "toy.points", "absent": True, "classes": number} for number in (2, 3)]
    there = {"name": "toy.points", "classes": 4}
    with pytest.raises(DataError) as caught:
        grid({"data": [absent[0], there, "toy.points", absent[1]]})
    assert str(caught.value) == (
        "2 of the 4 data sets of this bench cannot be had: toy.points absent=true classes=2, "
        "toy.points absent=true classes=3 (toy.points: points.bin is not there; put it into the data folder); "
        "run the others with --data 'toy.points classes=4,toy.points'"
    )
    with pytest.raises(
        DataError, match=r"^none of the 2 data sets of this bench can be had: toy.points absent"
    ):
        grid({"data": absent})
    assert len(grid({"data": [absent[0], there]}, data=choices("points classes=4")).rows) == 1


def test_data_of_the_search_must_be_there_where_one_searches(grid: Callable[..., Grid]) -> None:
    suite = {"data": [{"name": "points", "search": {"absent": True}}]}
    with pytest.raises(DataError, match=r"points\.bin is not there"):
        grid(suite, search=(0.1,))
    assert len(grid(suite).rows) == 1


@pytest.mark.parametrize("name", ["lr", "head_lr"])
def test_a_rate_is_searched_or_set(grid: Callable[..., Grid], name: str) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--search lr and --train.{flag} 0.1: "):
        grid({"train": {name: 0.1}}, search=(0.1,))
    grid({"train": {name: 0.1}})


@pytest.mark.parametrize(
    ("suite", "asked", "error", "message"),
    [
        ({"methods": ["toy.camera"]}, {}, ConfigError, "toy.camera needs camera with every sample"),
        ({}, {"methods": choices("toy.replay")}, ConfigError, "toy.replay is a procedure"),
        ({"methods": ["core.lroa"]}, {}, UnknownNameError, "Did you mean core.lora"),
        ({"methods": [{"name": "all", "rank": 2}]}, {}, ConfigError, "all methods at once take no options"),
        (
            {"methods": [{"name": "core.lora", "rank": 0}]},
            {},
            ConfigError,
            "--method.rank: must be at least 1",
        ),
        ({"methods": [{"name": "core.lora", "rnak": 2}]}, {}, ConfigError, "--method.rnak: no such option"),
        ({"data": ["toy.pointz"]}, {}, UnknownNameError, "Did you mean toy.points"),
        ({"data": [{"name": "toy.points", "absent": True}]}, {}, DataError, "points.bin is not there"),
        ({"models": ["toy.nett"]}, {}, UnknownNameError, "Did you mean toy.net"),
        ({"task": "toy.sortin"}, {}, UnknownNameError, "Did you mean toy.sorting"),
        ({"task_options": {"explode": 1}}, {}, ConfigError, "--task.explode: no such option"),
        ({}, {"device": "gpu"}, ConfigError, "--device: must be auto, cpu, cuda"),
        ({"models": ["toy.net", "net"]}, {}, ConfigError, "stands twice in the grid"),
        (
            {"methods": ["core.head", {"name": "core.lora", "rank": 2}]},
            {"budget": 200},
            ConfigError,
            "core.lora rank=2: --budget chooses the rank, and this sets it",
        ),
    ],
)
def test_what_is_refused(
    grid: Callable[..., Grid],
    suite: dict[str, Any],
    asked: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        grid(suite, **asked)


def test_a_suite_is_found_by_domain_and_name(registry: Registry) -> None:
    for spelled in ("grid/small", "grid.small", "small"):
        name, suite = find_suite(spelled, registry)
        assert name == "grid.small" and suite.about == "Points, twice."


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("grid/smal", UnknownNameError, "no suite is called 'grid.smal'. Did you mean grid.small"),
        (
            "grid",
            UnknownNameError,
            "grid is a domain, a suite is part of one: its suites are grid/small, grid/averaged, grid/parted",
        ),
        ("toy", UnknownNameError, "toy is a domain, a suite is part of one: it has no suite"),
        ("speech/quick", PluginError, "speech.quick belongs to the pack speech, which is not installed"),
        (
            "grid/none",
            PluginError,
            r"the target of suite grid.none .* is a dict, expected a peftx.config.suite.Suite",
        ),
        ("gone.toml", ConfigError, "no configuration file at gone.toml"),
    ],
)
def test_a_suite_that_is_none(registry: Registry, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_suite(name, registry)


def test_a_suite_is_a_file(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'task = "toy.sorting"\nabout = "Mine."\nseeds = 2\n[[data]]\nname = "toy.points"\nclasses = 4\n'
    )
    name, suite = find_suite(str(file), registry)
    assert name == "mine" and suite.data[0].options == {"classes": 4}
    file.write_text('task = "toy.sorting"\nabout = "Mine."\nseedz = 2\ndata = ["toy.points"]\n')
    with pytest.raises(ConfigError, match=r"mine.toml: --seedz: no such option. Did you mean seeds"):
        find_suite(str(file), registry)


def test_labels_become_parts_of_a_path_and_stay_distinct() -> None:
    assert slug("vision.digits limit_train=100") == "vision.digits-limit_train=100"
    one, two = slug("vision.imagefolder:/a/b"), slug("vision.imagefolder:/a-b")
    assert one != two and one.startswith("vision.imagefolder-a-b-") and "/" not in one
    assert len(slug("x " + "y=1 " * 100)) <= 80
    assert slug("../..") not in ("..", ".", "")
