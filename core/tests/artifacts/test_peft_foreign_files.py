"""PEFT folders from elsewhere: what would change the function, does not fit or is damaged is refused in one sentence.

None of it needs the `peft` package: the folders are our own, with one thing made wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError


def vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=5)
    nn.init.normal_(model.head.weight, std=0.3)
    return model.eval()


@pytest.fixture
def folder(perturb: Any, tmp_path: Path) -> Path:
    adapted = peftx.attach(vit(), "core.lora", rank=2)
    perturb(adapted.parameters())
    return artifacts.to_peft(adapted, tmp_path / "good")


def _refused(folder: Path, model: nn.Module | None = None) -> str:
    model = vit() if model is None else model
    before = hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).digest()
    classes, flags = [type(m) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    with pytest.raises(ArtifactError) as caught:
        artifacts.from_peft(model, folder)
    assert "\n" not in str(caught.value)
    assert (
        hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).digest() == before
    )
    assert [type(m) for m in model.modules()] == classes
    assert [p.requires_grad for p in model.parameters()] == flags
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "VERA"}, "VERA adapter"),
        ({"peft_type": ["LORA"]}, "LORA (with"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changed the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base"),
        ({"init_lora_weights": "olora"}, "changed the base"),
        ({"init_lora_weights": "loftq"}, "changed the base"),
        ({"init_lora_weights": {"a": 1}}, "changed the base"),
        ({"bias": "all"}, "'bias' to 'all'"),
        ({"bias": "lora_only"}, "'bias' to 'lora_only'"),
        ({"lora_bias": True}, "'lora_bias'"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication'"),
        ({"megatron_config": {"x": 1}}, "'megatron_config'"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices'"),
        ({"target_parameters": ["w"]}, "'target_parameters'"),
        ({"use_qalora": True}, "'use_qalora'"),
        ({"alora_invocation_tokens": [1]}, "'alora_invocation_tokens'"),
        ({"invented_next_year": True}, "'invented_next_year'"),
        ({"r": 3}, "expected (3, 192)"),
        ({"r": 0}, "sets r to '0'"),
        ({"r": True}, "sets r to"),
        ({"lora_alpha": -1}, "sets lora_alpha"),
        ({"lora_alpha": "16"}, "sets lora_alpha"),
        ({"rank_pattern": {"(": 1}}, "not a regular expression"),
        ({"rank_pattern": [1]}, "expected a table"),
        ({"use_dora": True}, "lacks m of"),
        ({"use_rslora": "yes"}, "expected true or false"),
        ({"lora_dropout": 2}, "lora_dropout"),
        ({"modules_to_save": None}, "no module of modules_to_save"),
        ({"modules_to_save": "head"}, "no list of names"),
    ],
)
def test_settings_that_change_the_function(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert message in _refused(folder)


def test_settings_that_say_nothing_are_let_through(folder: Path) -> None:
    path = folder / "adapter_config.json"
    more = {"invented_next_year": None, "another": False, "third": [], "fourth": {}, "task_type": "SEQ_CLS"}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    artifacts.from_peft(vit(), folder)


def _change(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


B = "base_model.model.blocks.0.attn.qkv.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(B), "lacks B of blocks.0.attn.qkv"),
        (lambda t: t.update({B: t[B][:-1].clone()}), "expected (576, 2)"),
        (lambda t: t.update({B: t[B].long()}), "expected floating-point"),
        (lambda t: t[B].fill_(float("nan")), "NaN or Inf"),
        (lambda t: t.update({B.replace("lora_B", "lora_C"): t[B].clone()}), "meaning is not known"),
        (lambda t: t.update({B.replace("qkv", "qvk"): t.pop(B)}), "Did you mean"),
        (lambda t: t.update({"stray": t[B].clone()}), "does not begin with"),
        (
            lambda t: t.update({"base_model.model.norm.weight": torch.zeros(192)}),
            "no module of modules_to_save",
        ),
        (lambda t: t.update({"base_model.model.head.extra": torch.zeros(2)}), "no parameter of this model"),
        (lambda t: t.update({"base_model.model.head.bias": torch.zeros(7)}), "same number of classes"),
        (lambda t: [t.pop(k) for k in list(t) if "lora" in k], "no adapted weight"),
    ],
)
def test_tensors_that_do_not_fit(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    assert message in _refused(_change(folder, change))


def test_files_that_are_not_what_they_say(folder: Path, tmp_path: Path) -> None:
    assert "no adapter of PEFT" in _refused(tmp_path)
    assert "no adapter of PEFT" in _refused(tmp_path / "gone")
    whole = (folder / "adapter_model.safetensors").read_bytes()
    torch.save({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")
    assert "it is a pickle" in _refused(folder)
    (folder / "adapter_model.safetensors").write_bytes(whole[:-3])
    assert "not a safetensors file" in _refused(folder)
    (folder / "adapter_model.safetensors").unlink()
    assert "there is no file" in _refused(folder)
    torch.save({"a": torch.zeros(2)}, folder / "adapter_model.bin")
    assert "save it again with safe_serialization=True" in _refused(folder)
    (folder / "adapter_config.json").write_text('{"r": 1, "r": 2}')
    assert "save it again" in _refused(folder)
    (folder / "adapter_model.safetensors").write_bytes(whole)
    assert "stands twice" in _refused(folder)
    (folder / "adapter_config.json").write_text("[" * 10_000)
    assert "not valid JSON" in _refused(folder)
    (folder / "adapter_config.json").write_text("[]")
    assert "not an adapter's configuration" in _refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.neg_(), "outside its"),
        (lambda i: i[1].fill_(10**6), "outside its"),
        (lambda i: i[:, 1].copy_(i[:, 0]), "twice"),
    ],
)
def test_sparse_indices_that_point_elsewhere(
    change: Callable[[Tensor], Any], message: str, tmp_path: Path
) -> None:
    adapted = peftx.attach(vit(), "core.shira", rank=1, targets=["fc1"])
    folder = artifacts.to_peft(adapted, tmp_path / "out")
    key = "base_model.model.blocks.0.mlp.fc1.shira_indices"
    assert message in _refused(_change(folder, lambda tensors: change(tensors[key])))


def test_a_refusal_leaves_other_adapters_active(folder: Path) -> None:
    model, inputs = vit(), (torch.randn(2, 3, 32, 32),)
    adapted = peftx.attach(model, "core.bitfit", name="one")
    before = model(*inputs)
    for change in (lambda t: t.pop(B), lambda t: None):
        _change(folder, change)
        with pytest.raises(Exception, match=r"lacks B|attached already"):
            artifacts.from_peft(model, folder, name="one")
    assert adapted.names == adapted.active == ("one",) and torch.equal(model(*inputs), before)
