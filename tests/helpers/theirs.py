"""What the tests of the bridge to diffusers share: its models, small and random, and the noise that both draw."""

from __future__ import annotations

import importlib
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unidiff as ud
from unidiff.noise import Seeded

diffusers = pytest.importorskip("diffusers")

F64 = torch.float64
PICTURES = 1e-9  # derived in test_diffusers_bridge.py
SCHEDULERS = (
    *("ddpm", "ddim", "euler_discrete", "euler_ancestral_discrete", "heun_discrete", "lms_discrete", "sde_ve"),
    *("dpmsolver_multistep", "dpmsolver_singlestep", "unipc_multistep", "deis_multistep", "flow_match_euler_discrete"),
    *("pndm", "edm_euler", "ipndm", "flow_match_heun_discrete"),
)
COUNT = 3
SMALLEST: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}


class InFloat64:
    """A module whose float32 is float64, and so are its ones."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, "float64" if name == "float32" else name)

    def ones(self, *shape: object, **kwargs: object) -> object:
        return self._module.ones(*shape, **{**kwargs, "dtype": self._module.float64})


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64: what is made without a dtype, and what diffusers keeps in float32 by name."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    for name in (*(f"schedulers.scheduling_{name}" for name in SCHEDULERS), "models.embeddings"):
        module = importlib.import_module(f"diffusers.{name}")
        monkeypatch.setattr(module, "torch", InFloat64(torch))
        if hasattr(module, "np"):
            monkeypatch.setattr(module, "np", InFloat64(np))
    yield
    torch.set_default_dtype(before)


def unet(**changes: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DModel(**{**small, **changes}).eval()


def autoencoder(kind: str = "AutoencoderKL", **changes: Any) -> Any:
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    small: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "latent_channels": 2, "block_out_channels": (8, 8)}
    return getattr(diffusers, kind)(
        **{**small, **blocks, "norm_num_groups": 4, "scaling_factor": 0.3, **changes}
    ).eval()


def transformer(**changes: Any) -> Any:
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 2, "out_channels": 4, "num_layers": 2}
    network = diffusers.DiTTransformer2DModel(**{**small, "sample_size": 8, **changes})
    with torch.no_grad():
        for p in network.parameters():  # whose gates start at zero
            p.normal_(std=max(1, p[0].numel()) ** -0.5)
    return network.eval()


def same_noise(monkeypatch: pytest.MonkeyPatch, *modules: str, patch: int = 1) -> None:
    """Lets modules of diffusers draw the noise that `unidiff.sample` draws from the seeds 0, ..., COUNT - 1.

    With a patch it is the noise of the unfolded images, folded.
    """
    noise = Seeded(range(COUNT))

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.nn.functional.pixel_unshuffle(
            noise(torch.nn.functional.pixel_shuffle(torch.empty(shape, dtype=F64), patch)), patch
        )

    for module in modules:
        path = f"diffusers.{module}.randn_tensor"
        monkeypatch.setattr(path, lambda shape, *_, **__: draw(tuple(shape)))


DDPM_NOISE = ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm")
DDIM_NOISE = ("pipelines.ddim.pipeline_ddim", "schedulers.scheduling_ddim")
LDM_NOISE = ("pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond",)
DIT_NOISE = ("pipelines.dit.pipeline_dit",)


def sampled(model: Any, solver: Any = None, grid: Any = None, shape: Any = None, **options: Any) -> torch.Tensor:
    """COUNT samples of `unidiff.sample` in float64."""
    return ud.sample(model.double(), solver, grid, shape, COUNT, dtype=F64, **options).x


def pictures(x: torch.Tensor) -> torch.Tensor:
    return (x / 2 + 0.5).clamp(0, 1)


def drawn(pipeline: Any, steps: int, *given: Any, **options: Any) -> torch.Tensor:
    """What a pipeline of diffusers draws, in [0, 1]: COUNT pictures, or what its own first argument asks for."""
    pipeline.to(F64)
    pipeline.set_progress_bar_config(disable=True)
    kind = "np" if type(pipeline).__name__ == "LDMPipeline" else "pt"  # which knows no other
    images = pipeline(*(given or (COUNT,)), num_inference_steps=steps, output_type=kind, **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2) if kind == "np" else images


def changed(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
