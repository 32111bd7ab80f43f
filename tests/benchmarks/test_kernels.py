"""The arithmetic of benchmarks/kernels.py: its cost model, what it compares with, how it times, what it concludes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math

import pytest

torch = pytest.importorskip("torch")
CPU = torch.device("cpu")


@pytest.fixture
def bench(repository, monkeypatch):
    """Imports a module of the benchmarks as the script does."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    # by its file: the name alone may also mean the folder of the distribution
    spec = importlib.util.spec_from_file_location("kernels_script", repository / "benchmarks" / "kernels.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return lambda name: script if name == "kernels" else importlib.import_module(name)


def counted(run):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("op", "dims"),
    [("lora_linear", (48, 32, 80, 4)), ("bottleneck", (48, 96, 8)), ("dora_linear", (48, 32, 80, 4))],
)
def test_the_arithmetic_is_that_of_the_plain_form(bench, op, dims):
    case = bench("kernelbench.cases").OPS[op](*dims)
    step = bench("kernelbench.timing").step
    tensors = case.tensors(torch.float32, CPU)
    forward, backward = case.costs(4)
    alone = counted(lambda: step(case.plain, tensors, None))
    cotangent = torch.ones_like(case.plain(**tensors))
    both = counted(lambda: step(case.plain, tensors, cotangent))
    # its plain form multiplies the factors out; the model has the thin products, and gates
    if op == "dora_linear":
        rows, inner, out, rank = dims
        alone += 2 * rank * rank * (inner + out) + rows * out
        both += 2 * rank * rank * (inner + out) + 4 * rows * out
    assert (alone, both) == (forward.flop, forward.flop + backward.flop)


def test_the_traffic_is_that_of_inputs_and_results(bench):
    case = bench("kernelbench.cases").OPS["lora_linear"](48, 32, 80, 4)
    tensors = case.tensors(torch.bfloat16, CPU)
    y = case.ours(**tensors)
    s = 48 * 4 * 2
    forward, backward = case.costs(2)
    assert forward.traffic == sum(t.nbytes for t in tensors.values()) + y.nbytes + s
    grads = bench("kernelbench.timing").step(case.ours, tensors, torch.ones_like(y))
    read = sum(tensors[name].nbytes for name in ("x", "weight", "a", "b")) + y.nbytes + s
    assert backward.traffic == read + sum(grad.nbytes for grad in grads)


