"""The probe: how good are frozen features, measured by the simplest classifier.

Softmax regression (L-BFGS) on standardised pooled features. The L2 strength is one of three values, chosen by
cross-validation inside the training part; the test images are looked at once. Rows: raw pixels, the same network
at random initialisation (several seeds), and the pretrained one. Raw pixels stand in the table because a random
network is a weak opponent: on tiny, centred digits pixels are a very good feature.

    digits     scikit-learn's 1,797 scans; 100 labels (ten a class) drawn by a seed, 600 others to test; five draws
    cifar-jpeg 10,000 training and all 10,000 test images of a lossy copy of CIFAR-10

`python -m peftx_vision.pretrain.probe --json`
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from peftx.errors import DataError, UserError

from ..models.vit_micro import build_vit_micro
from .objective import normalise
from .probe_data import SHARED_DATA, Labelled, cifar_jpeg, digits, find_cifar_jpeg

# Weight of |w|^2 / 2 beside the mean loss of a sample. The grid is wide because pixels need the largest value and
# features the smallest. A random network gains almost three points on natural images from 1e-3 to 1e-4: a grid
# without 1e-4 would flatter pretraining.
L2 = (1e-4, 3e-3, 1e-1)
DIGITS_TEST = 600
FOLDS = 5
MOST_ITERATIONS = 300

Features = Callable[[Tensor], Tensor]  # images (N, 3, 32, 32) in [0, 1] -> (N, D)


@dataclass(frozen=True)
class Score:
    """Test accuracy in percent over `n` repeats (label draws x initialisations)."""

    row: str
    data: str
    mean: float
    spread: float  # standard deviation over the repeats, 0 when n = 1
    n: int


def pixels(images: Tensor) -> Tensor:
    """No network at all."""
    return images.flatten(1)


def features_of(model: VisionTransformer) -> Features:
    """Mean-pooled features, as the head would see them."""
    model = model.eval()

    def features(images: Tensor) -> Tensor:
        with torch.inference_mode():
            parts = [
                model.forward_head(model.forward_features(normalise(part)), pre_logits=True)
                for part in images.split(100)
            ]
        return torch.cat(parts)

    return features


def random_network(seed: int) -> VisionTransformer:
    """The opponent: the same architecture and initialisation, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_vit_micro(num_classes=0, pretrained=False)


def stored_network(weights: Path | None) -> VisionTransformer:
    """The shipped network, or the same one with the weights of another run."""
    if weights is None:
        return build_vit_micro(num_classes=0)
    model = build_vit_micro(num_classes=0, pretrained=False)
    model.load_state_dict(load_file(weights))
    return model


def probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], folds: int = FOLDS) -> float:
    """Accuracy in percent on `test`; `folds` is how many of the five validation folds are used."""
    x, y = train[0].numpy(), train[1].numpy()
    if folds == 0 or len(x) < 2 * FOLDS:
        raise DataError(
            f"the probe needs at least {2 * FOLDS} labelled images and one fold; got {len(x)} and {folds}"
        )
    splits = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))[:folds]
    validation = [
        statistics.fmean(_accuracy(x[kept], y[kept], x[held], y[held], l2) for kept, held in splits)
        for l2 in L2
    ]
    best = L2[int(np.argmax(validation))]
    return 100 * _accuracy(x, y, test[0].numpy(), test[1].numpy(), best)


def probe_digits(features: Features, draws: Sequence[int], labels: int = 100) -> list[float]:
    """One accuracy per draw of `labels` digits, the same number of each class."""
    data = digits()
    extracted = features(data.images)
    scores = []
    for draw in draws:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(draw))
        pool, held = order[:-DIGITS_TEST], order[-DIGITS_TEST:]
        chosen = torch.cat([pool[data.labels[pool] == digit][: labels // 10] for digit in range(10)])
        scores.append(probe((extracted[chosen], data.labels[chosen]), (extracted[held], data.labels[held])))
    return scores


def probe_cifar(features: Features, data: tuple[Labelled, Labelled]) -> list[float]:
    """The accuracy on the JPEG copies, as a list of one."""
    train, test = data
    # One fold of five: with 2,000 validation images more folds would only cost time.
    return [probe((features(train.images), train.labels), (features(test.images), test.labels), folds=1)]


def table(weights: Path | None, cifar: Path | None, draws: int = 5, inits: int = 3) -> list[Score]:
    """All rows; without `cifar` on digits only."""
    rows: list[tuple[str, list[Features]]] = [
        ("raw pixels", [pixels]),
        ("random initialisation", [features_of(random_network(seed)) for seed in range(inits)]),
        ("pretrained", [features_of(stored_network(weights))]),
    ]
    cifar_images = None if cifar is None else cifar_jpeg(cifar)
    scores = []
    for name, makers in rows:
        found = [score for maker in makers for score in probe_digits(maker, range(draws))]
        scores.append(_score(name, "digits, 100 labels", found))
        if cifar_images is not None:
            found = [score for maker in makers for score in probe_cifar(maker, cifar_images)]
            scores.append(_score(name, "cifar-jpeg, 10,000 labels", found))
    return scores


def _accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, l2: float) -> float:
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread < 1e-6, 1, spread)  # a pixel that never changes stays 0
    classifier = LogisticRegression(C=1 / (l2 * len(x)), max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings():
        # Three hundred iterations are the protocol, converged to the last digit or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit((x - mean) / spread, y)
    return float(classifier.score((x_test - mean) / spread, y_test))


def _score(row: str, data: str, found: list[float]) -> Score:
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    return Score(row, data, round(statistics.fmean(found), 2), round(spread, 2), len(found))


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m peftx_vision.pretrain.probe", description="Probe vit_micro."
    )
    parser.add_argument("--weights", type=Path, help="another run's weights instead of the shipped ones")
    parser.add_argument(
        "--cifar", type=Path, help=f"folder of the JPEG archives (${SHARED_DATA}/vision/cifar10)"
    )
    parser.add_argument("--draws", type=int, default=5, help="label draws of digits (%(default)s)")
    parser.add_argument("--inits", type=int, default=3, help="random initialisations (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    folder = find_cifar_jpeg(options.cifar)
    try:
        if options.cifar is not None and folder is None:
            raise DataError(f"{options.cifar} does not hold the two CIFAR-10 JPEG archives")
        if folder is None:
            print(f"no CIFAR-10 JPEG archives (set {SHARED_DATA} or --cifar): digits only", file=sys.stderr)
        scores = table(options.weights, folder, options.draws, options.inits)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(score) for score in scores], indent=2))
    else:
        for score in scores:
            print(f"{score.row:24}{score.data:28}{score.mean:6.1f} +- {score.spread:.1f}  (n = {score.n})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
