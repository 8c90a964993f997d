"""Where a score is learned well, and why Langevin dynamics is annealed: figures 3.1 and 3.2 of Sedykh's thesis.

Both after Song & Ermon 2019: data from two Gaussians, one with a fifth of the weight. A network that is trained by
score matching sees data, so it learns the score where data are and not in between. And Langevin dynamics with a small
step, even with the exact score, does not cross the empty space between the two, so each keeps the share of samples that
the start put on its side: 0.5 instead of 0.2 and 0.8. Annealed Langevin dynamics starts where noise covers both.

    unidiff reproduce thesis-3.1 thesis-3.2
    python examples/papers/two_gaussians.py --quick
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.figures.findings import Findings
from unidiff.figures.script import main
from unidiff.noise import generator_of
from unidiff.plot import COLOURS, new_figure, save_figure, save_table, style

MEANS, STD, WEIGHTS = torch.tensor([[-0.6, -0.6], [0.6, 0.6]]), 0.12, (0.2, 0.8)
REACH = 1.0


def mixture(process: ud.Process) -> ud.GaussianMixture:
    """The two Gaussians, with their exact score."""
    return ud.GaussianMixture(process, MEANS, STD**2, WEIGHTS)


def data(count: int, seed: int) -> Tensor:
    """Points of the two Gaussians."""
    generator = generator_of(seed)
    own = (torch.rand(count, generator=generator) < WEIGHTS[1]).long()
    return MEANS[own] + STD * torch.randn(count, 2, generator=generator)


@style()
def thesis_3_1(path: Path, *, quick: bool, seed: int) -> Findings:
    """The score of the data and that of a network, as arrows, and their difference near and far from the data."""
    # A process of one noise level that is small beside the data: their own score.
    process = ud.NCSN(0.01, 0.011, 2)
    level, exact = process.level(process.t_min), mixture(process)
    points = data(10_000, seed)
    net = ud.MLP((2,), width=64, depth=2)
    model = ud.NeuralDenoiser(process, ud.Score(), net)
    steps = 120 if quick else 1000
    settings = ud.Training(steps=steps, batch=128, lr=2e-3, ema=0.99, precision="fp32", tensorboard=False)
    # Sliced score matching sees the data and no noise of known size: it can only learn where data are.
    model = ud.train(model, ud.TensorSource(points, "two Gaussians"), ud.SlicedScoreMatchingVR(), settings, seed=seed)

    axis = torch.linspace(-REACH, REACH, 17)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        fields = [found(grid, level).score for found in (exact, model)]
        density = exact.log_prob(grid, level)
        fresh = data(2000, seed + 1)
        both = [found(fresh, level).score for found in (exact, model)]
    near = float((both[1] - both[0]).square().sum() / both[0].square().sum())
    empty = density < density.max() - 30  # a density below e^-30 of the largest
    far = float((fields[1] - fields[0])[empty].square().sum() / fields[0][empty].square().sum())

    figure, axes = new_figure(2, (7.2, 4.2))
    for ax, field, title in zip(axes, fields, ("scores of the data", f"estimated scores, {steps} steps")):
        ax.scatter(*points[:1000].T, s=2, alpha=0.3, color=COLOURS[4], linewidths=0)
        arrows = field / field.norm(dim=1, keepdim=True) * field.norm(dim=1, keepdim=True).sqrt()
        ax.quiver(*grid.T, *arrows.T, angles="xy", width=0.004)
        ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        ax.set_box_aspect(1)
    save_figure(
        figure, path, "Scores of two Gaussians (Sedykh's thesis, figure 3.1); lengths are roots of the scores'."
    )
    return Findings(
        f"squared error of the learned score, relative: {near:.2g} where data are, {far:.2g} where there are none",
        near < 0.2 and far > 3 * near,
        {
            "error_at_data": near,
            "error_far_from_data": far,
            "training_steps": steps,
            "empty_share": float(empty.float().mean()),
        },
        "Below 0.2 at the data, and more than three times as large where the density is below e^-30 of its maximum.",
    )


def thesis_3_2(path: Path, *, quick: bool, seed: int) -> Findings:
    """Data, and samples of both kinds of Langevin dynamics with the exact score."""
    count = 400 if quick else 2000
    process = ud.NCSN(0.05, 4.0, 25)
    model = mixture(process)
    seeds = range(seed, seed + count)
    plain = ud.sample(model, ud.Langevin(steps=250, step_size=5e-4), ud.Uniform(2), seeds=seeds).x
    annealed = ud.sample(model, ud.AnnealedLangevin(20 if quick else 60, step_size=2.5e-4), ud.Native(), seeds=seeds).x
    truth = data(count, seed)
    cells = [(truth, "data"), (plain, "Langevin dynamics"), (annealed, "annealed Langevin dynamics"), (truth, "data")]
    save_table(
        [cells[:3]],
        [""],
        [""] * 3,
        path,
        "Samples of two Gaussians with the exact score (Sedykh's thesis, figure 3.2).",
    )
    share = {name: float((x.sum(1) < 0).double().mean()) for x, name in cells}
    error = {p: 5 * math.sqrt(p * (1 - p) / count) for p in (0.5, WEIGHTS[0])}
    return Findings(
        f"the Gaussian of weight 0.2 has a share of {share['Langevin dynamics']:.2f} with Langevin dynamics, "
        f"{share['annealed Langevin dynamics']:.2f} with the annealed",
        abs(share["Langevin dynamics"] - 0.5) < error[0.5]
        and abs(share["annealed Langevin dynamics"] - WEIGHTS[0]) < error[WEIGHTS[0]] + 0.02,
        {"samples": count, "share_of_the_lighter": share},
        f"Within five standard errors of a share, {error[0.5]:.3f} of 0.5 and {error[WEIGHTS[0]]:.3f} of 0.2, and "
        "0.02 for a finite number of levels.",
    )


if __name__ == "__main__":
    main(__doc__, thesis_3_1, thesis_3_2)
