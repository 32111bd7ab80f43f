"""Small models of the libraries people take theirs from; each is there when its library is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from peftx.testing.cases.case import Case, Images, Tokens

__all__ = ["KEY_BIAS", "LIBRARY_CASES"]

#: the bias of the keys moves every score of a query alike, which softmax takes out again
KEY_BIAS = r".*(k_proj|key|k_lin)\.bias"


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return import_module("timm").create_model(name, num_classes=3, **options)

    return make


def _transformers(config: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        library = import_module("transformers")
        settings = getattr(library, config)(**options)
        settings._attn_implementation = "eager"
        return getattr(library, model)(settings)

    return make


def _clip_config() -> dict[str, Any]:
    common = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "text_config": common
        | {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 19},
        "vision_config": common | {"image_size": 8, "patch_size": 4},
        "projection_dim": 6,
    }


def _openai_whisper() -> nn.Module:
    whisper = import_module("whisper")
    return whisper.model.Whisper(whisper.model.ModelDimensions(6, 4, 8, 2, 1, 20, 8, 8, 2, 1))


def _open_clip() -> nn.Module:
    open_clip = import_module("open_clip")
    return open_clip.model.CLIP(
        embed_dim=6,
        vision_cfg=open_clip.model.CLIPVisionCfg(
            layers=1, width=8, head_width=4, patch_size=4, image_size=8, mlp_ratio=1.5
        ),
        text_cfg=open_clip.model.CLIPTextCfg(
            context_length=5, vocab_size=20, width=8, heads=2, layers=1, mlp_ratio=1.5
        ),
    )


def _pair(model: Any, image: Tensor, text: Tensor) -> Tensor:
    return torch.cat((model.encode_image(image), model.encode_text(text)), 1)


LIBRARY_CASES: tuple[Case, ...] = (
    Case(
        "timm_vit",
        _timm("vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2),
        Images(8),
        requires="timm",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "timm_deit",
        _timm("deit_tiny_distilled_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        Images(8),
        requires="timm",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
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
        Images(16),
        requires="timm",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "timm_convnext",
        _timm("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 6, 6, 8)),
        Images(32),
        requires="timm",
        kinds=(
            "conv2d",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "timm_beit",
        _timm("beit_base_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        Images(8),
        requires="timm",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "timm_eva",
        _timm("eva02_tiny_patch14_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2),
        Images(8),
        inert=KEY_BIAS,
        requires="timm",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
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
        Images(8),
        lambda model, x: model(x).logits,
        inert=KEY_BIAS,
        requires="transformers",
        kinds=(
            "activation",
            "conv2d",
            "linear",
            "norm",
            "parameter",
        ),
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
        requires="transformers",
        kinds=(
            "activation",
            "conv2d",
            "embedding",
            "linear",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "transformers_gpt2",
        _transformers(
            "GPT2Config",
            "GPT2LMHeadModel",
            bos_token_id=0,
            eos_token_id=0,
            n_layer=1,
            n_embd=8,
            n_head=2,
            vocab_size=20,
            n_positions=8,
        ),
        Tokens(20),
        lambda model, x: model(x, use_cache=False).logits,
        also_train=("ln_f",),
        requires="transformers",
        kinds=(
            "activation",
            "embedding",
            "linear",
            "linear_t",
            "norm",
        ),
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
        Tokens(20),
        lambda model, x: model(x).logits,
        inert=KEY_BIAS,
        requires="transformers",
        kinds=(
            "activation",
            "embedding",
            "linear",
            "norm",
        ),
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
        requires="transformers",
        kinds=(
            "activation",
            "conv1d",
            "embedding",
            "linear",
            "norm",
        ),
    ),
    Case(
        "openai_whisper",
        _openai_whisper,
        lambda n: (torch.randn(n, 6, 8), torch.randint(0, 20, (n, 4))),
        also_train=("decoder.ln",),
        requires="whisper",
        kinds=(
            "activation",
            "conv1d",
            "embedding",
            "linear",
            "norm",
            "parameter",
        ),
    ),
    Case(
        "open_clip",
        _open_clip,
        lambda n: (torch.randn(n, 3, 8, 8), torch.randint(1, 20, (n, 5))),
        lambda model, image, text: _pair(model, image, text) * model.logit_scale,
        also_train=("visual.proj",),
        unmixed="the text side is read from the root by name, not by calling it",
        requires="open_clip",
        kinds=(
            "activation",
            "conv2d",
            "embedding",
            "linear",
            "norm",
            "packed_attention",
            "parameter",
        ),
    ),
)
