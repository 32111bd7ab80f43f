"""Small models of every family, and the six methods, for tests that hold for all of them.

A test that takes ``case`` runs on every model, one that takes ``method`` under every method of core. Tests cannot
import each other, so what they share comes as fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx

METHODS = ("core.full", "core.head", "core.bitfit", "core.lora", "core.rslora", "core.dora")
LOW_RANK = ("core.lora", "core.rslora", "core.dora")

#: the bias of the keys moves every score of a query alike, which softmax takes out again
KEY_BIAS = r".*(k_proj|key|k_lin)\.bias"


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Toy(nn.Module):
    """A trunk, then a mean over what is left of positions, then a head that says it is one."""

    peftx_head = "head"

    def __init__(self, trunk: nn.Module, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 3)
        self.channels_first = channels_first

    def forward(self, *inputs: Tensor) -> Tensor:
        y = self.trunk(*inputs)
        if self.channels_first:
            y = y.flatten(2).mean(2)
        elif y.dim() == 3:
            y = y.mean(1)
        return self.head(y)


class PackedAttention(nn.Module):
    """nn.MultiheadAttention as a trunk: (B, T, D) in and out, whatever layout the attention itself wants."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2, **options)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        key = x if key is None else key
        if not self.attn.batch_first:
            x, key = x.transpose(0, 1), key.transpose(0, 1)
        y, weights = self.attn(x, key, key)
        y = y if self.attn.batch_first else y.transpose(0, 1)
        return y + weights.sum() * 0


class Encoder(nn.Module):
    """nn.TransformerEncoder with a padding mask: in evaluation mode it takes the nested-tensor fast path."""

    def __init__(self, padded: bool, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)
        self.padded = padded
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.padded:
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[:, -1] = True
        y = self.encoder(x if self.batch_first else x.transpose(0, 1), src_key_padding_mask=mask)
        return (y if self.batch_first else y.transpose(0, 1))[:, :3]


class Decoder(nn.Module):
    """nn.TransformerDecoder over a memory, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True), 1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.decoder(x, memory, tgt_mask=causal)


@dataclass(frozen=True)
class Case:
    """A model, inputs for n samples, and how to run it; results are (n, ...)."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    call: Callable[..., Tensor] = field(default=lambda model, *inputs: model(*inputs))
    #: options of the low-rank methods, where the default targets do not apply
    targets: tuple[str, ...] = ()
    #: options of every method: what to train besides, where the model declares no head
    also_train: tuple[str, ...] = ()
    #: sites whose value cannot matter, as a regular expression over keys
    inert: str = r"(?!)"
    #: methods that have nothing to train here
    without: tuple[str, ...] = ()
    #: why samples cannot go through different copies of the whole model (`core.full`), if so
    unmixed: str = ""

    def build(self) -> nn.Module:
        torch.manual_seed(7)
        model = self.make()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() < 2:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                else:
                    parameter.normal_(std=0.8 * parameter[0].numel() ** -0.5)
        if any(getattr(module, "max_norm", None) for module in model.modules()):
            self.call(model, *self.samples())  # such a table shortens its rows at their first use
        return model.eval()

    def samples(self, n: int = 4) -> tuple[Tensor, ...]:
        torch.manual_seed(11)
        return self.inputs(n)

    def options(self, method: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.targets and method in LOW_RANK:
            options["targets"] = list(self.targets)
        if self.also_train and method != "core.full":
            options["also_train"] = list(self.also_train)
        if method in LOW_RANK:
            options["rank"] = 2
        return options

    def attach(self, model: nn.Module, method: str, **options: Any) -> peftx.Adapted:
        return peftx.attach(model, method, **(self.options(method) | options))


def _images(size: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randn(n, 3, size, size),)


def _tokens(vocabulary: int, length: int = 5) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randint(0, vocabulary, (n, length)),)


def _sequence(width: int = 8, length: int = 5) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randn(n, length, width),)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return pytest.importorskip("timm").create_model(name, num_classes=3, **options)

    return make


