"""Steady states that are left: exactly when, and what rounding does.

Every eigenmode, scaled to the gradient energy R, is a steady state of the renormalised heat equation (Higham, Higham &
Grindrod, section 7). All but phi_1 are unstable: a part along phi_j, however small, grows against phi_k by a factor
exp((lambda_k - lambda_j) t). Because both modes are multiplied by the same e^rho(t), this linear law is exact for all
times, and the moment at which phi_j takes over is known: log(1 / delta) / (lambda_k - lambda_j), where delta is the
ratio of their gradient norms at the start.

A pure phi_k on a computer has rounding in its other modes, near 1e-17, and so it is left as well, at the time that this
delta predicts. (Which modes, and how much, depends on the machine's arithmetic.) Dropping what is below 1e-13 (`clean`)
keeps it for ever.

    python examples/heat_steady_states.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

import unidiff as ud
from unidiff import pde
from unidiff.plot import Formula, Graph, save_graphs

DELTAS = (1e-2, 1e-4, 1e-6, 1e-9)


def main() -> None:
    """Time the take-overs, once from a chosen disturbance and once from rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    domain = ud.pde.Interval(64)
    times = torch.linspace(0, 1.5, 30_001, dtype=torch.float64)

    print("phi_k disturbed by delta phi_1 (by gradient norm): when does phi_1 have half of the energy?")
    print("  k     delta   predicted    measured   unstable directions")
    lines = []
    for k in (2, 3, 5):
        unstable = pde.stability(domain, k).unstable
        for delta in DELTAS:
            start = ud.pde.Eigenmodes(((k, 1.0), (1, delta))).modes(domain)
            flow = pde.evolve_modes(domain, start, times)
            measured = float(times[int((flow.shares[:, 1] > 0.5).int().argmax())])
            predicted = pde.takeover_time(domain, k, 1, delta)
            print(f"  {k}   {delta:7.0e}   {predicted:9.5f}   {measured:9.5f}   {unstable}")
            assert 0 <= measured - predicted <= float(times[1])  # the first time of the table after it
            if k == 3:
                lines.append(
                    (
                        Formula(rf"$\delta=10^{{{round(math.log10(delta))}}}$"),
                        times[:8000].tolist(),
                        flow.shares[:8000, 1].tolist(),
                    )
                )

    print("Pure phi_k, given by its values on 64 cells: what rounding leaves in phi_1, and what becomes of it.")
    print("  k   delta found   predicted    measured   with clean=1e-13 at t = 1e9")
    rounding = []
    for k in range(2, 7):
        values = domain.to_values(domain.eigenmode(k))
        flow = pde.evolve(domain, values, times, R=1.0)
        modes = domain.to_modes(values)
        gone = flow.shares[:, k] < 0.5
        measured = float(times[int(gone.int().argmax())]) if bool(gone.any()) else math.inf
        # Whichever lower mode comes first: rounding need not favour phi_1.
        deltas = {j: float(modes[j].abs() * j / k) for j in range(1, k)}
        predicted = min(
            (pde.takeover_time(domain, k, j, delta) for j, delta in deltas.items() if delta > 0), default=math.inf
        )
        kept = pde.evolve(domain, values, 1e9, R=1.0, clean=1e-13)
        print(f"  {k}   {deltas[1]:11.1e}   {predicted:9.5f}   {measured:9.5f}   share {float(kept.shares[k]):.15f}")
        if measured < math.inf:
            assert abs(measured - predicted) < 0.02 * predicted
        assert float(kept.shares[k]) == 1
        rounding.append((Formula(rf"$\phi_{k}$"), times.tolist(), flow.shares[:, k].tolist()))

    graphs = [
        Graph(Formula(r"$\phi_3+\delta\,\phi_1$: $\phi_1$ takes over"), "t", Formula(r"share of $\phi_1$"), lines),
        Graph(Formula(r"Pure $\phi_k$, left because of rounding"), "t", Formula(r"share of $\phi_k$"), rounding),
    ]
    caption = Formula(
        r"Shares of the gradient energy on [0, 1], D = 1. Predicted: $\log(1/\delta)/(\lambda_k-\lambda_j)$."
    )
    save_graphs(graphs, arguments.out / "heat_steady_states.png", caption)


if __name__ == "__main__":
    main()
