"""Equation (22), as printed, cannot be integrated for long: the surface it lives on repels.

Higham, Higham & Grindrod keep the gradient energy R by r = (integral of (Laplace u)^2) / R with R *frozen* at its
initial value, their equation (22). On paper the energy stays R. Off the surface, with q = integral |grad u|^2 / R, the
equation says q' = 2 nu q (q - 1), nu = integral (Laplace u)^2 / integral |grad u|^2: a q below 1 falls to 0, a q above
1 blows up, and the defect (q - 1) / q grows by a factor e^(2 rho), rho = the integral of nu. On [0, 1] the exponent
passes 40 by t = 2: what a solver gets wrong in the tenth digit, or rounding in the sixteenth, is everything by then.

Dividing by the energy that the field has *now* (the Rayleigh quotient) makes q' = 0: neutral. And the exact solution
needs no equation for q at all.

    python examples/heat_equation22_instability.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff import pde
from unidiff.plot import Formula, Graph, save_graphs

TIMES = [0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
RTOL = 1e-9


def start(x: Tensor) -> Tensor:
    """Eight waves."""
    return sum((math.cos(k * k) / k * torch.cos(k * math.pi * x) for k in range(1, 9)), torch.zeros_like(x))


def main() -> None:
    """Integrate both forms with the same methods, and compare them with the exact solution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    domain = ud.pde.Interval(48, 1.0, ud.pde.FiniteDifferences())
    u0 = domain.field(start)
    exact = pde.evolve(domain, u0, TIMES)
    exponent = 2 * exact.growth

    def errors(values: Tensor) -> list[float]:
        off = (values - exact.values).norm(dim=1) / exact.values.norm(dim=1)
        return off.nan_to_num(1.0).clamp(1e-17, 1.0).tolist()

    rows: dict[str, list[float]] = {}
    defects = {}
    for method in ("RK45", "Radau"):
        values, q = pde.equation_22_with_frozen_R(domain, u0, TIMES, method=method, rtol=RTOL)
        rows[f"(22), R frozen, {method}"] = errors(values)
        defects[method] = ((q - 1) / q).abs()
        rows[f"Rayleigh, {method}"] = errors(pde.MethodOfLines(method, RTOL).simulate(domain, u0, TIMES))
    print(f"Relative error of u; tolerance {RTOL:g} for all methods.")
    print(f"{'t':>22}  " + "  ".join(f"{t:7g}" for t in TIMES))
    print(f"{'2 rho(t)':>22}  " + "  ".join(f"{value:7.1f}" for value in exponent.tolist()))
    for name, row in rows.items():
        print(f"{name:>22}  " + "  ".join(f"{value:7.0e}" for value in row))

    # The claims: (22) has lost everything by t = 2, the Rayleigh form nothing; the defect grows like e^(2 rho).
    for method, defect in defects.items():
        assert rows[f"(22), R frozen, {method}"][-1] > 0.9
        assert max(rows[f"Rayleigh, {method}"]) < 1e-7
        rates = defect.log().diff() / exponent.diff()
        seen = rates[1:4]  # after the steps' own defects, before q has left
        print(f"{method}: growth of log |(q - 1) / q| per 2 rho, from t = 0.25 to 1: {seen.mean():.3f} (theory: 1)")
        assert abs(float(seen.mean()) - 1) < 0.1

    lines = [(name, TIMES, row) for name, row in rows.items()]
    growth = [(method, TIMES, defect.tolist()) for method, defect in defects.items()]
    scale = 30 * float(defects["RK45"][2] / exponent[2].exp())
    growth.append((Formula(r"slope of $e^{2\rho}$"), TIMES, (scale * exponent.exp()).tolist()))
    graphs = [
        Graph("Error", "t", "relative error of u", lines, "y", (1e-17, 1e13)),  # with room for the legend
        Graph("The defect of the gradient energy", "t", Formula("$|q-1|/q$"), growth, "y"),
    ]
    caption = Formula(
        "48 cells on [0, 1], D = 1, tolerance $10^{-9}$. An error of 1: the solution has vanished or blown up."
    )
    save_graphs(graphs, arguments.out / "heat_equation22_instability.png", caption)


if __name__ == "__main__":
    main()
