"""Adapters go to HF PEFT and come from there, with the `peft` package as the judge: equal outputs to 1e-5."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError

peft = pytest.importorskip("peft", reason="the peft package is the oracle here")

TOLERANCE = 1e-5


class Convs(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(6, 4, (1, 3), groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.line = nn.Conv1d(4, 5, 3, padding="same")
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.grouped(torch.relu(self.first(x)))).flatten(2)
        return self.head(self.line(x).mean(-1))


class Words(nn.Module):
    """A table, a packed attention, and names that are the ends of others."""

    peftx_head = "fc"

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8, padding_idx=0)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.block = nn.ModuleDict({"up": nn.Linear(8, 12), "sub": nn.ModuleDict({"up": nn.Linear(12, 8)})})
        self.up = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.attn(x, x, x)[0]
        x = x + self.block["sub"]["up"](torch.relu(self.block["up"](x)))
        return self.fc(self.up(x).mean(1))


def convs() -> tuple[nn.Module, tuple[Any, ...]]:
    return Convs(), (torch.randn(2, 4, 9, 8),)


def words() -> tuple[nn.Module, tuple[Any, ...]]:
    return Words(), (torch.randint(0, 11, (3, 6)),)


def vit() -> tuple[nn.Module, tuple[Any, ...]]:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=5)
    nn.init.normal_(model.head.weight, std=0.3)
    return model, (torch.randn(2, 3, 32, 32),)


def gpt2() -> tuple[nn.Module, tuple[Any, ...]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=23, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config), (torch.randint(0, 23, (2, 6)),)


def bert() -> tuple[nn.Module, tuple[Any, ...]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=23,
        num_labels=4,
    )
    return transformers.BertForSequenceClassification(config), (torch.randint(0, 23, (2, 6)),)


def whisper() -> tuple[nn.Module, tuple[Any, ...]]:
    transformers = pytest.importorskip("transformers")
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
    return model, (torch.randn(2, 8, 20), None, torch.randint(0, 31, (2, 5)))


FAMILIES = {f.__name__: f for f in (convs, words, vit, gpt2, bert, whisper)}


def build(family: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(3)
    model, inputs = FAMILIES[family]()
    return model.eval(), inputs


def logits(model: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    with torch.no_grad():
        if len(inputs) == 3:
            result = model(input_features=inputs[0], decoder_input_ids=inputs[2])
        else:
            result = (
                model(*inputs)
                if isinstance(inputs[0], Tensor) and inputs[0].is_floating_point()
                else model(inputs[0])
            )
    return result if isinstance(result, Tensor) else result.logits


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def theirs(family: str, folder: Path) -> nn.Module:
    """PEFT's reading of a folder, complaints included."""
    model, _ = build(family)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)  # missing keys, unknown settings
        warnings.filterwarnings("ignore", message="LoRA adapter added to ConvNd layer with groups")
        return peft.PeftModel.from_pretrained(model, folder).eval()


OPTIONS: dict[str, dict[str, Any]] = {
    "convs": {"targets": ["glob:*"], "exclude": ["head"]},
    "words": {"targets": ["glob:*"], "exclude": ["fc", "attn.out_proj"]},
    "vit": {},
    "gpt2": {"targets": ["attention", "mlp", "wte", "wpe"]},
    "bert": {},
    "whisper": {},
}


