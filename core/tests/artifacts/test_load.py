"""Every way a saved adapter can be wrong is one sentence, and the model stays as it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError, ConfigError, UnknownNameError, UserError


@pytest.fixture
def folder(build: Callable[..., nn.Module], perturb: Any, tmp_path: Path) -> Path:
    adapted = peftx.attach(build(), "core.lora", rank=2)
    perturb(adapted.parameters())
    return artifacts.save(adapted, tmp_path / "adapter")


@pytest.fixture
def refused(build: Callable[..., nn.Module], ids: Tensor) -> Callable[..., str]:
    """Load, expect a user's error, and check that nothing happened to the model."""

    def check(
        folder: Path, model: nn.Module | None = None, error: type = ArtifactError, **options: Any
    ) -> str:
        model = build() if model is None else model
        state = {key: value.clone() for key, value in model.state_dict().items()}
        classes, flags = [type(m) for m in model.modules()], [p.requires_grad for p in model.parameters()]
        output = model(ids)
        with pytest.raises(error) as caught:
            artifacts.load(model, folder, **options)
        assert isinstance(caught.value, UserError)
        after = model.state_dict()
        assert list(after) == list(state) and all(torch.equal(after[k], v) for k, v in state.items())
        assert [type(m) for m in model.modules()] == classes
        assert [p.requires_grad for p in model.parameters()] == flags
        assert torch.equal(model(ids), output)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return check


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tensors(folder: Path, payload: bytes) -> None:
    """Replace the tensor file, and make the manifest agree, as somebody who means harm would."""
    (folder / "adapter.safetensors").write_bytes(payload)
    _edit(folder, tensor_file_sha256=hashlib.sha256(payload).hexdigest())


