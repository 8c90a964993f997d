"""What `unidiff tune` gains on the cases of default_solver.py, on seeds that it has not seen.

Beside it stand the default, and the best of all multistep methods and grids of diffusers, chosen for each case and
number of evaluations by looking at the answer. As many samples are fitted to as are held out. Weights are fitted up to
10 evaluations, for points in the plane up to 20. With --elsewhere each fit is judged on the other models of samples of
the same shape, which were not used, and at 10 evaluations the published schedules of Align Your Steps (Sabour et al.
2024, the 10-step noise scales of Stable Diffusion 1.5 and XL; best of the default solver and UniPC(2), DPMSolver(2) on
them) are tried: they were fitted to other models, so that they are points of reference, no rivals.

    python benchmarks/tuning.py [--nfe 5 10] [--only mixture-2d] [--elsewhere]
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from typing import Any
from unittest import mock

import torch
from default_solver import COUNTS, F64, PROCESS, Case, cases, opened
from rows import machine
from solvers import problems

import unidiff as ud

ALIGN_YOUR_STEPS = {
    "1.5": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "XL": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
}
HEAD = ("case", "nfe", "default", "best", "ratio", "tuned", "ratio", "weights", "ratio", "CPU s", "the best; the fit")
WIDTHS = (20, 4, 9, 9, 6, 9, 6, 9, 6, 6, 0)


def published_grid(noise_scales: tuple[float, ...], process: ud.Process) -> ud.FixedGrid:
    """As many evaluations as a published schedule, at its noise scales but for the process's own first and last."""
    inner = torch.tensor(noise_scales[1:-1], dtype=F64)
    return ud.FixedGrid(tuple(process.time_at(-2 * inner.log()).tolist()))


class Remembered:
    """The flows of a model, each followed once however often a fit begins."""

    def __init__(self) -> None:
        self.flow, self.known = ud.evaluation.reference_flow, dict[Any, Any]()

    def __call__(self, model: ud.Denoiser, shape: Any, seeds: Any, **options: Any) -> Any:
        key = id(model), *seeds
        if key not in self.known:
            self.known[key] = self.flow(model, shape, seeds, **options)
        return self.known[key]


def line(cells: tuple[object, ...]) -> None:
    first, *others = (f"{cell:.2e}" if isinstance(cell, float) else str(cell) for cell in cells)
    words = (cell.rjust(width) for cell, width in zip(others, WIDTHS[1:]))
    print(first.ljust(WIDTHS[0]), *words, sep="  ", flush=True)


def row(name: str, case: Case, nfe: int, others: list[tuple[str, ud.Denoiser]]) -> int:
    """Print the row of a case at a number of evaluations: 1 if both goals are met, else 0."""
    begun = time.process_time()
    with torch.inference_mode():
        default, (best, whose) = case.of_default(nfe), case.of_best(nfe)
    options: dict[str, Any] = {**case.flow, "others": others}
    cells, words, ratios = [default, best, f"{default / best:.2f}"], [whose], [math.inf]
    for coefficients in (False, True):
        if coefficients and nfe > (20 if case.shape == (2,) else 10):
            cells += ["-", "-"]
            continue
        fit = ud.tune(case.model, nfe, case.shape, case.count, case.held, coefficients=coefficients, **options)
        ratios.append(fit.error / best)
        cells += [fit.error, f"{ratios[-1]:.2f}"]
        if not coefficients:
            words.append(repr(fit.solver))
        if others:
            words.append("elsewhere " + ", ".join(f"{each.what} {each.ratio:.2f}" for each in fit.rows if each.what))
    line((name, nfe, *cells, f"{time.process_time() - begun:.0f}", "; ".join(words)))
    return default <= best and min(ratios) <= 0.7


def published(name: str, case: Case) -> None:
    """Print the errors of the published schedules, of 10 evaluations."""
    for key, scales in ALIGN_YOUR_STEPS.items():
        grid = published_grid(scales, PROCESS)
        errors = [case.error(solver, grid) for solver in (ud.ExponentialAdams(), ud.UniPC(2), ud.DPMSolver(2))]
        print(f"{name}, Align Your Steps {key}: {min(errors):.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--only", nargs="+", choices=cases(), default=[*cases()], metavar="CASE")
    parser.add_argument("--elsewhere", action="store_true", help="judge on the other problems of the same shape, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    line(HEAD)
    met = tried = 0
    for name in arguments.only:
        case = opened(name)
        every = {key: problem.model(PROCESS) for key, problem in problems().items()} if arguments.elsewhere else {}
        others = [(key, model) for key, model in every.items() if key != name and model.shape == case.shape]
        with mock.patch("unidiff.evaluation.tune.reference_flow", Remembered()):
            for nfe in arguments.nfe:
                met, tried = met + row(name, case, nfe, others), tried + 1
        if arguments.elsewhere:
            published(name, case)
    print(f"Default <= 1.0 and the better fit <= 0.7 of the best in {met} of {tried} rows. {machine()}")


if __name__ == "__main__":
    main()