@pytest.mark.parametrize("method", ["core.lora", "core.rslora", "core.dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_reads_what_is_written(family: str, method: str, perturb: Any, tmp_path: Path) -> None:
    model, inputs = build(family)
    options = OPTIONS[family] | {"rank": 2, "alpha": 3.0, "rank_pattern": {r".*(1|up|v_proj|c_fc)": 3}}
    if method == "core.dora":  # PEFT has no DoRA for these
        more = {"convs": ["grouped"], "words": ["attn.in_proj"]}.get(family, [])
        options["exclude"] = [*options.get("exclude", []), *more]
    adapted = peftx.attach(model, method, **options)
    base = logits(build(family)[0], inputs)
    perturb(adapted.parameters())
    mine = logits(model, inputs)
    assert distance(mine, base) > 1e-2
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert artifacts.to_peft(adapted, tmp_path / "out") == tmp_path / "out"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    other = theirs(family, tmp_path / "out")
    assert distance(logits(other, inputs), mine) < TOLERANCE
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] and config["alpha_pattern"] == config["rank_pattern"]
    assert config["use_dora"] is (method == "core.dora") and not config["use_rslora"]
    assert config["fan_in_fan_out"] is (family == "gpt2")

    again, _ = build(family)
    if family == "convs" and method != "core.dora":
        with pytest.raises(ArtifactError, match="groups"):
            artifacts.from_peft(again, tmp_path / "out")
        return
    back = artifacts.from_peft(again, tmp_path / "out")
    assert distance(logits(again, inputs), mine) < TOLERANCE
    assert back.attachment().method_name == ("core.dora" if method == "core.dora" else "core.lora")


@pytest.mark.parametrize(
    "slices", [["attention.q"], ["attention.q", "attention.v"], ["attention.q", "attention.k", "attention.v"]]
)
@pytest.mark.parametrize("family", ["vit", "gpt2", "words"])
@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
def test_slices_become_one_block_structured_pair(
    family: str, method: str, slices: list[str], perturb: Any, tmp_path: Path
) -> None:
    if (family, method) == ("words", "core.dora"):
        pytest.skip("PEFT has no DoRA for packed attention")
    model, inputs = build(family)
    adapted = peftx.attach(model, method, targets=slices, rank=2, rank_pattern={r".*\[v\]": 3})
    perturb(adapted.parameters())
    artifacts.to_peft(adapted, tmp_path / "out")
    ranks = {len(slices) * 2 + ("attention.v" in slices)}
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {value.shape[0] for key, value in tensors.items() if key.endswith("lora_A.weight")} == ranks
    mine = logits(model, inputs)
    assert distance(logits(theirs(family, tmp_path / "out"), inputs), mine) < TOLERANCE
    again, _ = build(family)
    artifacts.from_peft(again, tmp_path / "out")
    assert distance(logits(again, inputs), mine) < TOLERANCE


@pytest.mark.parametrize("family", ["vit", "bert", "words", "whisper"])
def test_sparse_adapters_go_as_shira(family: str, perturb: Any, tmp_path: Path) -> None:
    model, inputs = build(family)
    targets = {"words": ["block.up", "up", "block.sub.up"]}.get(family)
    adapted = peftx.attach(model, "core.shira", rank=2, **({"targets": targets} if targets else {}))
    perturb(adapted.parameters())
    artifacts.to_peft(adapted, tmp_path / "out")
    mine = logits(model, inputs)
    assert distance(logits(theirs(family, tmp_path / "out"), inputs), mine) < TOLERANCE
    again, _ = build(family)
    back = artifacts.from_peft(again, tmp_path / "out")
    assert back.attachment().method_name == "core.shira"
    assert distance(logits(again, inputs), mine) < TOLERANCE
    for key, value in adapted.tensors().items():
        assert torch.equal(back.tensors()[key], value), key


def test_sparse_slices_and_uneven_counts_are_padded(perturb: Any, tmp_path: Path) -> None:
    model, inputs = build("vit")
    adapted = peftx.attach(model, "core.shira", rank=2, targets=["attention.q", "attention.v", "fc1"])
    perturb(adapted.parameters())
    artifacts.to_peft(adapted, tmp_path / "out")
    assert distance(logits(theirs("vit", tmp_path / "out"), inputs), logits(model, inputs)) < TOLERANCE


THEIR_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("core.lora", {}),
    "alpha": (
        "core.lora",
        {"lora_alpha": 5, "rank_pattern": {"fc1": 3, "up": 4}, "alpha_pattern": {r"blocks\.1\..*": 7}},
    ),
    "rslora": ("core.rslora", {"use_rslora": True, "lora_alpha": 4, "rank_pattern": {"qkv|query": 3}}),
    "dora": ("core.dora", {"use_dora": True, "lora_alpha": 3}),
    "rsdora": ("core.dora", {"use_dora": True, "use_rslora": True, "lora_alpha": 3}),
    "gaussian": ("core.lora", {"init_lora_weights": "gaussian", "lora_dropout": 0.1}),
}
THEIR_TARGETS: dict[str, dict[str, Any]] = {
    "convs": {"target_modules": ["first", "line"], "modules_to_save": ["head"]},
    "words": {"target_modules": ["table", "up"], "modules_to_save": ["fc"]},
    "vit": {"target_modules": ["qkv", "proj", "fc1", "fc2"], "modules_to_save": ["head", "norm"]},
    "gpt2": {"target_modules": ["c_attn", "c_fc", "wpe"], "fan_in_fan_out": True},
    "bert": {"target_modules": ["query", "value", "dense"], "modules_to_save": ["classifier"]},
    "whisper": {"target_modules": ["q_proj", "v_proj", "fc1"]},
}


