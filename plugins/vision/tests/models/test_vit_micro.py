"""The shipped network: its size, its weights and their checksum, and what generic code may read from it."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from peftx.errors import ModelError
from peftx_vision.models.vit_micro import (
    CARD_NAME,
    WEIGHTS_NAME,
    build_vit_micro,
    read_weights,
    sincos_positions,
)

WEIGHTS = resources.files("peftx_vision") / "weights"


@pytest.fixture
def copied_weights(tmp_path: Path) -> Path:
    for name in (WEIGHTS_NAME, CARD_NAME):
        (tmp_path / name).write_bytes(WEIGHTS.joinpath(name).read_bytes())
    return tmp_path


def test_it_is_timms_own_class_with_808_thousand_parameters() -> None:
    model = build_vit_micro(num_classes=0, pretrained=False)
    assert type(model) is VisionTransformer
    assert sum(p.numel() for p in model.parameters()) == 807_808


def test_shapes() -> None:
    model = build_vit_micro(num_classes=7, pretrained=False).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert model.forward_features(images).shape == (2, 64, 128)
        assert model(images).shape == (2, 7)


def test_what_generic_code_reads() -> None:
    model = build_vit_micro(num_classes=3, pretrained=False)
    for card in (model.default_cfg, model.pretrained_cfg):
        assert card["classifier"] == "head"
        assert card["input_size"] == (3, 32, 32)
        assert card["mean"] == card["std"] == (0.5, 0.5, 0.5)
    assert model.get_classifier() is model.head


def test_the_weights_file_is_small_and_matches_its_card() -> None:
    blob = WEIGHTS.joinpath(WEIGHTS_NAME).read_bytes()
    card = json.loads(WEIGHTS.joinpath(CARD_NAME).read_text())
    assert len(blob) < 4_000_000
    assert hashlib.sha256(blob).hexdigest() == card["sha256"]
    assert card["licence"] == "Apache-2.0"


def test_pretrained_loads_the_whole_trunk_and_a_fresh_head() -> None:
    stored = read_weights(WEIGHTS)
    torch.manual_seed(0)
    first = build_vit_micro(num_classes=10).state_dict()
    torch.manual_seed(1)
    second = build_vit_micro(num_classes=10).state_dict()
    assert stored.keys() == {name for name in first if not name.startswith("head.")}
    for name, value in stored.items():
        assert value.dtype == torch.float32
        assert torch.equal(first[name], value) and torch.equal(second[name], value)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert first["head.weight"].std() == pytest.approx(0.02, rel=0.2)
    assert not first["head.bias"].any()


def test_a_seed_fixes_the_random_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_vit_micro(num_classes=4, pretrained=False).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_positions_are_told_apart_and_stay_fixed_in_pretraining() -> None:
    positions = sincos_positions(8, 128)
    assert positions.shape == (1, 64, 128)
    assert torch.cdist(positions[0], positions[0]).fill_diagonal_(1.0).min() > 0.1
    assert torch.equal(read_weights(WEIGHTS)["pos_embed"], positions)


def test_tampered_weights_are_refused(copied_weights: Path) -> None:
    blob = bytearray((copied_weights / WEIGHTS_NAME).read_bytes())
    blob[-1] ^= 1
    (copied_weights / WEIGHTS_NAME).write_bytes(blob)
    with pytest.raises(ModelError, match="damaged or replaced"):
        read_weights(copied_weights)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME])
def test_missing_files_are_named(copied_weights: Path, name: str) -> None:
    (copied_weights / name).unlink()
    with pytest.raises(ModelError, match="pretrained=False"):
        read_weights(copied_weights)
