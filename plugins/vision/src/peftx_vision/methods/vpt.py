"""VPT: trained tokens among the tokens of the image, in front of the first block or of every block."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.delta import Delta
from peftx.adapters.host import base_class
from peftx.adapters.insert import Insert, main_input, main_output, with_input, with_output
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import in_model_order, weight_sites
from peftx.errors import AdapterError, ConfigError, SelectionError
from peftx_vision.config.vpt import VPTConfig

__all__ = ["PromptInsert", "PromptSite", "VPTDeep", "VPTShallow"]

#: blocks that map (B, tokens, width) to the same shape, any number of tokens, each attending to all, places unknown
_BLOCKS = re.compile(
    r"timm\.models\.vision_transformer\.(Block|ResPostBlock|(Diff)?ParallelScalingBlock|ParallelThingsBlock)"
    r"|torchvision\.models\.vision_transformer\.EncoderBlock"
    r"|transformers\.models\.vit\.modeling_vit\.ViTLayer"
    r"|transformers\.models\.deit\.modeling_deit\.DeiTLayer"
)


@dataclass(frozen=True, slots=True)
class PromptSite(Site):
    """A block, with what happens to prompts there."""

    #: inputs of the patch embedding, 3 P_h P_w for colour images
    fan: int = 0
    #: prompts are put in front of this block, and taken away behind it
    enters: bool = True
    leaves: bool = True


class PromptInsert(Insert):
    r"""``Z = Block([x; drop(P)])``, without the prompts' rows of Z (deep), or with them up to the last block (shallow).

    P is (p, d), the same for all images; x is (B, n, d), and what the block sees is (B, n + p, d). Prompts have no
    positional code. With a projection P = P' W^T + c, P' (p, m), with W (d, m) and c (d,) in the bank.

    In the deep form every block has prompts of its own, and their outputs are dropped behind it. In the shallow form
    the first block's insert puts them in and the last one's, which trains nothing, takes them away. What follows, the
    norm and any pooling, sees the tokens of the base model alone. Where they stand is nothing a block can tell: those
    that travel stand behind the class token, those of one block at the end, so that the two forms do not mix up.

    Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119.

    Raises:
        AdapterError: the block is called with a second tensor, which may be a mask or positions of its tokens.
    """

    def __init__(
        self,
        site: Site,
        config: VPTConfig,
        weight: Tensor,
        bias: Tensor | None,
        bank: nn.Module | None = None,
    ) -> None:
        super().__init__(site, bank)
        assert isinstance(site, PromptSite)
        self.count, self.dropout, self.leaves = config.prompts, config.dropout, site.leaves
        self.travels = not (site.enters and site.leaves)
        self.prompts: nn.Parameter | None = None
        if site.enters:
            width = config.project or site.shape[0]
            values = torch.empty(self.count, width, dtype=self.parameter_dtype(site.dtype))
            bound = math.sqrt(6 / (site.fan + width))
            self.prompts = nn.Parameter(values.uniform_(-bound, bound))

    @staticmethod
    def param_count(site: Site, config: VPTConfig) -> int:
        """p d, or p m with a projection, where prompts enter."""
        enters = isinstance(site, PromptSite) and site.enters
        return config.prompts * (config.project or site.shape[0]) if enters else 0

    def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self.count:
            return call(*args, **kwargs)
        if sum(isinstance(value, Tensor) for value in (*args, *kwargs.values())) > 1:
            raise AdapterError(
                f"{self.site.key} was called with a tensor beside its tokens, a mask or positions, say, which has no "
                "place for prompts; run the model without it"
            )
        if self.prompts is not None:
            args, kwargs = with_input(args, kwargs, self._joined(main_input(args, kwargs)))
        result = call(*args, **kwargs)
        if not self.leaves:
            return result
        y = main_output(result)
        rest = torch.cat((y[:, :1], y[:, 1 + self.count :]), 1) if self.travels else y[:, : -self.count]
        return with_output(result, rest)

    def _joined(self, x: Tensor) -> Tensor:
        rows = self._rows(x)
        return torch.cat((x[:, :1], rows, x[:, 1:]) if self.travels else (x, rows), 1)

    def _rows(self, x: Tensor) -> Tensor:
        projection: Any = self.bank
        prompts = self.prompts if projection is None else projection(self.prompts)
        assert prompts is not None
        rows = prompts.to(x.dtype).expand(x.shape[0], -1, -1)
        return F.dropout(rows, self.dropout, self.training) if self.dropout else rows


class VPTDeep(AdapterMethod):
    """`vision.vpt_deep`."""

    Config: ClassVar[type[VPTConfig]] = VPTConfig
    Delta: ClassVar[type[PromptInsert]] = PromptInsert
    kinds = ("activation",)
    fallbacks = ()
    keeps_input = False
    starts_as = "shifted"

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        """The blocks of the targets.

        Raises:
            SelectionError: there is none, or one of them is no block that takes more tokens.
        """
        found = super().plan(model, config)
        for site in found:
            cls = base_class(model.get_submodule(site.module))
            if not _BLOCKS.fullmatch(f"{cls.__module__}.{cls.__qualname__}"):
                raise SelectionError(
                    "prompts need blocks in which every token attends to every other, wherever they stand, as those of "
                    f"a ViT or DeiT; {site.key}, of class {cls.__name__}, is not known to be one"
                )
        fans = [s.matrix[1] for s in weight_sites(model) if s.role == "embedding.patch" and not s.part]
        return SitePlan(tuple(self._marked(in_model_order(model, found), fans[0] if fans else 0)))

    def _marked(self, blocks: list[Site], fan: int) -> list[Site]:
        return [_prompted(block, fan) for block in blocks]

    def check(self, plan: SitePlan, config: Any) -> None:
        widths = {site.shape[0] for site in plan}
        if config.project and len(widths) > 1:
            raise ConfigError(
                f"one projection cannot serve blocks of widths {', '.join(map(str, sorted(widths)))}: set project to 0 "
                "or target blocks of one width"
            )

    def bank(self, plan: SitePlan, config: Any) -> nn.Module | None:
        if not config.project:
            return None
        first = plan.sites[0]
        projection = nn.Linear(config.project, first.shape[0], dtype=Delta.parameter_dtype(first.dtype))
        nn.init.kaiming_normal_(projection.weight, mode="fan_out")
        return projection

    def bank_count(self, plan: SitePlan, config: Any) -> int:
        """m d + d."""
        return (config.project + 1) * plan.sites[0].shape[0] if config.project else 0

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "p d a block" if not config.project else "p m a block, and m d + d once"


class VPTShallow(VPTDeep):
    """`vision.vpt_shallow`."""

    #: samples of different adapters have different numbers of tokens between the first block and the last
    known_failures: ClassVar[dict[Any, str]] = {
        (
            "mixing",
            "timm_vit",
        ): "the prompts travel with the tokens, so samples with and without them make no one batch"
    }

    def _marked(self, blocks: list[Site], fan: int) -> list[Site]:
        """The first block and the last.

        Raises:
            SelectionError: they are not of one stack, so something else may come between.
        """
        first, last = blocks[0], blocks[-1]
        stacks = sorted({block.module.rpartition(".")[0] for block in blocks})
        if len(stacks) > 1:
            raise SelectionError(
                f"shallow prompts run through blocks of one stack, and these are of {' and '.join(stacks[:2])}; target "
                "one of them, or use vision.vpt_deep"
            )
        if first is last:
            return [_prompted(first, fan)]
        return [_prompted(first, fan, leaves=False), _prompted(last, fan, enters=False)]

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "p d" if not config.project else "p m + m d + d"


def _prompted(block: Site, fan: int, *, enters: bool = True, leaves: bool = True) -> PromptSite:
    values = {field.name: getattr(block, field.name) for field in fields(block)}
    return PromptSite(**values, fan=fan or block.shape[0], enters=enters, leaves=leaves)
