"""How straight are the paths of a flow, and how few steps do they need, by the coupling it was trained with?

Flow matching of two moons with independent noise, with the optimal transport of each mini-batch, and with the pairs
that the first flow made (one reflow), by one network and one plan of training: python benchmarks/couplings.py (a minute
or two on one core).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import unidiff as ud

NFES = 1, 4, 8, 50


def trained(coupling: ud.Coupling, source: ud.TensorSource, steps: int, batch: int) -> ud.NeuralDenoiser:
    torch.manual_seed(0)
    model = ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), ud.MLP((2,), width=64, depth=2))
    settings = ud.Training(steps=steps, batch=batch, lr=3e-3, ema=0.99, precision="fp32", tensorboard=False)
    return ud.train(model, source, ud.Denoising(coupling=coupling), settings)


@torch.no_grad()
def curvature(model: ud.NeuralDenoiser, seeds: int, steps: int = 50) -> float:
    """E int |v(u_t, t) - (u_1 - u_0)|^2 dt over E |u_1 - u_0|^2, by Euler's method: 0 if all paths are straight."""
    u = ud.Seeded(range(seeds))(torch.empty(seeds, 2))
    velocities = []
    for i in range(steps):
        velocities.append(model.output(u, model.process.level(1 - i / steps)))
        u = u - velocities[-1] / steps
    v = torch.stack(velocities)
    return float((v - v.mean(0)).square().sum(2).mean() / v.mean(0).square().sum(1).mean())


def distance(model: ud.NeuralDenoiser, data: Tensor, nfe: int) -> float:
    """The energy distance of samples by Euler's method from the data."""
    x = ud.sample(model, ud.Euler(), ud.Uniform(nfe), seeds=len(data)).x
    return ud.evaluation.energy_distance(x, data).value


def compare(steps: int, batch: int, count: int) -> dict[str, list[float]]:
    """Rows by coupling: CPU seconds of training, curvature, energy distance after 1, 2, 4 and 50 evaluations."""
    data = ud.data.TwoMoons(count=5 * count)
    source, held_out = data.open(), data.open("test").batch(torch.arange(count // 2))
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.npy"
        for name, coupling in {
            "Independent": ud.Independent(),
            "OptimalTransport": ud.OptimalTransport(),
            "Pairs": ud.Pairs(str(path)),
        }.items():
            start = time.process_time()
            model = trained(coupling, source, steps, batch)
            row = [time.process_time() - start, curvature(model, count)]
            rows[name] = row + [distance(model, held_out, nfe) for nfe in NFES]
            if name == "Independent":
                first = model
            if name == "OptimalTransport":  # next the pairs of the first flow: its samples, and the noise they began as
                x = ud.sample(first, ud.Heun(), ud.Uniform(50), seeds=len(source)).x
                np.save(path, ud.Seeded(range(len(source)))(x).numpy())
                source = ud.TensorSource(x, "samples of the first flow")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    print(f"{'coupling':18}{'seconds':>8}{'curvature':>11}  energy distance after 1, 4, 8, 50 evaluations")
    for name, (seconds, bend, *distances) in compare(arguments.steps, arguments.batch, arguments.samples).items():
        print(f"{name:18}{seconds:8.0f}{bend:11.4f}  " + "  ".join(f"{value:7.4f}" for value in distances))


if __name__ == "__main__":
    main()
