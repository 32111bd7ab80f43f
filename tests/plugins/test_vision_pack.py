"""The command line over the vision pack, installed by pip: what is imported, and what is refused in one
line."""

from __future__ import annotations

import json
import time

import pytest

PROGRAM = (
    "import json, sys; from peftx.cli import main; status = main(sys.argv[1:]);"
    "print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)"
)
HEAVY = {"torch", "numpy", "timm", "torchvision", "PIL", "sklearn"}


def run(bench, *arguments, **variables):
    """Status, what was said on stderr, and the modules imported."""
    done = bench.environment.run("python", "-c", PROGRAM, *arguments, **variables)
    *said, last = done.stderr.splitlines()
    status, modules = json.loads(last)
    return status, said, set(modules)


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "list",
        "plugins",
        "data",
        "info core.lora",
        "info vision.digits",
        "run core.lora --help",
        "run vision --help",
        "run vision --data cifar --model vit_tiny_patch16_224 --help",
        "run vision --dry-run",
    ],
)
def test_nothing_heavy_is_imported(bench, command):
    status, _, modules = run(bench, *command.split())
    assert status == 0 and not HEAVY & modules


@pytest.mark.parametrize("data", ["cifar", "cifar10", "cifar100", "vision.cifar10"])
def test_absent_data_without_network_are_reported_before_torch_within_five_seconds(bench, tmp_path, data):
    seconds = []
    while not seconds or (
        seconds[-1] >= 5 and len(seconds) < 3
    ):  # a busy machine may take longer, but not always
        start = time.perf_counter()
        status, said, modules = run(
            bench, "run", "vision", "--data", data, "--offline", PEFTX_DATA=str(tmp_path)
        )
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 5
    (line,) = said
    assert status == 2 and line.startswith("error: vision.cifar10") and str(tmp_path) in line
    assert "torch" not in modules


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run vision --rnak 4", "--rnak: no such option. Did you mean --rank"),
        ("run vision --rank 0", "--rank: must be at least 1 (got 0)"),
        ("run vision --rank four", "--rank: must be a whole number (got four)"),
        ("run vision --train.lr -1", "--train.lr: must be greater than 0 (got -1)"),
        ("run vision --method lorra", "no method is called 'lorra'. Did you mean core.lora"),
        (
            "run vision --method speech.s2_lora",
            "speech.s2_lora belongs to the pack speech, which is not installed",
        ),
        ("run vision --data digit", "no data set is called 'digit'. Did you mean vision.digits"),
        ("run vision --data imagefolder", "data set imagefolder needs a path: write imagefolder:PATH"),
        ("run vision --data imagefolder:nowhere", "nowhere"),
        ("run vision --baselines lorra", "no method is called 'lorra'"),
        ("run vison", "no domain, task or method is called 'vison'. Did you mean vision"),
        ("run vision.snela", "Did you mean vision.snel"),
        ("eval nowhere", "no run folder at nowhere"),
        ("predict nowhere a.png", "no run folder at nowhere"),
        ("info vision.digit", "nothing is called 'vision.digit'. Did you mean vision.digits"),
    ],
)
def test_mistakes_are_one_line_and_cost_no_torch(bench, command, message):
    status, said, modules = run(bench, *command.split())
    assert status == 2 and len(said) == 1, said
    assert said[0].startswith("error: ") and message in said[0]
    assert "torch" not in modules


def test_the_catalogue_tells_the_truth_about_the_pack(bench):
    from_catalogue = bench.environment.ok(
        "python", "-c", "from peftx.plugins import CATALOGUE; print(*CATALOGUE['vision'].names)"
    ).split()
    found = bench.json("list", "vision")
    rows = [row for kind in ("methods", "tasks", "data", "models") for row in found[kind]]
    names = {row["name"].partition(":")[0].partition(".")[2] for row in rows}
    names |= {alias for row in found["data"] for alias in row["aliases"]}
    assert set(from_catalogue) <= names


def test_explain_counts_by_the_closed_formula_without_weights(bench):
    found = bench.json(
        "explain", "core.lora", "--model", "vit_tiny_patch16_224", "--rank", "4", "--data", "digits"
    )
    adapter = sum(row["trained"] for row in found["rows"] if not row["owned"])
    # 12 blocks of width 192: qkv (576 x 192), proj (192 x 192), fc1 (768 x 192), fc2 (192 x 768), R (in +
    # out) each
    assert adapter == found["counts"]["adapter"] == 12 * 4 * ((576 + 192) + (192 + 192) + 2 * (768 + 192))
    assert found["counts"]["head"] == 192 * 10 + 10
