"""What does a training step cost in latents, and in pixels?

The same U-Net is trained on pictures and on their latents: equal width, levels and blocks, the same process, batch and
objective; only the number of positions differs. Steps alternate, so that both meet the same machine; medians are
printed. The encoding, once for each data set, and the decoding of samples are no part of a step and are printed beside.

    python benchmarks/latent_step.py --width 48 --size 32 --steps 10
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

import unidiff as ud


def stepper(shape: tuple[int, ...], width: int, batch: int):
    """One optimiser step of a model for samples of this shape."""
    model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), ud.UNet(shape, width=width, multipliers=(1, 2), blocks=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x, noise, uniform = torch.randn(batch, *shape), torch.randn(batch, *shape), torch.rand(batch).double()
    objective = ud.Denoising()

    def step() -> None:
        objective.batch_losses(model, x, uniform, noise).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(p.numel() for p in model.parameters())


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="height and width of the pictures")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    picture = (1, options.size, options.size)
    codec = ud.codec.AutoencoderKL().build(1).eval().requires_grad_(False)
    latent = codec.layout.latent_shape(picture)
    steppers = {"pixels": stepper(picture, options.width, options.batch)}
    steppers["latents"] = stepper(latent, options.width, options.batch)
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(options.steps + 1):
        for name, (step, _) in steppers.items():
            spent = seconds(step)
            if number:  # the first warms up
                times[name].append(spent)
    found = {name: statistics.median(spent) for name, spent in times.items()}
    x, z = torch.rand(options.batch, *picture) * 2 - 1, torch.randn(options.batch, *latent)
    result = {
        "pixels": {"shape": picture, "parameters": steppers["pixels"][1], "seconds_per_step": found["pixels"]},
        "latents": {"shape": latent, "parameters": steppers["latents"][1], "seconds_per_step": found["latents"]},
        "ratio": found["pixels"] / found["latents"],
        "encode_seconds_per_picture": seconds(lambda: codec.encode(x)) / options.batch,
        "decode_seconds_per_picture": seconds(lambda: codec.decode(z)) / options.batch,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name in ("pixels", "latents"):
        row = result[name]
        print(f"{name:>8}  {row['shape']}  {row['parameters']:,} parameters  {row['seconds_per_step']:.3f} s a step")
    print(f"a step in latents is {result['ratio']:.1f} times cheaper")
    encoded, decoded = result["encode_seconds_per_picture"], result["decode_seconds_per_picture"]
    print(f"encoding {1000 * encoded:.2f} ms, decoding {1000 * decoded:.2f} ms a picture")


if __name__ == "__main__":
    main()