@pytest.mark.parametrize(("share", "e"), [(0.01, 4), (0.01, 2), (0.3, 2)])
def test_the_lines_that_random_entries_touch(bench, share, e):
    values = 1 << 20
    chosen = torch.rand(values, generator=torch.Generator().manual_seed(0)) < share
    lines = int(chosen.view(-1, 32 // e).any(1).sum())
    entries = int(chosen.sum())
    cost = bench("kernelbench.costs").switch(values, share, e)
    assert math.isclose(cost.traffic, entries * (4 + 2 * e) + 64 * lines, rel_tol=0.02)


def test_rooflines(bench):
    cards = bench("kernelbench.cards")
    card = cards.Card("toy", 1e9, 1e12, 1e11, 1 << 20, "made up")
    assert (
        card.seconds(2e12, 1e9, torch.bfloat16) == 2.0
        and card.bound(2e12, 1e9, torch.bfloat16) == "arithmetic"
    )
    assert card.seconds(2e11, 3e9, torch.float32) == 3.0 and card.bound(2e11, 3e9, torch.float32) == "memory"
    here = cards.measured(CPU, megabytes=4, size=64)
    assert here.bandwidth > 1e8 and here.half > 1e7 and here.single > 1e7 and "measured" in here.source


def test_a_known_card_is_found_by_its_name(bench, monkeypatch):
    cards = bench("kernelbench.cards")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert cards.card_of(torch.device("cuda")).name == "H100"


def test_inputs_in_turn_are_larger_than_the_cache(bench):
    timing = bench("kernelbench.timing")
    for one in (1 << 10, 1 << 24, 1 << 30):
        count = timing.sets_of(one, 50 << 20)
        assert count == 64 or (count >= 2 and (count - 1) * one >= 3 * (50 << 20))


def test_variants_take_turns_on_their_sets(bench):
    seen = []
    variants = {name: [lambda at=(name, place): seen.append(at) for place in range(3)] for name in "ab"}
    found = bench("kernelbench.timing").interleaved(variants, CPU, repeats=4, warm=2)
    assert {name: len(times.seconds) for name, times in found.items()} == {"a": 4, "b": 4}
    assert len(seen) == 12 and [place for name, place in seen if name == "a"] == [1, 2, 0, 1, 2, 0]
    assert seen[4][0] != seen[6][0]  # who is first changes
    timing = bench("kernelbench.timing")
    assert timing.Times((1.0, 9.0, 4.0)).over(timing.Times((2.0, 3.0, 4.0))) == 1.0
    low, high = found["a"].spread
    assert low <= found["a"].median <= high


@pytest.mark.parametrize("op", ["lora_linear", "dora_linear", "snell_linear", "grouped_lora", "bottleneck"])
def test_everything_compared_computes_the_same(bench, op):
    """The plain form, compiled too, and the layer of `peft`, in value and in every gradient."""
    step = bench("kernelbench.timing").step
    for case in bench("kernelbench.cases").checks(op):
        torch.manual_seed(0)
        tensors = {name: wide(tensor) for name, tensor in case.tensors(torch.float32, CPU).items()}
        if "weight_sq" in tensors:
            tensors["weight_sq"] = tensors["weight"].square().sum(1)
        cotangent = torch.randn_like(case.reference(**tensors))
        want = step(case.reference, tensors, cotangent)
        plain = case.plain
        if op == "snell_linear":  # it is timed with one share of zeros
            plain = type(plain)(plain.func, **{**plain.keywords, "rate": shared(case, tensors)})
        for run in (case.ours, plain, torch.compile(plain, backend="aot_eager")):
            for one, two in zip(step(run, tensors, cotangent), want, strict=True):
                assert torch.allclose(one, two, rtol=1e-6, atol=1e-8)
        if case.peft is not None and importlib.util.find_spec("peft"):
            layer = case.peft(tensors)
            assert torch.allclose(layer(tensors["x"]), case.reference(**tensors), rtol=1e-6, atol=1e-8)
            names = {name for name, p in layer.named_parameters() if p.requires_grad}
            assert len(names) == (2 if op == "lora_linear" else 3)
        torch.compiler.reset()


def wide(tensor):
    return (
        tensor.detach().double().requires_grad_(tensor.requires_grad)
        if tensor.is_floating_point()
        else tensor
    )


def shared(case, tensors):
    """The share of zeros that a check of SNELL uses."""
    seen = []
    case.bound(lambda x, weight, bias, parts: seen.append(parts[0].sparsity))(**tensors)
    return seen[0]


def row(bench, variant, value, **more):
    fields = {"part": "lora_linear", "case": "a", "metric": "bf16 training", "unit": "ms", **more}
    return bench("kernelbench.results").Row(variant=variant, value=value, **fields)


def test_what_was_aimed_at_is_judged(bench):
    judged = bench("kernelbench.results").judged
    times = {"bare product": 10.0, "composition": 14.0}
    rows = [row(bench, name, value) for name, value in times.items()]
    assert judged([*rows, row(bench, "ours", 12.0)], "cuda")[0].startswith("met: lora_linear, a")
    assert "is 0.75, at most 0.5" in judged([*rows, row(bench, "ours", 13.0)], "cuda")[0]
    assert judged([*rows, row(bench, "ours", 15.0)], "cpu")[0].startswith("MISSED")
    assert judged([*rows, row(bench, "ours", 15.0, over=0.9)], "cpu")[0].startswith("met")
    wide = {"part": "dora_linear", "case": "4096 x 8192 to 8192, rank 384"}
    (line,) = judged([row(bench, "peft", 19.0, **wide), row(bench, "ours", 11.0, **wide)], "cuda")
    assert line.startswith("MISSED") and "at most 0.526" in line
    near = {"best": 1.0, "bound": "memory"}
    assert judged([row(bench, "ours", 1.4, **near)], "cuda")[0].startswith("met")
    assert judged([row(bench, "ours", 1.4, best=1.0, bound="arithmetic")], "cuda") == []
    peak = {"part": "models", "metric": "peak memory", "unit": "MB"}
    (line,) = judged([row(bench, "LoRA", 1000.0, **peak), row(bench, "ours", 1020.0, **peak)], "cuda")
    assert line.startswith("MISSED") and "1.02, at most 1.01" in line
    assert judged([row(bench, "ours", None)], "cuda") == []


def test_the_table(bench):
    rows = [row(bench, "composition", 2.0), row(bench, "peft", None, note="failed: KeyError")]
    rows.append(row(bench, "ours", 1.5, best=1.2, bound="memory", traffic=3e6, flop=1e9))
    text = bench("kernelbench.results").table(rows)
    assert "| case | figure | composition | peft | ours | roofline | ours, of the roofline |" in text
    assert "| a | bf16 training, ms | 2 | failed: KeyError | 1.5 | 1.2 (memory) | 80 %, 2 GB/s |" in text
    assert bench("kernelbench.results").to_dict(rows[-1])["TFLOP/s"] == pytest.approx(1e9 / 1.5 / 1e9)


def test_without_a_gpu_it_says_so(bench, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(bench, []) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "no CUDA GPU is visible" in err


def main(bench, arguments):
    threads = torch.get_num_threads()
    try:
        return bench("kernels").main(arguments)
    finally:
        torch.set_num_threads(threads)


def test_a_part_on_the_cpu(bench, monkeypatch, tmp_path, capsys):
    cases = bench("kernelbench.cases")
    monkeypatch.setitem(cases._SMALL, "bottleneck", ((20, 16, 4),))
    monkeypatch.setattr(bench("kernels"), "card_of", lambda device: cases_card(bench))
    assert (
        main(
            bench, ["--device", "cpu", "--part", "bottleneck", "--repeats", "2", "--out", str(tmp_path / "o")]
        )
        == 0
    )
    out, _ = capsys.readouterr()
    found = json.loads((tmp_path / "o").read_text())
    assert "**bottleneck**" in out and "torch" in found["environment"]
    assert {(r["variant"], r["metric"]) for r in found["rows"]} == {
        (variant, metric)
        for variant in ("composition", "ours")
        for metric in ("fp32 forward", "fp32 training")
    }
    assert all(r["n"] == 2 and r["value"] > 0 and r["TB/s"] > 0 for r in found["rows"])
    assert len(found["targets"]) == 2


def cases_card(bench):
    return bench("kernelbench.cards").Card("toy", 1e10, 1e11, 1e11, 1 << 10, "made up")


def test_what_is_wrong_is_not_timed(bench, monkeypatch, capsys):
    from peftx_kernels.ops.bottleneck import reference

    right = reference.bottleneck
    monkeypatch.setattr(reference, "bottleneck", lambda *args, **options: 1.001 * right(*args, **options))
    monkeypatch.setattr(bench("kernels"), "card_of", lambda device: cases_card(bench))
    assert main(bench, ["--device", "cpu", "--part", "bottleneck", "--repeats", "1"]) == 1
    out, err = capsys.readouterr()
    assert "WRONG: bottleneck (auto) at 1 x 64, 8 hidden in fp32" in err and "**bottleneck**" not in out


def test_the_roofline_of_a_card(bench, capsys):
    assert main(bench, ["--roofline", "A100"]) == 0
    out, _ = capsys.readouterr()
    cases = bench("kernelbench.cases")
    assert (
        out.startswith("Roofline of A100") and all(op in out for op in cases.OPS) and "sparse_switch" in out
    )
