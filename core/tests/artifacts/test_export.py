"""A merged checkpoint answers like the adapted model where it is loaded: in a process that cannot import peftx."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError

#: for each line of JSON: loads a model with `load`, runs it on the inputs, writes the outputs and answers with a line,
#: which is empty or tells the error. Every import of peftx fails
PROGRAM = """
import json, os, sys, traceback
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("peftx", "peftx_kernels"):
            raise ImportError("no peftx here")
sys.meta_path.insert(0, Wall())
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a library prints is no answer
def run(load, inputs, outputs, keywords):
    names = {}
    exec(load, names)
    model, inputs = names["model"].eval(), load_file(inputs)
    with torch.no_grad():
        result = model(**inputs) if keywords else model(*inputs.values())
    result = getattr(result, "logits", result)
    assert not [name for name in sys.modules if name.partition(".")[0] == "peftx"]
    save_file({"y": result.contiguous()}, outputs)
for line in sys.stdin:
    try:
        run(**json.loads(line))
        error = ""
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps(error), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process without peftx, for all tests of this file: it imports the libraries that load models once."""
    home = str(tmp_path_factory.mktemp("home"))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": home},
    ) as started:
        yield started
        started.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def alone(process: subprocess.Popen[str], tmp_path: Path) -> Iterator[Callable[..., Tensor]]:
    """Run a loading line in a process without peftx."""

    def run(load: str, inputs: dict[str, Tensor], *, keywords: bool = False) -> Tensor:
        save_file(inputs, tmp_path / "inputs")
        places = {"inputs": str(tmp_path / "inputs"), "outputs": str(tmp_path / "outputs")}
        print(json.dumps({"load": load, "keywords": keywords} | places), file=process.stdin, flush=True)
        answer = process.stdout.readline()  # type: ignore[union-attr]
        assert answer == '""\n', json.loads(answer) if answer else "the process ended"
        return load_file(tmp_path / "outputs")["y"]

    # a process that hangs would never answer
    limit = threading.Timer(300, process.kill)
    limit.start()
    yield run
    limit.cancel()


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max() / other.detach().abs().max())


def _untouched(adapted: peftx.Adapted, before: dict[str, Tensor], names: tuple[str, ...]) -> bool:
    after = adapted.model.state_dict()
    return adapted.names == names and all(torch.equal(after[key], value) for key, value in before.items())


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "method"), [("vit_tiny_patch16_224", "core.dora"), ("test_resnet", "core.full")]
)
def test_timm(name: str, method: str, perturb: Any, alone: Callable[..., Tensor], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    adapted = peftx.attach(model, method)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    before, wanted = _copy(model), model(x).detach()
    found = artifacts.export_merged(adapted, tmp_path / "out", probe=x)
    assert _untouched(adapted, before, ("default",)) and torch.equal(model(x), wanted)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["merge.json", "model.safetensors"]
    assert found.form == "timm" and found.file == tmp_path / "out" / "model.safetensors"
    assert "num_classes=5" in found.load and name in found.load
    assert _distance(alone(f"import timm\nmodel = {found.load}", {"x": x}), wanted) < 1e-5
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["outputs"][0]["relative"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("targets", [["attention", "mlp"], ["wte"]])
def test_transformers_gpt2_with_its_tie(
    targets: list[str], perturb: Any, alone: Callable[..., Tensor], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=23, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    adapted = peftx.attach(model, "core.lora", targets=targets, rank=2, also_train=[])
    perturb(adapted.parameters())
    ids = torch.randint(0, 23, (2, 6))
    before, wanted = _copy(model), model(ids).logits.detach()
    found = artifacts.export_merged(adapted, tmp_path / "out", probe=ids)
    assert _untouched(adapted, before, ("default",)) and model.config.tie_word_embeddings
    assert bool(found.report.untied) is ("wte" in targets)
    assert found.form == "transformers" and found.file == tmp_path / "out"
    assert {"config.json", "model.safetensors", "merge.json"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert not list((tmp_path / "out").glob("*.bin"))
    got = alone(f"import transformers\nmodel = {found.load}", {"input_ids": ids}, keywords=True)
    assert _distance(got, wanted) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "whisper"])
def test_transformers(family: str, perturb: Any, alone: Callable[..., Tensor], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "bert":
        config = transformers.BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            vocab_size=23,
            num_labels=4,
        )
        model = transformers.BertForSequenceClassification(config)
        inputs = {"input_ids": torch.randint(0, 23, (2, 6))}
    else:
        config = transformers.WhisperConfig(
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            num_mel_bins=8,
            vocab_size=31,
            max_source_positions=10,
            max_target_positions=12,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        model = transformers.WhisperForConditionalGeneration(config)
        inputs = {"input_features": torch.randn(2, 8, 20), "decoder_input_ids": torch.randint(0, 31, (2, 5))}
    adapted = peftx.attach(model.eval(), "core.dora", rank=2)
    perturb(adapted.parameters())
    wanted = model(**inputs).logits.detach()
    found = artifacts.export_merged(adapted, tmp_path / "out", probe=inputs)
    assert {o.name for o in found.report.outputs} >= {"logits"} and found.report.outputs[0].flipped == 0
    got = alone(f"import transformers\nmodel = {found.load}", inputs, keywords=True)
    assert _distance(got, wanted) < 1e-5


def test_openai_whisper(perturb: Any, alone: Callable[..., Tensor], tmp_path: Path) -> None:
    whisper = pytest.importorskip("whisper")
    torch.manual_seed(0)
    dims = whisper.model.ModelDimensions(
        n_mels=8,
        n_audio_ctx=10,
        n_audio_state=16,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=31,
        n_text_ctx=12,
        n_text_state=16,
        n_text_head=2,
        n_text_layer=1,
    )
    model = whisper.model.Whisper(dims).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    adapted = peftx.attach(model, "core.lora", rank=2)
    perturb(adapted.parameters())
    inputs = {"mel": torch.randn(1, 8, 20), "tokens": torch.randint(0, 31, (1, 5))}
    wanted = model(inputs["mel"], inputs["tokens"]).detach()
    found = artifacts.export_merged(adapted, tmp_path / "out", probe=tuple(inputs.values()))
    assert found.form == "whisper" and found.file.name == "model.pt"
    checkpoint = torch.load(found.file, weights_only=True)
    assert checkpoint["dims"] == vars(dims) and set(checkpoint) == {"dims", "model_state_dict"}
    assert _distance(alone(f"import whisper\nmodel = {found.load}", inputs, keywords=True), wanted) < 1e-5


def test_any_other_module(build: Callable[..., nn.Module], ids: Tensor, perturb: Any, tmp_path: Path) -> None:
    model = build()
    adapted = peftx.attach(model, "core.full")
    perturb(adapted.parameters())
    found = artifacts.export_merged(adapted, tmp_path / "out", probe=ids)
    assert found.form == "torch" and "load_state_dict" in found.load
    other = build()
    other.load_state_dict(load_file(found.file))
    assert torch.equal(other(ids), model(ids))
    assert load_file(found.file).keys() == other.state_dict().keys(), "tied names are both there"


def test_only_the_adapters_asked_for(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, tmp_path: Path
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.lora", name="a").attach("core.lora", name="b")
    for name in "ab":
        adapted.activate(name)
        perturb(adapted.parameters(name))
    for names in (("a",), ("b",), ("b", "a"), ()):
        found = artifacts.export_merged(adapted, tmp_path / ("x" + "".join(names)), *names)
        other = build()
        other.load_state_dict(load_file(found.file))
        adapted.activate(*(names or ("b",)))
        assert _distance(other(ids), model(ids)) < 2e-6
        adapted.activate("b")
    assert adapted.names == ("a", "b")


def test_refusals_write_nothing(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, tmp_path: Path
) -> None:
    model = build().to(torch.bfloat16)
    adapted = peftx.attach(model, "core.lora", targets=["glob:*"])
    perturb(adapted.parameters())
    state = _copy(model)
    with pytest.raises(ArtifactError, match="tolerance"):
        artifacts.export_merged(adapted, tmp_path / "out", probe=ids, tolerance=1e-9)
    for form, message in (("onnx", "no form is called 'onnx'"), ("timm", "timm cannot make this")):
        with pytest.raises(ArtifactError, match=message):
            artifacts.export_merged(adapted, tmp_path / "out", form=form)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ArtifactError, match="nothing is overwritten"):
        artifacts.export_merged(adapted, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]
    assert _untouched(adapted, state, ("default",))
    assert (
        artifacts.export_merged(adapted, tmp_path / "new", form="torch", probe=ids, force=True).form
        == "torch"
    )


class Talkative(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None: ...


def test_state_that_is_no_tensor_is_refused_whole(tmp_path: Path) -> None:
    adapted = peftx.attach(nn.Sequential(Talkative(4, 4)), "core.full")
    with pytest.raises(ArtifactError, match="is no tensor"):
        artifacts.export_merged(adapted, tmp_path / "out")
    assert not list(tmp_path.iterdir())
