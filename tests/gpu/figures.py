"""Throughput of the ddpm_mnist U-Net on this card, as a Markdown table: `python tests/gpu/figures.py FILE.md`."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.training.device import arithmetic
from unidiff.training.loop import accelerator_for

SHAPE, BATCH, SAMPLES, STEPS = (1, 32, 32), 128, 64, 50


def model() -> ud.NeuralDenoiser:
    """The network of recipes/ddpm_mnist.yaml."""
    torch.manual_seed(0)
    network = ud.UNet(SHAPE, width=48, multipliers=(1, 2, 2, 4), blocks=3, attention=(16, 8))
    return ud.NeuralDenoiser(ud.DDPM(500), ud.Eps(), network)


def seconds(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def training(precision: str, accelerator: object) -> tuple[float, float]:
    """Images a second, and the most memory held, in GiB."""
    source = TensorSource(torch.rand(1024, *SHAPE) * 2 - 1, "noise")
    torch.cuda.reset_peak_memory_stats()
    times: list[float] = []

    def note(progress: object) -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    settings = ud.Training(steps=40, batch=BATCH, precision=precision, log_every=1000, checkpoint_every=1000)
    ud.train(model(), source, ud.Denoising(), settings, accelerator=accelerator, on_step=note)  # type: ignore[arg-type]
    return BATCH * 30 / (times[-1] - times[9]), torch.cuda.max_memory_allocated() / 2**30


def sampling(precision: torch.dtype, device: torch.device) -> float:
    """Images a second of DDIM with 50 steps."""
    denoiser = model().to(device).eval()

    def draw() -> None:
        with arithmetic(precision, device):
            ud.sample(denoiser, ud.DDIM(), ud.Uniform(STEPS), seeds=SAMPLES, device=device)

    draw()
    return SAMPLES / seconds(draw)


def main(target: Path) -> None:
    if not torch.cuda.is_available():
        print("No CUDA device: nothing was measured.")
        return
    device = torch.device("cuda", 0)
    lines = [
        f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, {datetime.date.today()}; the U-Net of "
        f"`ddpm_mnist` (32x32). Training: batch {BATCH}. Sampling: DDIM, {STEPS} steps, {SAMPLES} images together.",
        "",
        "| precision | training, images / s | memory, GiB | sampling, images / s |",
        "|---|---|---|---|",
    ]
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        accelerator = accelerator_for(ud.Training(steps=1), "cuda:0")
        rate, memory = training(name, accelerator)
        lines.append(f"| {name} | {rate:,.0f} | {memory:.2f} | {sampling(dtype, device):,.1f} |")
    target.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/gpu/figures.py FILE.md")
    main(Path(sys.argv[1]))
