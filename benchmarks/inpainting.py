"""What inpainting by replacement misses, by solver and resamplings: exact moments on Gaussian data, nothing drawn.

Data N(0, [[1, .8], [.8, 1]]), the first coordinate known to be 1: the other is N(0.8, 0.36).

    python benchmarks/inpainting.py
"""

from __future__ import annotations

import torch

import unidiff as ud

F64 = torch.float64


def law(model: ud.Denoiser, solver: ud.Solver, grid: ud.Grid, x: torch.Tensor, free: torch.Tensor) -> tuple:
    """Mean and covariance of what a solver makes of a linear model: each row follows one source of noise."""
    process, times, size = model.process, grid.times(model.process), x.numel()
    first = process.level(1.0)
    draws: list[torch.Tensor] = []
    with torch.no_grad():
        list(solver.trajectory(model, x[None], times, lambda like: draws.append(like) or torch.zeros_like(like)))
        start = torch.zeros((1 + len(draws)) * size + 1, size, dtype=F64)
        start[1 : size + 1] = torch.eye(size, dtype=F64)
        u = torch.where(free, process.prior_scale() * start, first.alpha * x + first.sigma * start)
        count = iter(range(1, len(draws) + 1))

        def noise(like: torch.Tensor) -> torch.Tensor:
            z, row = torch.zeros_like(like), next(count) * size + 1
            z[row : row + size] = torch.eye(size, dtype=F64)
            return z

        *_, last = solver.trajectory(model, u, times, noise)
    columns = last.u[1:] - last.u[0]
    return last.u[0], columns.mT @ columns


def main() -> None:
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    gaussian = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], covariance)
    x, strength = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 1.0])
    model = ud.Replacement(gaussian, x, strength)
    rows = [("ExponentialAdams", ud.ExponentialAdams()), ("Ancestral", ud.Ancestral())]
    rows += [
        (f"Resampling(repeats={r}, jump={j})", ud.Resampling(ud.Ancestral(), r, j)) for j in (1, 10) for r in (2, 5, 10)
    ]
    print("exact: mean 0.8, variance 0.36")
    for steps in (50, 100):
        for name, solver in rows:
            mean, spread = law(model, solver, ud.Tapered(steps), x, strength == 1)
            print(f"{steps:4} steps  {name:32} mean {float(mean[1]):.4f}  variance {float(spread[1, 1]):.4f}")


if __name__ == "__main__":
    main()
