"""Fewer steps, and how much noise they add: figure 4.2 of Sedykh's thesis, after table 1 of Song, Meng & Ermon 2021.

A model that was trained on T steps is sampled in S of them. eta = 0 is DDIM, eta = 1 is DDPM's chain with the small
variance, and sigma-hat is the chain with the large one. With few steps less noise is better. The distance is Frechet's,
in the features of unidiff's own network: not the FID, and not to be compared with it.

    unidiff reproduce thesis-4.2
    python examples/papers/few_steps.py --run runs/ddpm_mnist_cpu --quick
"""

from __future__ import annotations

from pathlib import Path

import unidiff as ud
from unidiff.evaluation import frechet_distance
from unidiff.evaluation.distances import Estimate
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import Curve, Formula, Panel, save_curves

SOLVERS: dict[str, ud.Solver] = {f"eta = {eta:g}": ud.DDIM(eta) for eta in (0.0, 0.2, 0.5, 1.0)}
SOLVERS["sigma-hat"] = ud.Ancestral(variance_interpolation=1.0)
LABELS = {name: Formula(rf"$\eta={name[6:]}$") for name in SOLVERS if name.startswith("eta")}
LABELS["sigma-hat"] = Formula(r"$\hat\sigma$")


def thesis_4_2(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The Frechet distance for each number of steps and each eta."""
    count, steps = (200, (5, 10)) if quick else (200, (5, 10, 20, 50))
    reference = model.judge.features_of_held_out
    table: dict[str, dict[int, Estimate]] = {name: {} for name in SOLVERS}
    for name, solver in SOLVERS.items():
        for s in steps:
            x = model.draw(count, solver, ud.Uniform(s), seed=seed).x
            table[name][s] = frechet_distance(model.judge.features(x), reference)
    real = model.data.decode(model.images(model.chosen(count, seed)))
    floor = frechet_distance(model.judge.features(real), reference).value
    curves = [
        Curve(name, LABELS.get(name, name), list(steps), [row[s].value for s in steps], [row[s].error for s in steps])
        for name, row in table.items()
    ]
    panel = Panel(f"{count} samples", "Frechet distance, features of the judge", curves, floor, "training images")
    save_curves([panel], Formula("steps $S$"), path, "Steps and noise of the chain (Sedykh's thesis, figure 4.2).")
    least = steps[0]
    best, *others = order = [table[name][least] for name in ("eta = 0", "eta = 1", "sigma-hat")]
    clear = [(other.value - best.value) / (other.error**2 + best.error**2) ** 0.5 for other in others]
    return Findings(
        f"in {least} steps the distance is {order[0].value:.3f} with eta = 0, {order[1].value:.3f} with eta = 1, "
        f"{order[2].value:.3f} with sigma-hat; {floor:.3f} of training images",
        min(clear) > 3,
        {
            "samples": count,
            "frechet": {n: {str(s): v.value for s, v in row.items()} for n, row in table.items()},
            "standard_error": {n: {str(s): v.error for s, v in row.items()} for n, row in table.items()},
            "floor": floor,
        },
        "Both others are larger than that of eta = 0 by more than three standard errors.",
    )


if __name__ == "__main__":
    main(__doc__, thesis_4_2)