def _their_folder(family: str, folder: Path, config: Any) -> Tensor:
    model, inputs = build(family)
    wrapped = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return logits(wrapped, inputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flavour", THEIR_CONFIGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_peft_wrote_is_read(family: str, flavour: str, tmp_path: Path) -> None:
    method, options = THEIR_CONFIGS[flavour]
    targets = copy.deepcopy(THEIR_TARGETS[family])
    wanted = _their_folder(
        family, tmp_path / "in", peft.LoraConfig(**({"r": 2, "lora_alpha": 2} | targets | options))
    )
    model, inputs = build(family)
    base = logits(model, inputs)
    adapted = artifacts.from_peft(model, tmp_path / "in", name="theirs")
    assert adapted.names == adapted.active == ("theirs",) and adapted.attachment().method_name == method
    assert distance(logits(model, inputs), wanted) < TOLERANCE
    assert distance(wanted, base) > 1e-3
    owned = {site.module for site in adapted.attachment().owned}
    assert {path.rpartition(".")[2] for path in owned} == set(
        targets.get("modules_to_save", ())
    ) or family == "vit"

    # it is an adapter like any other: saved, loaded, trained on, merged, and written back
    artifacts.save(adapted, tmp_path / "ours")
    twin, _ = build(family)
    artifacts.load(twin, tmp_path / "ours")
    assert torch.equal(logits(twin, inputs), logits(model, inputs))
    assert all(p.requires_grad for p in adapted.parameters())
    artifacts.to_peft(adapted, tmp_path / "back")
    assert distance(logits(theirs(family, tmp_path / "back"), inputs), wanted) < TOLERANCE
    artifacts.merge(adapted)
    assert distance(logits(model, inputs), wanted) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["vit", "bert", "words"])
def test_what_peft_wrote_as_shira_is_read(family: str, tmp_path: Path) -> None:
    targets = {
        "vit": {"target_modules": ["qkv", "fc1"], "modules_to_save": ["head"]},
        "bert": {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]},
        "words": {"target_modules": ["up"]},
    }[family]
    wanted = _their_folder(family, tmp_path / "in", peft.ShiraConfig(r=2, random_seed=5, **targets))
    model, inputs = build(family)
    adapted = artifacts.from_peft(model, tmp_path / "in")
    assert distance(logits(model, inputs), wanted) < TOLERANCE
    logits_now = model(*inputs) if family == "vit" else model(inputs[0])
    (logits_now if isinstance(logits_now, Tensor) else logits_now.logits).square().sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    artifacts.to_peft(adapted, tmp_path / "back")
    assert distance(logits(theirs(family, tmp_path / "back"), inputs), wanted) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