def test_missing_files(folder: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "holds no adapter.json" in refused(tmp_path)
    assert "holds no adapter.json" in refused(tmp_path / "nowhere")
    (folder / "adapter.safetensors").unlink()
    assert "holds no adapter.safetensors" in refused(folder)


def test_damaged_tensor_files(folder: Path, refused: Callable[..., str]) -> None:
    whole = (folder / "adapter.safetensors").read_bytes()
    (folder / "adapter.safetensors").write_bytes(whole[:-5])
    assert "not a safetensors file" in refused(folder)
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    (folder / "adapter.safetensors").write_bytes(flipped)
    assert "SHA-256 differs" in refused(folder)
    for payload in (whole[:-5], whole[:4], b"", b"\xff" * 64, (2**60).to_bytes(8, "little") + whole[8:]):
        _tensors(folder, payload)
        assert "not a safetensors file" in refused(folder)


def test_a_pickle_is_never_opened(folder: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    for payload in (Bomb(), {"a": Bomb()}):
        file = io.BytesIO()
        torch.save(payload, file)
        _tensors(folder, file.getvalue())
        assert "it is a pickle" in refused(folder)
    import pickle

    for protocol in range(2, 6):
        _tensors(folder, pickle.dumps(Bomb(), protocol))
        assert "it is a pickle" in refused(folder)
    assert not (tmp_path / "exploded").exists()


def test_other_tensors_than_the_manifest_lists(folder: Path, refused: Callable[..., str]) -> None:
    good = load_file(folder / "adapter.safetensors")
    first = sorted(good)[0]
    _tensors(folder, save({k: v for k, v in good.items() if k != first}))
    assert f"lacks {first}" in refused(folder)
    _tensors(folder, save(good | {"extra": torch.zeros(1)}))
    assert "also holds extra" in refused(folder)
    _tensors(folder, save(good | {first: good[first][:1].clone()}))
    assert first in refused(folder)
    _tensors(folder, save(good | {first: good[first].double()}))
    assert "float64" in refused(folder)


def test_a_manifest_that_agrees_with_wrong_tensors(folder: Path, refused: Callable[..., str]) -> None:
    good = load_file(folder / "adapter.safetensors")
    records = json.loads((folder / "adapter.json").read_text())["tensors"]
    record = next(r for r in records if r["slot"] == "A")
    key = f"{record['site']}::A"
    _tensors(folder, save(good | {key: torch.zeros(3, 8)}))
    _edit(folder, tensors=[r | {"shape": [3, 8]} if r is record else r for r in records])
    assert "expected (2, 8) here" in refused(folder)
    _tensors(folder, save({k: v for k, v in good.items() if k != key}))
    _edit(folder, tensors=[r for r in records if r is not record])
    assert "another version" in refused(folder)
    _tensors(folder, save(good))
    _edit(folder, tensors=[r | {"alias": "nowhere::A"} if r is record else r for r in records])
    assert "partial adapters are not loaded" in refused(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not an adapter's manifest"),
        ("null", "not an adapter's manifest"),
        ("{}", "not an adapter's manifest"),
        ('{"format": "other"}', "not an adapter's manifest"),
        ('{"version": 99}', "format version 99"),
        ('{"format": "peftx-adapter", "format": "peftx-adapter"}', "stands twice"),
        ('{"version": 1' + "0" * 5000 + "}", "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
        ('{"version": NaN}', "NaN is no number of JSON"),
        ('{"version": Infinity}', "no number of JSON"),
    ],
)
def test_garbage_for_a_manifest(folder: Path, refused: Callable[..., str], text: str, message: str) -> None:
    (folder / "adapter.json").write_text(text)
    assert message in refused(folder)


def test_bytes_that_are_no_text(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "adapter.json").write_bytes(b"\xff\xfe\x00{")
    assert "not valid JSON" in refused(folder)


def test_manifest_fields(folder: Path, refused: Callable[..., str]) -> None:
    original = (folder / "adapter.json").read_text()

    def with_(**changes: Any) -> Path:
        (folder / "adapter.json").write_text(original)
        _edit(folder, **changes)
        return folder

    assert "surprise" in refused(with_(surprise=1))
    assert "upgrade peftx" in refused(with_(version=3))
    assert "sites" in refused(with_(sites="all"))
    config = json.loads(original)["config"]
    assert "rank" in refused(with_(config=config | {"rank": 0}), error=ConfigError)
    assert "speed" in refused(with_(config=config | {"speed": 1}), error=ConfigError)
    assert "core.lorra" in refused(with_(method="core.lorra"), error=UnknownNameError)
    assert "Did you mean core.lora" in refused(with_(method="core.lorra"), error=UnknownNameError)
    assert "tensor_file_sha256" in refused(with_(tensor_file_sha256="/../../../etc/hosts"))
    assert "tensor_file_sha256" in refused(with_(tensor_file_sha256="0" * 64 + "\n"))
    tensors, sites = json.loads(original)["tensors"], json.loads(original)["sites"]
    assert "stands twice" in refused(with_(tensors=[*tensors, tensors[0]]))
    assert "stands twice" in refused(with_(sites=[*sites, sites[0]]))
    assert "shape" in refused(with_(tensors=[tensors[0] | {"shape": [-1, 2]}, *tensors[1:]]))
    assert "shape" in refused(with_(tensors=[tensors[0] | {"shape": [10**40]}, *tensors[1:]]))
    refused(with_(method="os:system"), error=UserError)
    assert "expected (4, 8) here" in refused(with_(config=config | {"rank": 4}))


def test_a_manifest_too_large_to_be_one(folder: Path, refused: Callable[..., str]) -> None:
    with (folder / "adapter.json").open("ab") as file:
        file.truncate(16 * 1024**2 + 1)
    assert "far more than a manifest" in refused(folder)


def test_what_cannot_be_opened_is_one_sentence(
    folder: Path, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be read" in refused(tmp_path / ("x" * 300))
    manifest, tensors = folder / "adapter.json", folder / "adapter.safetensors"

    original = Path.open
    for path in (manifest, tensors):

        def opened(self: Path, *args: Any, path: Path = path, **kwargs: Any) -> Any:
            if self == path:
                raise PermissionError(13, "Permission denied")
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            assert f"{path} cannot be read (Permission denied)" in refused(folder)
    tensors.unlink()
    tensors.mkdir()
    assert "holds no adapter.safetensors" in refused(folder)
    manifest.unlink()
    manifest.symlink_to(manifest)
    assert "holds no adapter.json" in refused(folder)


def test_another_base(folder: Path, build: Callable[..., nn.Module], refused: Callable[..., str]) -> None:
    assert "other parameters" in refused(folder, build(blocks=2))
    assert "head" in refused(folder, build(classes=4))
    assert "attn" in refused(folder, build(width=16))
    model = build()
    with torch.no_grad():
        model.blocks[0].weight.mul_(1.01)
    assert "other base weights" in refused(folder, model)
    assert "in another dtype" in refused(folder, build().double())
    assert artifacts.load(model, folder, check_base="structure").names == ("default",)


def test_without_a_check_anything_that_fits_goes(folder: Path, build: Callable[..., nn.Module]) -> None:
    assert artifacts.load(build(blocks=2), folder, check_base="off").names == ("default",)


def test_a_new_head_is_no_other_base(folder: Path, build: Callable[..., nn.Module], ids: Tensor) -> None:
    model, other = build(), build()
    artifacts.load(model, folder)
    with torch.no_grad():
        other.head.weight.normal_()  # a head is drawn anew in every process; the adapter brings its own
    artifacts.load(other, folder)
    assert torch.equal(model(ids), other(ids))


def test_a_model_that_is_adapted_already_is_the_same_base(
    folder: Path, build: Callable[..., nn.Module]
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.full", name="other")
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(1.0)
    assert artifacts.load(model, folder, name="new").names == ("other", "new")


def test_a_failure_leaves_other_adapters_active(
    folder: Path, build: Callable[..., nn.Module], ids: Tensor
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.bitfit", name="one").attach("core.head", name="two")
    adapted.activate("one", "two")
    good = load_file(folder / "adapter.safetensors")
    records = json.loads((folder / "adapter.json").read_text())["tensors"]
    record = next(r for r in records if r["slot"] == "A")
    _tensors(folder, save(good | {f"{record['site']}::A": torch.zeros(3, 8)}))
    _edit(folder, tensors=[r | {"shape": [3, 8]} if r is record else r for r in records])
    before = model(ids)
    with pytest.raises(ArtifactError):
        artifacts.load(model, folder, name="three")
    assert adapted.names == adapted.active == ("one", "two")
    assert torch.equal(model(ids), before)


def test_a_model_without_the_places_is_told_which_adapter_it_was(tmp_path: Path) -> None:
    adapted = peftx.attach(nn.Sequential(nn.Linear(3, 3)), "core.lora", targets=["0"], also_train=[])
    artifacts.save(adapted, tmp_path)
    with pytest.raises(
        ArtifactError, match=rf"{tmp_path} was trained on a .*Sequential .*this Linear: nothing"
    ):
        artifacts.load(nn.Linear(3, 3), tmp_path)