def _transformers(config: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        library = pytest.importorskip("transformers")
        settings = getattr(library, config)(**options)
        settings._attn_implementation = "eager"
        return getattr(library, model)(settings)

    return make


def _clip_config() -> dict[str, Any]:
    common = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "text_config": common | {"vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19},
        "vision_config": common | {"image_size": 8, "patch_size": 4},
        "projection_dim": 6,
    }


def _openai_whisper() -> nn.Module:
    whisper = pytest.importorskip("whisper")
    return whisper.model.Whisper(whisper.model.ModelDimensions(6, 4, 8, 2, 1, 20, 8, 8, 2, 1))


def _open_clip() -> nn.Module:
    open_clip = pytest.importorskip("open_clip")
    return open_clip.model.CLIP(
        embed_dim=6,
        vision_cfg=open_clip.model.CLIPVisionCfg(
            layers=1, width=8, head_width=4, patch_size=4, image_size=8, mlp_ratio=1.5
        ),
        text_cfg=open_clip.model.CLIPTextCfg(
            context_length=5, vocab_size=20, width=8, heads=2, layers=1, mlp_ratio=1.5
        ),
    )


def _pair(model: nn.Module, image: Tensor, text: Tensor) -> Tensor:
    return torch.cat((model.encode_image(image), model.encode_text(text)), 1)


CASES = (
    Case(
        "linear",
        lambda: Toy(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)), 4),
        _sequence(6),
        targets=("glob:trunk.*",),
    ),
    Case(
        "conv1d",
        lambda: Toy(
            nn.Sequential(
                nn.Conv1d(3, 6, 3, stride=2, padding=2, dilation=2, padding_mode="circular"),
                nn.Tanh(),
                nn.Conv1d(6, 4, 3, groups=2, padding="same"),
            ),
            4,
            channels_first=True,
        ),
        lambda n: (torch.randn(n, 3, 11),),
        targets=("glob:trunk.*",),
    ),
    Case(
        "conv2d",
        lambda: Toy(
            nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, padding=1),
                nn.Tanh(),
                nn.Conv2d(6, 6, 3, padding=2, dilation=2, padding_mode="reflect"),
                nn.Conv2d(6, 4, (3, 1), groups=2, bias=False),
            ),
            4,
            channels_first=True,
        ),
        _images(9),
        targets=("glob:trunk.*",),
    ),
    Case(
        "embedding",
        lambda: Toy(nn.Embedding(9, 4, padding_idx=0), 4),
        _tokens(9),
        targets=("trunk",),
        without=("core.bitfit",),
    ),
    Case(
        "embedding_max_norm",
        lambda: Toy(nn.Embedding(9, 4, max_norm=0.5, scale_grad_by_freq=True), 4),
        _tokens(9),
        targets=("trunk",),
        without=("core.bitfit",),
    ),
    Case(
        "norms",
        lambda: Toy(
            nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Tanh(),
                nn.GroupNorm(2, 4),
                nn.Flatten(),
                nn.LayerNorm(64),
                nn.Linear(64, 6),
                nn.LayerNorm(6, bias=False),
            ),
            6,
        ),
        _images(6),
        targets=("trunk.0", "trunk.6"),
    ),
    Case("packed_attention", lambda: Toy(PackedAttention(8, batch_first=True), 8), _sequence()),
    Case("packed_attention_sequence_first", lambda: Toy(PackedAttention(8), 8), _sequence()),
    Case(
        "packed_attention_widths",
        lambda: Toy(PackedAttention(8, kdim=6, vdim=6, batch_first=True), 8),
        lambda n: (torch.randn(n, 5, 8), torch.randn(n, 4, 6)),
    ),
    Case(
        "packed_attention_bias_kv",
        lambda: Toy(PackedAttention(8, add_bias_kv=True, batch_first=True), 8),
        _sequence(),
    ),
    Case("encoder", lambda: Toy(Encoder(padded=False), 8), _sequence()),
    Case("encoder_padded", lambda: Toy(Encoder(padded=True), 8), _sequence()),
    Case("encoder_sequence_first", lambda: Toy(Encoder(padded=False, batch_first=False), 8), _sequence()),
    Case(
        "decoder",
        lambda: Toy(Decoder(), 8),
        lambda n: (torch.randn(n, 3, 8), torch.randn(n, 5, 8)),
    ),
    Case(
        "timm_vit",
        _timm("vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2),
        _images(8),
    ),
    Case(
        "timm_deit",
        _timm("deit_tiny_distilled_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        _images(8),
    ),
    Case(
        "timm_swin",
        _timm(
            "swin_tiny_patch4_window7_224",
            img_size=16,
            patch_size=2,
            window_size=4,
            embed_dim=8,
            depths=(2, 1),
            num_heads=(2, 2),
        ),
        _images(16),
    ),
    Case(
        "timm_convnext",
        _timm("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 6, 6, 8)),
        _images(32),
    ),
    Case(
        "timm_beit",
        _timm("beit_base_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        _images(8),
    ),
    Case(
        "timm_eva",
        _timm("eva02_tiny_patch14_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        _images(8),
        inert=KEY_BIAS,
    ),
    Case(
        "transformers_vit",
        _transformers(
            "ViTConfig",
            "ViTForImageClassification",
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            image_size=8,
            patch_size=4,
            num_labels=3,
        ),
        _images(8),
        lambda model, x: model(x).logits,
        inert=KEY_BIAS,
    ),
    Case(
        "transformers_clip",
        _transformers("CLIPConfig", "CLIPModel", **_clip_config()),
        # token 19 ends a text, and its place is what is read
        lambda n: (
            torch.cat((torch.randint(0, 19, (n, 4)), torch.full((n, 1), 19)), 1),
            torch.randn(n, 3, 8, 8),
        ),
        lambda model, text, image: (
            torch.cat([(o := model(input_ids=text, pixel_values=image)).text_embeds, o.image_embeds], 1)
            * model.logit_scale
        ),
        also_train=("visual_projection",),
        inert=KEY_BIAS,
        unmixed="every image is compared with every text",
    ),
    Case(
        "transformers_gpt2",
        _transformers(
            "GPT2Config", "GPT2LMHeadModel", n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=8
        ),
        _tokens(20),
        lambda model, x: model(x, use_cache=False).logits,
        also_train=("ln_f",),
    ),
    Case(
        "transformers_bert",
        _transformers(
            "BertConfig",
            "BertForSequenceClassification",
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            vocab_size=20,
            max_position_embeddings=8,
            num_labels=3,
        ),
        _tokens(20),
        lambda model, x: model(x).logits,
        inert=KEY_BIAS,
    ),
    Case(
        "transformers_whisper",
        _transformers(
            "WhisperConfig",
            "WhisperForConditionalGeneration",
            vocab_size=20,
            num_mel_bins=4,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=12,
            decoder_ffn_dim=12,
            max_source_positions=6,
            max_target_positions=8,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
        lambda n: (torch.randn(n, 4, 12), torch.randint(3, 20, (n, 4))),
        lambda model, mel, ids: model(input_features=mel, decoder_input_ids=ids, use_cache=False).logits,
        also_train=("decoder.layer_norm",),
        unmixed="a table of positions of its own kind returns no dimension of samples",
    ),
    Case(
        "openai_whisper",
        _openai_whisper,
        lambda n: (torch.randn(n, 6, 8), torch.randint(0, 20, (n, 4))),
        also_train=("decoder.ln",),
    ),
    Case(
        "open_clip",
        _open_clip,
        lambda n: (torch.randn(n, 3, 8, 8), torch.randint(1, 20, (n, 5))),
        lambda model, image, text: _pair(model, image, text) * model.logit_scale,
        also_train=("visual.proj",),
        unmixed="the text side is read from the root by name, not by calling it",
    ),
)
_BY_NAME = {case.name: case for case in CASES}


def _runs(case: Case, method: str) -> bool:
    # rsLoRA is LoRA at another scale: two models are enough
    return method not in case.without and (method != "core.rslora" or case.name in ("conv2d", "timm_vit"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = metafunc.definition.iter_markers("parametrize")
    lists = [mark.args[0] for mark in marks]
    chosen = {name for names in lists for name in (names.split(",") if isinstance(names, str) else names)}
    names = [name for name in metafunc.fixturenames if name not in chosen]
    if "case" in names and "method" in names:
        pairs = [(case, method) for case in CASES for method in METHODS if _runs(case, method)]
        ids = [f"{case.name}-{method.removeprefix('core.')}" for case, method in pairs]
        metafunc.parametrize(("case", "method"), pairs, ids=ids)
    elif "case" in names:
        metafunc.parametrize("case", CASES, ids=lambda case: case.name)
    elif "method" in names:
        metafunc.parametrize("method", METHODS, ids=lambda name: name.removeprefix("core."))


@pytest.fixture
def case_of() -> Callable[[str], Case]:
    """A case by its name."""
    return _BY_NAME.__getitem__


@pytest.fixture
def toy() -> type[Toy]:
    """A trunk with a declared head."""
    return Toy


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Add noise to tensors, seeded, so that an adapter does something."""

    def run(tensors: Any, scale: float = 0.3, seed: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in tensors:
                if not isinstance(tensor, torch.nn.Parameter):
                    continue  # a running statistic: moved by forwards, not by noise
                tensor.add_(scale * torch.randn(tensor.shape, generator=generator).to(tensor))

    return run
