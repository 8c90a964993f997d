"""Models of v that a benchmark trains once and keeps in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import unidiff as ud

PROCESS = ud.DDPM(T=1000, schedule=ud.Cosine())


def trained(
    network: Any, source: Any, conditioning: Any, steps: int, path: Path, *, batch: int = 128, warmup: int = 100
) -> ud.NeuralDenoiser:
    """A model of v, trained or read from a file of an earlier call; the seconds of its training are printed."""
    model, start = ud.NeuralDenoiser(PROCESS, ud.V(), network), time.process_time()
    if path.exists():
        network.load_state_dict(load_file(path))
        return model.eval()
    settings = ud.Training(
        steps=steps, batch=batch, lr=2e-3, warmup=warmup, ema=0.995, precision="fp32", tensorboard=False
    )
    objective = ud.Denoising(weighting=ud.UniformWeighting())
    average = ud.train(model, source, objective, settings, conditioning=conditioning)
    save_file(average.backbone.state_dict(), path)
    weights, seconds = sum(p.numel() for p in network.parameters()), time.process_time() - start
    print(f"{path.stem}: {weights:,} weights, {steps} steps of {batch}, {seconds:.0f} CPU s", flush=True)
    return average
