"""Any shape: the eigenmodes of a rectangle, an L and a disk, and the field that wins on each.

On a rectangle the eigenmodes are products of cosines. On any other shape they are found: the shape is cut into cells,
the Laplacian without flux through the border is a sparse matrix, and its lowest eigenmodes are all that the exact
solution of the renormalised heat equation (Higham, Higham & Grindrod, section 7) needs. Few modes suffice, for what
they cannot express decays first.

The eigenvalues are held against those of the literature: pi^2 (m^2/a^2 + n^2/b^2) on the rectangle, M. Dauge's
benchmark on the L (its inner corner costs lambda_1 an order: h^(4/3)), the squared zeros of the derivatives of Bessel
functions on the disk (whose staircase of a border costs h).

    python examples/heat_domains.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from scipy.special import jnp_zeros

import unidiff as ud
from unidiff import pde
from unidiff.plot import save_fields

CELLS, MODES = 96, 60
TIMES = [0.0, 0.01, 0.05, 0.2, 2.0]


def disk(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The unit disk about (1, 1)."""
    return (x - 1) ** 2 + (y - 1) ** 2 < 1


def main() -> None:
    """Compare eigenvalues, then let one rough field loose on each domain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    corners = ((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))
    bessel = sorted(float(zero) ** 2 for m in range(5) for zero in jnp_zeros(m, 3) for _ in range(1 if m == 0 else 2))
    cosines = sorted(math.pi**2 * ((m / 2) ** 2 + (n / 1.5) ** 2) for m in range(6) for n in range(6))
    # Domain, eigenvalues of the literature, and what the cells may cost.
    h = 2 / CELLS
    shapes: dict[str, tuple[pde.Domain, list[float], float]] = {
        "rectangle": (
            ud.pde.Rectangle((CELLS, 72), (2.0, 1.5), ud.pde.FiniteDifferences()),
            cosines[1:6],
            h**2 * cosines[5] / 12,
        ),
        "L": (
            ud.pde.Polygon(corners, CELLS, MODES),
            [1.47562182408, 3.53403136678, math.pi**2, math.pi**2, 11.3894793979],
            h ** (4 / 3),
        ),
        "disk": (ud.pde.Mask.where(disk, (CELLS, CELLS), (2.0, 2.0), MODES), bessel[:5], h),
    }
    print(f"Relative error of lambda_1 ... lambda_5, cells of side {h:.4f}:")
    pictures = []
    for name, (domain, literature, allowed) in shapes.items():
        order = domain.order()
        found = domain.eigenvalues.flatten()[order[1:6]]
        errors = (found / torch.tensor(literature, dtype=torch.float64) - 1).abs()
        print(f"  {name:10}" + "  ".join(f"{error:8.1e}" for error in errors.tolist()) + f"   allowed {allowed:.1e}")
        assert errors.max() < allowed

        flow = pde.evolve_modes(domain, ud.pde.RandomField(1).modes(domain), TIMES, R=1.0)
        shares = flow.shares.flatten(1)[:, order]
        assert (domain.gradient_energy(flow.modes) - 1).abs().max() < 1e-12
        assert (flow.r.diff() < 0).all()
        # The disk has two modes with the lowest eigenvalue: they share the energy for ever.
        lowest = shares[:, 1] if name != "disk" else shares[:, 1:3].sum(1)
        titles = [f"t = {t:g}\n{share:.0%} of R" for t, share in zip(TIMES, lowest.tolist())]
        assert lowest[-1] > 0.98
        pictures.append(list(zip(domain.image(flow.values), titles)))

    print("How many modes? Relative difference from 120 modes on the L:")
    fine = ud.pde.Polygon(corners, 48, 120)
    u0 = fine.to_values(ud.pde.RandomField(1).modes(fine))
    truth = pde.evolve(fine, u0, TIMES[1:], R=1.0).values
    print("  modes " + "  ".join(f"t = {t:<6g}" for t in TIMES[1:]))
    for modes in (10, 20, 40):
        few = pde.evolve(ud.pde.Polygon(corners, 48, modes), u0, TIMES[1:], R=1.0).values
        errors = (few - truth).norm(dim=1) / truth.norm(dim=1)
        print(f"  {modes:5} " + "  ".join(f"{error:10.1e}" for error in errors.tolist()))
        assert (errors.diff() < 0).all()
        assert errors[-1] < 1e-6

    caption = "One random field on each domain, its gradient energy kept at R = 1; above each, the lowest mode's share."
    save_fields(pictures, [(2.0, 1.5), (2.0, 2.0), (2.0, 2.0)], arguments.out / "heat_domains.png", caption, [*shapes])


if __name__ == "__main__":
    main()
