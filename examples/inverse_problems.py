"""Four ways to lose a digit, and how each is found again.

A measurement y = A x + noise says something of a picture x; a diffusion model says what pictures are like. Together
they are the posterior p(x | y). Here the model is exact and needs no training: a mixture of narrow Gaussians around 200
digits, one of which was measured. So the exact posterior is known too: a mixture again, with new weights.

It is a hard case for the approximations. The data lie in 200 clusters, and p(x0 | u) is far from a Gaussian while it is
decided which digit it will be. PiGDM and moment matching, which are exact on Gaussian data, often decide for another
digit; DPS, which trusts every measurement too much, does so less where pixels are seen and more under a blur.

Each row is a measurement: the heat equation's blur, block means, a hole, random projections. Its columns are the
picture, what was measured (carried back to pixels), one sample of each approximation, and one of the exact posterior.

    python examples/inverse_problems.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_table
from unidiff.words import in_words

NOISE = 0.2  # standard deviation of the measurement's noise; pixels lie in [-1, 1]


def main() -> None:
    """Measure one digit in four ways, and draw from four posteriors each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="samples of each posterior")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    digits = ud.data.Digits().open().batch(torch.arange(200)).double()
    model = ud.GaussianMixture(ud.VPSDE(), digits, 0.02)
    truth = digits[20:21]
    hole = torch.ones(8, 8)
    hole[2:6, 2:6] = 0
    operators = {
        "blur of 1.2 pixels": ud.inverse.HeatBlur((8, 8), 1.2),
        "means of 2 x 2": ud.inverse.BlockMean((8, 8), 2),
        "a hole of 4 x 4": ud.inverse.Inpainting(hole),
        "16 projections of 64": ud.inverse.RandomProjection((8, 8), 16),
    }
    rows, cells, errors = [], [], {}
    print(f"{'rms error of a sample':24} {'DPS':>8} {'PiGDM':>8} {'moments':>8} {'exact':>8}   without y")
    for name, operator in operators.items():
        y = operator.apply(truth) + NOISE * ud.Seeded([7])(operator.apply(truth))
        posteriors = {
            "DPS": ud.inverse.DPS(model, operator, y, NOISE),
            "PiGDM": ud.inverse.PiGDM(model, operator, y, NOISE, data_std=0.6),
            "moments": ud.inverse.MomentMatching(model, operator, y, NOISE, iterations=3),
            "exact": ud.inverse.conditioned(model, operator, y[0], NOISE),
        }
        grid, solver = ud.Tapered(40), ud.Ancestral()
        drawn = {
            label: ud.sample(posterior, solver, grid, seeds=arguments.count).x
            for label, posterior in posteriors.items()
        }
        free = ud.sample(model, solver, grid, seeds=arguments.count).x
        errors[name] = {label: rms(x - truth) for label, x in {**drawn, "without": free}.items()}
        print(f"{name:24}", "".join(f"{error:9.3f}" for error in errors[name].values()))
        rows.append(name)
        seen = operator.transpose(operator.gram(y, lambda gram: 1 / (gram + NOISE**2)))
        cells.append([(truth, ""), (seen, ""), *((x[:1], "") for x in drawn.values())])

    columns = ["truth", "measured", *drawn]
    title = (
        f"Noise {NOISE}, exact model of {len(digits)} digits, {in_words(solver)} in {grid.steps} steps, one sample each"
    )
    save_table(cells, rows, columns, arguments.out / "inverse_problems.png", title)

    # The claims: the exact posterior is the digit within the spread of its cluster (0.14) and of what the measurement
    # cannot tell, no approximation is better, and each knows more than the model alone.
    for name, error in errors.items():
        assert error["exact"] < 0.35 * error["without"], name
        for label in ("DPS", "PiGDM", "moments"):
            assert 0.9 * error["exact"] < error[label] < error["without"], (name, label)


def rms(x: torch.Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


if __name__ == "__main__":
    main()
