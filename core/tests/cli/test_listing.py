from __future__ import annotations

import json

import pytest


def test_list_shows_everything_and_how_to_get_packs(peftx):
    status, out, err = peftx("list")
    assert (status, err) == (0, "")
    for expected in ("core.lora", "toy.scale", "toy.sorting", "toy.small", "toy.net", "installed"):
        assert expected in out
    assert "to get vision: `pip install ./kernels ./core ./plugins/vision` in a clone" in out


def test_list_of_one_domain(peftx):
    _, out, _ = peftx("list", "toy")
    assert "toy.scale" in out and "core.lora" not in out and "vision" not in out


def test_list_as_json(peftx):
    found = json.loads(peftx("list", "--json")[1])
    assert set(found) == {"methods", "tasks", "data", "models", "suites", "packs"}
    states = {pack["domain"]: pack["state"] for pack in found["packs"]}
    assert (
        states["toy"] == "installed" and states["vision"] == "not installed" and states["speech"] == "planned"
    )
    far = next(row for row in found["data"] if row["name"] == "toy.far")
    assert far["synthetic"] and far["summary"].endswith("(synthetic)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visoin", "no domain is called 'visoin'. Installed: core, toy."),
        ("tyo", "no domain is called 'tyo'. Did you mean toy?"),
        ("vision", "vision belongs to the pack vision, which is not installed"),
    ],
)
def test_list_of_an_unknown_domain(peftx, name, message):
    status, out, err = peftx("list", name)
    assert (status, out) == (2, "") and err.startswith(f"error: {message}")


def test_list_without_packs_says_how_to_get_one(peftx):
    status, out, _ = peftx("list", "--no-plugin", "toy")
    assert status == 0 and "to get vision" in out and "toy.scale" not in out


def test_plugins_as_a_table_and_as_json(peftx):
    status, out, _ = peftx("plugins")
    assert status == 0
    assert out.splitlines()[0].split() == ["domain", "distribution", "version", "api", "status", "seconds"]
    row = next(row for row in json.loads(peftx("plugins", "--json")[1]) if row["domain"] == "toy")
    assert (row["distribution"], row["version"], row["api"], row["status"]) == ("peftx-toy", "1.0", 1, "ok")
    assert row["cause"] == "" and not row["slow"] and not row["imports_torch"]


def test_a_broken_plugin_shows_its_cause_and_stops_nothing(peftx, toy):
    plugin = toy / "toy_plugin.py"
    plugin.write_text("raise ValueError('no luck')\n")
    status, out, _ = peftx("plugins")
    assert status == 0 and "broken" in out and "ValueError: no luck" in out
    _, again, err = peftx("plugins", "--debug")
    assert again == out and "Traceback" in err and "toy_plugin.py" in err
    status, out, err = peftx("list")
    assert status == 0 and "core.lora" in out
    assert err == "not loaded: toy (peftx-toy 1.0): ValueError: no luck\n"
    for command in (["run", "toy"], ["run", "toy.scale"], ["info", "toy.scale"], ["list", "toy"]):
        status, _, err = peftx(*command)
        assert status == 2 and "ValueError: no luck" in err


@pytest.mark.parametrize("name", ["toy.scale", "scale"])
def test_info_shows_the_card(peftx, name):
    status, out, _ = peftx("info", name)
    assert status == 0
    for expected in (
        "one scale per channel",
        "arXiv:0000.00000",
        "MIT",
        "linear",
        "--start",
        "Multiplies every",
    ):
        assert expected in out


def test_info_of_every_kind_as_json(peftx):
    kinds = {}
    for name in ("toy.scale", "toy.sorting", "away", "folder:x", "net"):
        (card,) = json.loads(peftx("info", name, "--json")[1])
        kinds[card["name"]] = card["kind_of_thing"]
        assert card["plugin"] == "peftx-toy 1.0"
    assert kinds == {
        "toy.scale": "method",
        "toy.sorting": "task",
        "toy.far": "data set",
        "toy.folder": "data set",
        "toy.net": "model",
    }
    (card,) = json.loads(peftx("info", "toy.scale", "--json")[1])
    assert [option["flag"] for option in card["options"]] == ["--start", "--names", "--bias"]


def test_info_of_something_unknown(peftx):
    status, _, err = peftx("info", "toy.skale")
    assert status == 2 and err.startswith("error: nothing is called 'toy.skale'. Did you mean toy.scale")
    assert "pip install ./kernels ./core ./plugins/vision" in peftx("info", "vision.snella")[2]
    assert peftx("info", "toy") == (2, "", "error: toy is a domain: `peftx list toy` shows what it has\n")


def test_data_says_what_is_here_and_what_was_verified(peftx, tmp_path):
    status, out, _ = peftx("data")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("toy.")}
    assert "yes" in rows["toy.small"] and "verified" in rows["toy.small"]
    assert "no" in rows["toy.far"].split() and "unverified, synthetic" in rows["toy.far"]
    assert f"downloads go to {tmp_path / 'cache'} (PEFTX_DATA)" in out
    found = json.loads(peftx("data", "--json")[1])
    far = next(row for row in found["data"] if row["name"] == "toy.far")
    assert far["here"] is False and "get it by hand" in far["missing"]
    assert next(row for row in found["data"] if row["name"] == "toy.folder:PATH")["here"] is None


def test_data_check_compares_with_the_published_figures(peftx, toy):
    status, out, _ = peftx("data", "check", "small")
    assert status == 0 and out.endswith("toy.small: ok; published figures: a book\n")
    things = toy / "toy_things.py"
    things.write_text(things.read_text().replace('Published({"train": 3', 'Published({"train": 4'))
    import sys

    sys.modules.pop("toy_things")
    status, out, _ = peftx("data", "check", "small", "--json")
    report = json.loads(out)
    assert status == 1 and not report["ok"]
    assert [check["what"] for check in report["checks"] if not check["ok"]] == ["samples in train"]


def test_data_check_of_missing_and_unknown_data(peftx):
    assert peftx("data", "check", "far")[0] == 2
    status, _, err = peftx("data", "check", "smal")
    assert status == 2 and "Did you mean toy.small?" in err
