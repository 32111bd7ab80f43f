"""vision/vtab1k: the nineteen tasks of VTAB-1k, and the two means that are both called its average.

Protocol: X. Zhai et al., arXiv:1910.04867, as M. Jia et al., "Visual Prompt Tuning", arXiv:2203.12119, carry it out:
hyperparameters are chosen on 800 images to train and 200 to validate, then all 1,000 are trained on and the last epoch
is scored on the test set once. Later recipes train with AdamW instead of SGD.

Published figures are copied as far as they could be verified. Where a source prints the scores of the tasks, the means
are ours; most of its rows are the best epoch by the test score, and pipelines differ between rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from peftx.config.suite import Published, PublishedAverage, Suite
from peftx_vision.suites.common import METHODS, PRINTED_ON, RATES, TRAIN, VIT_B
from peftx_vision.suites.printed import SOURCE, VTAB_SCORES
from peftx_vision.vtab import GROUPS, TASKS, group_means, means

__all__ = ["GROUPS_MEAN", "TASKS_MEAN", "VTAB1K", "averages"]

DATA = "vision.vtab"
#: What the two averages are called.
GROUPS_MEAN, TASKS_MEAN = "mean of 3 groups", "mean of 19 tasks"

_SNELL = "SNELL (arXiv:2411.01800), tables 1 and A7"
_PETL = "Binary adapters (arXiv:2307.16867), README"

#: Method, mean of the groups, mean of the tasks, natural, specialised, structured, source; None: not known.
_Row = tuple[str, float | None, float | None, float | None, float | None, float | None, str]
_AVERAGES: tuple[_Row, ...] = (
    ("LoRA-8", 74.9, 72.3, 79.5, 84.6, 60.5, _SNELL),
    ("MoSA", 71.4, 68.3, 79.9, 84.0, 50.3, _SNELL),
    ("SPT-LoRA", 76.4, 74.1, 81.9, 85.9, 61.3, _SNELL),
    ("SNELL-8", 76.4, 74.2, 82.0, 85.7, 61.6, _SNELL),
    ("SNELL-16", 76.7, 74.4, 82.4, 86.1, 61.7, _SNELL),
    ("SNELL-32", 76.9, 74.6, 82.7, 86.1, 61.8, _SNELL),
    ("Bi-AdaptFormer-32", 77.0, None, None, None, None, _PETL),
    ("Bi-LoRA-32", 76.7, None, None, None, None, _PETL),
)


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Return both averages of the nineteen scores (by the suite's labels), and the means of the groups.

    Raises:
        DataError: as `peftx_vision.vtab.means`.
    """
    own = {name.removeprefix(f"{DATA}:"): score for name, score in scores.items()}
    both = means(own)
    return {GROUPS_MEAN: both.group, TASKS_MEAN: both.task, **group_means(own)}


def _printed_averages() -> tuple[PublishedAverage, ...]:
    def printed(method: str, values: Mapping[str, float | None], source: str) -> PublishedAverage:
        known = {name: round(value, 2) for name, value in values.items() if value is not None}
        return PublishedAverage(method=method, values=known, source=source, model=PRINTED_ON)

    names = (GROUPS_MEAN, TASKS_MEAN, *GROUPS)
    return (
        *(
            printed(method, averages(dict(zip(TASKS, scores, strict=True))), SOURCE)
            for method, scores in VTAB_SCORES.items()
        ),
        *(
            printed(method, dict(zip(names, values, strict=True)), source)
            for method, *values, source in _AVERAGES
        ),
    )


VTAB1K = Suite(
    task="vision.classification",
    about=(
        "VTAB-1k: nineteen tasks of 1,000 training images. All 1,000 are trained on for 100 epochs, and the last epoch "
        "is scored on the test set, once; with --search lr the rate of every row and task is chosen before, on 800 of "
        "them by the other 200. Images are resized to the input, without augmentation, and normalised with the mean "
        "and deviation of ImageNet, as most published tables do. Two averages: the mean of the three groups, and the "
        "mean of the nineteen tasks, about two points lower."
    ),
    data=tuple({"name": f"{DATA}:{task}", "search": {"split": "tune"}} for task in TASKS),
    models=(VIT_B,),
    methods=METHODS,
    seeds=3,
    task_options={"resize": "squash", "normalise": "imagenet"},
    train=TRAIN,
    rates=RATES,
    published=tuple(
        Published(method=method, data=f"{DATA}:{task}", value=score, source=SOURCE, model=PRINTED_ON)
        for method, scores in VTAB_SCORES.items()
        for task, score in zip(TASKS, scores, strict=True)
    ),
    published_averages=_printed_averages(),
)
