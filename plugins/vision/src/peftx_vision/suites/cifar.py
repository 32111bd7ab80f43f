"""vision/cifar: CIFAR-10 and CIFAR-100, whole and with 1,000 training images."""

from __future__ import annotations

from peftx.config.suite import Suite
from peftx_vision.suites.common import METHODS, RATES, TRAIN, VIT_B

__all__ = ["CIFAR"]

#: A tenth of each official training set is held out for validation, 5,000 images. With 1,000 images the length is that
#: of VTAB-1k: 16 steps an epoch, 1,600 in all; with 45,000 it is 3,520 steps.
CIFAR = Suite(
    task="vision.classification",
    about=(
        "CIFAR-10 and CIFAR-100: 45,000 training images for 10 epochs, and 1,000 of them for 100. The epoch is chosen "
        "on 5,000 validation images held out of the official training set, more than 1,000 labels would leave in "
        "practice; test is the official 10,000. Images are enlarged to the network's input and flipped at random. "
        "No published rows: tables of CIFAR differ in network, augmentation and length."
    ),
    data=(
        {"name": "vision.cifar10", "train": {"epochs": 10, "batch_size": 128}},
        {"name": "vision.cifar100", "train": {"epochs": 10, "batch_size": 128}},
        {"name": "vision.cifar10", "limit_train": 1000},
        {"name": "vision.cifar100", "limit_train": 1000},
    ),
    models=(VIT_B,),
    methods=METHODS,
    seeds=3,
    task_options={"hflip": True},
    train=TRAIN,
    rates=RATES,
)
