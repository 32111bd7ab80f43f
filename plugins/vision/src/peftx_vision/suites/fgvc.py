"""vision/fgvc: five sets of fine-grained classes with the splits of VPT, and their mean.

Protocol: M. Jia et al., "Visual Prompt Tuning", arXiv:2203.12119: training on ``train.json`` alone, hyperparameters and
the epoch chosen on ``val.json``, one score on ``test.json``. Published figures are copied as far as they could be
verified; many are the best epoch by the test score, and augmentation differs between rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from peftx.config.suite import Published, PublishedAverage, Suite
from peftx.errors import DataError
from peftx_vision.data.fgvc import SETS
from peftx_vision.suites.common import METHODS, PRINTED_ON, RATES, TRAIN, VIT_B
from peftx_vision.suites.printed import FGVC_SCORES, SOURCE

__all__ = ["FGVC", "MEAN", "averages"]

#: What the average is called.
MEAN = "mean of 5 sets"

_SNELL = "SNELL (arXiv:2411.01800), table 1"

#: Scores in the order of the sets, and means, of methods the table of `printed` has not.
_SNELL_SCORES = {
    "Adapter-8": (87.3, 84.3, 98.4, 88.8, 68.4),
    "MoSA": (89.3, 85.7, 99.2, 91.9, 83.4),
    "SNELL-32": (89.9, 87.0, 99.4, 92.0, 90.5),
}
_MEANS = (
    ("LoRA-8", 86.0, _SNELL),
    ("SPT-Adapter", 89.8, _SNELL),
    ("SPT-LoRA", 90.1, _SNELL),
    ("SNELL-8", 91.5, _SNELL),
    ("SNELL-16", 91.7, _SNELL),
    ("SNELLA-32", 91.9, "SNELLA (arXiv:2510.24037), abstract"),
)


def _rows() -> Iterator[tuple[str, tuple[float, ...], str]]:
    yield from ((method, scores, SOURCE) for method, scores in FGVC_SCORES.items())
    yield from ((method, scores, _SNELL) for method, scores in _SNELL_SCORES.items())


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of the five scores.

    Raises:
        DataError: there are not five.
    """
    if len(scores) != len(SETS):
        raise DataError(f"the average of FGVC takes all {len(SETS)} sets, got {len(scores)}")
    return {MEAN: sum(scores.values()) / len(scores)}


FGVC = Suite(
    task="vision.classification",
    about=(
        "FGVC: five sets of fine-grained classes in the splits of VPT, trained on the train lists alone for 100 "
        "epochs; the epoch, and with --search lr the rate, is chosen on the validation lists. Training images are "
        "scaled, shifted by up to 16 pixels and flipped, all are cropped in the centre and normalised with the mean "
        "and deviation of ImageNet. The average is the mean of the five."
    ),
    data=tuple(f"vision.fgvc:{name}" for name in SETS),
    models=(VIT_B,),
    methods=METHODS,
    seeds=3,
    task_options={"resize": "crop", "normalise": "imagenet", "hflip": True, "crop": 16},
    train=TRAIN,
    rates=RATES,
    published=tuple(
        Published(method=method, data=f"vision.fgvc:{name}", value=score, source=source, model=PRINTED_ON)
        for method, scores, source in _rows()
        for name, score in zip(SETS, scores, strict=True)
    ),
    published_averages=tuple(
        PublishedAverage(method=method, values={MEAN: value}, source=source, model=PRINTED_ON)
        for method, value, source in (
            *((method, round(sum(scores) / len(scores), 2), source) for method, scores, source in _rows()),
            *_MEANS,
        )
    ),
)
