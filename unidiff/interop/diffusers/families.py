"""The pipelines of diffusers that turn text into images: what each makes of a prompt, and how it calls its network."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.pretrained import read_json

__all__ = ["FAMILIES", "Family", "family_of"]

Size = tuple[int, int]
_GUIDANCE = 3.5  # of FluxPipeline, whose networks are passed a guidance scale
_AESTHETICS, _POOR = 6.0, 2.5  # scores of the prompt and of no prompt, of SDXL's refiner


@dataclass(frozen=True)
class Family:
    """A pipeline from text to images.

    Attributes:
        part: Where it keeps its network.
        network: Class of the network.
        encode: The parts of a prompt, each with one row, from the pipeline, a text and the size of its images.
        call: The output of the network for samples, timesteps and the parts of the prompts.
        negative: As `encode`, of a text that guidance leads away from, or of None for no prompt; None for `encode`.
        fold: Side of the patches of latents that the pipeline folds into channels.
        text: The arguments that a UNet takes of the parts of the prompts, and its control branches as well.
    """

    part: str
    network: str
    encode: Callable[[Any, str, Size], dict[str, Tensor]]
    call: Callable[..., Tensor]
    negative: Callable[[Any, str | None, Size], dict[str, Tensor]] | None = None
    fold: int = 1
    text: Callable[[dict[str, Tensor]], dict[str, Any]] | None = None


# ------------------------------------------------------------------------------------ Stable Diffusion 1 and 2, SDXL


def _sd_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    return {"embeds": pipeline.encode_prompt(text, pipeline._execution_device, 1, False)[0]}


def _sd_text(prompt: dict[str, Tensor]) -> dict[str, Any]:
    return {"encoder_hidden_states": prompt["embeds"]}


def _sd_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor], **added: Any) -> Tensor:
    output: Tensor = network(x, c, **_sd_text(prompt), **added).sample
    return output


def _xl_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    embeds, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    return {"embeds": embeds, "pooled": pooled, "ids": _xl_ids(pipeline, embeds, size, _AESTHETICS)}


def _xl_negative(pipeline: Any, text: str | None, size: Size) -> dict[str, Tensor]:
    guided = {"do_classifier_free_guidance": True, "negative_prompt": text}  # zeros for None, if it is set so
    _, embeds, _, pooled = pipeline.encode_prompt("", **guided)
    return {"embeds": embeds, "pooled": pooled, "ids": _xl_ids(pipeline, embeds, size, _POOR)}


def _xl_ids(pipeline: Any, like: Tensor, size: Size, score: float) -> Tensor:
    """Size of the image, where it was cropped, and its size again, or how beautiful it is (Podell et al. 2023)."""
    scored = pipeline.config.get("requires_aesthetics_score", False)
    return like.new_tensor([[*size, 0, 0, *([score] if scored else size)]])


def _xl_text(prompt: dict[str, Tensor]) -> dict[str, Any]:
    sizes = {"text_embeds": prompt["pooled"], "time_ids": prompt["ids"]}
    return {"encoder_hidden_states": prompt["embeds"], "added_cond_kwargs": sizes}


def _xl_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor], **added: Any) -> Tensor:
    output: Tensor = network(x, c, **_xl_text(prompt), **added).sample
    return output


# ------------------------------------------------------------------------------------ Stable Diffusion 3 and Flux


def _sd3_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    embeds, _, pooled, _ = pipeline.encode_prompt(text, None, None, do_classifier_free_guidance=False)
    return {"embeds": embeds, "pooled": pooled}


def _sd3_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor]) -> Tensor:
    text = {"encoder_hidden_states": prompt["embeds"], "pooled_projections": prompt["pooled"]}
    output: Tensor = network(hidden_states=x, timestep=c, **text).sample
    return output


def _flux_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    embeds, pooled, _ = pipeline.encode_prompt(text)
    return {"embeds": embeds, "pooled": pooled}


def _flux_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor]) -> Tensor:
    """The network takes patches of 2 x 2 latents as tokens with their places, and the time from 0 to 1."""
    count, _, height, width = x.shape
    rows, columns = height // 2, width // 2
    tokens = x.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    places = torch.cartesian_prod(
        *(torch.arange(n, device=x.device, dtype=x.dtype) for n in (1, rows, columns))
    )  # 0, row, column
    output = network(
        hidden_states=tokens,
        timestep=c / 1000,
        guidance=x.new_full((count,), _GUIDANCE) if network.config.guidance_embeds else None,
        encoder_hidden_states=prompt["embeds"],
        pooled_projections=prompt["pooled"],
        txt_ids=x.new_zeros(prompt["embeds"].shape[1], 3),
        img_ids=places,
    ).sample
    back: Tensor = output.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return back.flatten(4).flatten(2, 3)


# ------------------------------------------------------------------------------------ PixArt and Sana


def _masked(encoded: Any) -> dict[str, Tensor]:
    embeds, mask, _, _ = encoded
    return {"embeds": embeds, "mask": mask}


def _pixart_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    return _masked(pipeline.encode_prompt(text, False, clean_caption=False))


def _pixart_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor]) -> Tensor:
    added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    text = {"encoder_hidden_states": prompt["embeds"], "encoder_attention_mask": prompt["mask"]}
    output: Tensor = network(x, timestep=c, added_cond_kwargs=added, **text).sample
    return output


def _sana_encode(pipeline: Any, text: str, size: Size) -> dict[str, Tensor]:
    """With the instruction to the language model that the pipeline puts before every prompt."""
    name = "complex_human_instruction"
    own = inspect.signature(pipeline.__call__).parameters[name].default
    return _masked(pipeline.encode_prompt(text, False, clean_caption=False, **{name: own}))


def _sana_negative(pipeline: Any, text: str | None, size: Size) -> dict[str, Tensor]:
    """Without the instruction."""
    return _masked(pipeline.encode_prompt(text or "", False, clean_caption=False))


def _sana_call(network: Any, x: Tensor, c: Tensor, prompt: dict[str, Tensor]) -> Tensor:
    text = {"encoder_hidden_states": prompt["embeds"], "encoder_attention_mask": prompt["mask"]}
    output: Tensor = network(x, timestep=c * network.config.timestep_scale, **text).sample
    return output


_SD = Family("unet", "UNet2DConditionModel", _sd_encode, _sd_call, text=_sd_text)
_XL = Family("unet", "UNet2DConditionModel", _xl_encode, _xl_call, _xl_negative, text=_xl_text)
_PIXART = Family("transformer", "PixArtTransformer2DModel", _pixart_encode, _pixart_call)
FAMILIES: Mapping[str, Family] = {
    "StableDiffusionPipeline": _SD,
    "StableDiffusionImg2ImgPipeline": _SD,
    "StableDiffusionControlNetPipeline": _SD,
    "StableDiffusionXLPipeline": _XL,
    "StableDiffusionXLControlNetPipeline": _XL,
    "StableDiffusionXLImg2ImgPipeline": _XL,  # which the refiner is saved as
    "StableDiffusion3Pipeline": Family("transformer", "SD3Transformer2DModel", _sd3_encode, _sd3_call),
    "FluxPipeline": Family("transformer", "FluxTransformer2DModel", _flux_encode, _flux_call, fold=2),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": Family("transformer", "SanaTransformer2DModel", _sana_encode, _sana_call, _sana_negative),
}


def family_of(folder: Path) -> Family | None:
    """The family of a saved pipeline; None if it does not turn text into images, or is a model alone."""
    index = folder / "model_index.json"
    return FAMILIES.get(str(read_json(index).get("_class_name"))) if os.path.isfile(index) else None
