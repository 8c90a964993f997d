"""Small random pipelines of diffusers from text to images, one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from theirs import autoencoder, diffusers

transformers = pytest.importorskip("transformers")

_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def clip_tokenizer() -> Any:
    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=8
    )


def clip(kind: str = "CLIPTextModel", width: int = 8) -> Any:
    torch.manual_seed(2)
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    sizes = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPTextConfig(vocab_size=54, max_position_embeddings=8, projection_dim=6, **sizes, **ends)
    return getattr(transformers, kind)(config).eval()


def t5_tokenizer() -> Any:
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in _LETTERS)]
    return transformers.T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=16)


def t5(width: int = 8) -> Any:
    torch.manual_seed(3)
    config = transformers.T5Config(vocab_size=40, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return transformers.T5EncoderModel(config).eval()


def gemma() -> Any:
    torch.manual_seed(3)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma2Config(vocab_size=40, num_key_value_heads=1, head_dim=4, **sizes)
    return transformers.Gemma2Model(config).eval()


def _random(network: Any) -> Any:
    with torch.no_grad():
        for p in network.parameters():  # some gates start at zero
            p.normal_(std=max(1, p[0].numel()) ** -0.5)
    return network.eval()


def _unet(**changes: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 2,
        "out_channels": 2,
        "block_out_channels": (8,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "layers_per_block": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**{**small, **changes}).eval()


def _ddim() -> Any:
    return diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing")


def stable_diffusion() -> Any:
    text = {"text_encoder": clip(), "tokenizer": clip_tokenizer()}
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(vae=autoencoder(), unet=_unet(), scheduler=_ddim(), **text, **rest)


def xl(kind: str = "StableDiffusionXLPipeline", ids: int = 6, channels: int = 2, **options: Any) -> Any:
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    sizes = {"cross_attention_dim": 16, "projection_class_embeddings_input_dim": 4 * ids + 6}
    network = _unet(in_channels=channels, out_channels=channels, **sizes, **added)
    codec = autoencoder(latent_channels=channels)
    texts = {"text_encoder": clip(), "tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    texts["text_encoder_2"] = clip("CLIPTextModelWithProjection")
    return getattr(diffusers, kind)(vae=codec, unet=network, scheduler=_ddim(), **texts, **options)


def sd3() -> Any:
    sizes = {"patch_size": 2, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2}
    texts = {"joint_attention_dim": 32, "caption_projection_dim": 8, "pooled_projection_dim": 12}
    shape = {"sample_size": 8, "in_channels": 2, "out_channels": 2, "pos_embed_max_size": 8}
    network = _random(diffusers.SD3Transformer2DModel(**sizes, **texts, **shape))
    parts = {f"text_encoder{end}": clip("CLIPTextModelWithProjection") for end in ("", "_2")}
    parts |= {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    parts |= {"text_encoder_3": t5(32), "tokenizer_3": t5_tokenizer()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    codec = autoencoder(shift_factor=0.1)
    return diffusers.StableDiffusion3Pipeline(transformer=network, scheduler=scheduler, vae=codec, **parts)


def flux() -> Any:
    sizes = {"patch_size": 1, "num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (4, 4, 8)}
    heads = {"attention_head_dim": 16, "num_attention_heads": 1, "guidance_embeds": True}
    network = diffusers.FluxTransformer2DModel(
        in_channels=8, joint_attention_dim=8, pooled_projection_dim=8, **sizes, **heads
    )
    parts = {"text_encoder": clip(), "tokenizer": clip_tokenizer()}
    parts |= {"text_encoder_2": t5(), "tokenizer_2": t5_tokenizer()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    codec = autoencoder(shift_factor=0.1)
    return diffusers.FluxPipeline(transformer=_random(network), scheduler=scheduler, vae=codec, **parts)


def pixart() -> Any:
    sizes = {"num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2, "cross_attention_dim": 8}
    shape = {"sample_size": 8, "in_channels": 2, "out_channels": 4, "caption_channels": 8}
    network = diffusers.PixArtTransformer2DModel(**sizes, **shape, use_additional_conditions=False)
    parts = {"text_encoder": t5(), "tokenizer": t5_tokenizer()}
    return diffusers.PixArtSigmaPipeline(vae=autoencoder(), transformer=_random(network), scheduler=_ddim(), **parts)


def sana() -> Any:
    sizes = {"num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2, "cross_attention_dim": 8}
    heads = {"cross_attention_head_dim": 4, "num_cross_attention_heads": 2, "caption_channels": 8}
    network = diffusers.SanaTransformer2DModel(sample_size=8, in_channels=2, out_channels=2, **sizes, **heads)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = {"text_encoder": gemma(), "tokenizer": t5_tokenizer()}
    codec = _dc()
    return diffusers.SanaPipeline(vae=codec, transformer=_random(network), scheduler=scheduler, **parts)


def _dc() -> Any:
    torch.manual_seed(1)
    layers = {"encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1)}
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock"}
    none = {"encoder_qkv_multiscales": ((), ()), "decoder_qkv_multiscales": ((), ())}
    shape = {"in_channels": 3, "latent_channels": 2, "scaling_factor": 0.4}
    return diffusers.AutoencoderDC(**shape, **layers, **widths, **blocks, **none).eval()


KINDS: dict[str, Callable[[], Any]] = {
    "stable_diffusion": stable_diffusion,
    "xl": xl,
    "sd3": sd3,
    "flux": flux,
    "pixart": pixart,
    "sana": sana,
}


def controlnet(network: Any, seed: int = 0) -> Any:
    """A ControlNet for a UNet whose features are not the zeros that it starts with, for images of twice its size."""
    branch = diffusers.ControlNetModel.from_unet(network, conditioning_embedding_out_channels=(4, 8))
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in branch.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return branch.eval()