def test_packed_attention_is_read_where_its_meaning_is_certain(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["attn"])
    _their_folder("words", tmp_path / "both", config)
    model, inputs = build("words")
    with pytest.raises(ArtifactError, match="output projection of 'attn'"):
        artifacts.from_peft(model, tmp_path / "both")
    tensors = load_file(tmp_path / "both" / "adapter_model.safetensors")
    tensors["base_model.model.attn.base_layer.out_proj.lora_B.weight"].zero_()
    save_file(tensors, tmp_path / "both" / "adapter_model.safetensors")
    wanted = logits(peft.PeftModel.from_pretrained(build("words")[0], tmp_path / "both").eval(), inputs)
    artifacts.from_peft(model, tmp_path / "both")
    assert distance(logits(model, inputs), wanted) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
def test_peft_applies_an_output_projection_twice() -> None:
    """Why that is refused; when this fails, PEFT has been mended and the refusals can go."""
    model, inputs = build("words")
    wrapped = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(r=2, lora_alpha=2, target_modules=["attn"])
    )
    out = wrapped.eval().base_model.model.attn.base_layer.out_proj
    with torch.no_grad():
        out.lora_B["default"].weight.normal_()
        model.attn.out_proj.weight.add_(2 * out.lora_B["default"].weight @ out.lora_A["default"].weight)
    assert distance(logits(wrapped, inputs), logits(model, inputs)) < TOLERANCE


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "method", "options", "why"),
    [
        ("words", "core.lora", {"targets": ["attn.out_proj"]}, "output projection twice"),
        ("words", "core.dora", {"targets": ["attn.in_proj"]}, "one width for query"),
        ("convs", "core.dora", {"targets": ["grouped"]}, "no groups of channels"),
        ("vit", "core.head", {}, "adapts no weight"),
        ("vit", "core.bitfit", {}, "adapts no weight"),
        ("vit", "core.full", {}, "adapts no weight"),
        ("vit", "core.lora", {"also_train": ["cls_token"]}, "belongs to the model itself"),
        (
            "vit",
            "core.lora",
            {"targets": ["qkv"], "also_train": ["re:blocks.0.attn.qkv.bias"]},
            "is adapted and also",
        ),
        ("gpt2", "core.shira", {"targets": ["c_attn"]}, "nn.Linear alone"),
        ("words", "core.shira", {"targets": ["up", "fc"], "also_train": [], "rank": 3}, "entries of its"),
    ],
)
def test_what_peft_cannot_say_is_refused(
    family: str, method: str, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    model, _ = build(family)
    adapted = peftx.attach(model, method, **options)
    with pytest.raises(ArtifactError, match=why) as caught:
        artifacts.to_peft(adapted, tmp_path / "out")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_odd_convolutions_tables_and_numbers_are_refused(tmp_path: Path) -> None:
    for layer in (nn.Conv1d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")):
        adapted = peftx.attach(nn.Sequential(layer), "core.lora", targets=["0"], also_train=[])
        with pytest.raises(ArtifactError, match="dilation and padding mode"):
            artifacts.to_peft(adapted, tmp_path / "out")
    adapted = peftx.attach(
        nn.Sequential(nn.Embedding(5, 4, max_norm=1.0)), "core.lora", targets=["0"], also_train=[]
    )
    with pytest.raises(ArtifactError, match="length of rows"):
        artifacts.to_peft(adapted, tmp_path / "out")
    adapted = peftx.attach(nn.Sequential(nn.Linear(4, 4)), "core.lora", targets=["0"], also_train=[])
    with torch.no_grad():
        next(adapted.parameters()).fill_(float("nan"))
    with pytest.raises(ArtifactError, match="NaN"):
        artifacts.to_peft(adapted, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    adapted = peftx.attach(build("vit")[0], "core.lora")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for place in ("full", "file"):
        with pytest.raises(ArtifactError, match="nothing is overwritten"):
            artifacts.to_peft(adapted, tmp_path / place)
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifacts.to_peft(adapted, tmp_path / "file" / "below")
    artifacts.to_peft(adapted, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "full"]
    assert (tmp_path / "full" / "x").read_text() == "mine"
