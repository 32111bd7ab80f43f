"""The probe, and what the shipped weights reach on it."""

import pytest
import torch

from peftx.errors import DataError
from peftx_vision.models.vit_micro import build_vit_micro
from peftx_vision.pretrain.probe import features_of, probe, probe_cifar, probe_digits, random_network
from peftx_vision.pretrain.probe_data import SHARED_DATA, cifar_jpeg, digits, find_cifar_jpeg


def test_separable_features_are_told_apart() -> None:
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels] + 0.01 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    assert probe((features[:30], labels[:30]), (features[30:], labels[30:])) == 100


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(DataError, match="at least 10"):
        probe((torch.zeros(4, 2), torch.zeros(4)), (torch.zeros(1, 2), torch.zeros(1)))


def test_digits_are_digits() -> None:
    data = digits()
    assert data.images.shape == (1797, 3, 32, 32) and data.labels.unique().tolist() == list(range(10))
    assert data.images.min() == 0 and data.images.max() <= 1


def test_pretraining_helps_on_digits() -> None:
    draws = range(3)
    trained = probe_digits(features_of(build_vit_micro(num_classes=0)), draws)
    random = probe_digits(features_of(random_network(seed=0)), draws)
    assert sum(trained) / 3 >= sum(random) / 3 + 6


@pytest.mark.slow
@pytest.mark.skipif(
    find_cifar_jpeg() is None, reason=f"{SHARED_DATA} does not lead to the CIFAR-10 JPEG archives"
)
def test_pretraining_helps_on_cifar_jpeg() -> None:
    folder = find_cifar_jpeg()
    assert folder is not None
    # a small part of the probe in docs/models/vit_micro.md, which takes minutes
    train, test = cifar_jpeg(folder, train_per_class=100)
    data = train, test[torch.arange(0, len(test), 10)]
    trained = probe_cifar(features_of(build_vit_micro(num_classes=0)), data)
    random = probe_cifar(features_of(random_network(seed=0)), data)
    assert trained[0] >= random[0] + 5
