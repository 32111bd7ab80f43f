"""A batch norm in front of a classifier, as part of an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.insert import Insert, main_input, with_input
from peftx.adapters.roles import head_of
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import parameter_sites
from peftx.errors import SelectionError

__all__ = ["HeadNorm", "heads"]

_EPS = 1e-6
_COUNTER = 8  # bytes of the number of batches


class HeadNorm(Insert):
    """``head(n(x))`` with n a batch norm without weights over all but the last dimension of x (B, ..., d).

    It has nothing to train: in training it uses mean and variance of the batch and moves its running ones (momentum
    0.1, from 0 and 1), which it uses in evaluation. They belong to the adapter. A batch of one value a feature has no
    variance; it goes by the running statistics in training as well, and does not move them.
    """

    read = write = "input"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        dtype = self.parameter_dtype(site.dtype)
        self.norm = nn.BatchNorm1d(site.shape[0], eps=_EPS, affine=False, dtype=dtype)

    @classmethod
    def buffer_bytes(cls, site: Site) -> int:
        """Mean, variance, and the number of batches."""
        return 2 * site.shape[0] * cls.parameter_dtype(site.dtype).itemsize + _COUNTER

    def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        x = main_input(args, kwargs)
        args, kwargs = with_input(args, kwargs, self._normed(x))
        return call(*args, **kwargs)

    def _normed(self, x: Tensor) -> Tensor:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        rows = x.reshape(-1, x.shape[-1]).to(mean.dtype)
        alone = self.training and rows.shape[0] == 1
        made = F.batch_norm(rows, mean, variance, eps=_EPS) if alone else self.norm(rows)
        return made.view(x.shape).to(x.dtype)


def heads(model: nn.Module) -> SitePlan:
    """A site of kind ``activation`` and role ``head`` for the linear layer of every head, with the width it reads.

    Raises:
        SelectionError: the model has no head, or one that is more, or something else, than a linear layer.
    """
    paths = head_of(model)
    if not paths:
        raise SelectionError(
            f"this {type(model).__name__} has no head, so there is nothing to put a batch norm in front of; set "
            "head_norm to none, or build the model with classes"
        )
    layers = [site for site in parameter_sites(model) if site.weight == "weight" and site.kind != "norm"]
    found = []
    for path in paths:
        own = [site for site in layers if f"{site.module}.".startswith(f"{path}.")]
        if len(own) != 1 or own[0].kind != "linear" or not own[0].product:
            what = (
                f"has {len(own)} layers"
                if len(own) != 1
                else f"is a {type(model.get_submodule(path)).__name__}"
            )
            raise SelectionError(
                f"the head {path} {what}, and a batch norm is put in front of one linear layer; set head_norm to none, "
                "or build the model with a head that has the norm in it"
            )
        site = own[0]
        found.append(
            replace(
                site,
                key=site.module,
                kind="activation",
                role="head",
                shape=(site.shape[1],),
                weight="",
                bias=None,
                product=False,
            )
        )
    return SitePlan(tuple(found))
