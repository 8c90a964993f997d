"""The exact solution of the renormalised heat equation beside solvers that step through time: error and CPU seconds.

u_t = Laplace u + r u on cells of [0, 1] (or of the unit square) without flux, from eight waves, to T = 0.02 (square:
0.005). All methods solve the same semi-discrete system of the 3-point (5-point) Laplacian, from values to values; the
errors are relative to SciPy's DOP853 at a tolerance of 1e-13 for up to 64 cells a side, else to the exact solution.
Times are CPU seconds of one thread: the minimum of several runs where they are short. A method whose
whole run would take minutes runs over a part of the interval, and its time is scaled up: marked *.

Each optional package is timed if it is installed: torchdiffeq, and py-pde (`pip install py-pde`), whose adaptive
Runge-Kutta method is compiled by numba for each solve; that time is listed beside its own.

    OMP_NUM_THREADS=1 python benchmarks/heat_solvers.py
    OMP_NUM_THREADS=1 python benchmarks/heat_solvers.py --cells 4096
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

import unidiff as ud
from unidiff import pde

Solve = Callable[[pde.Domain, Tensor, float], Tensor]


def waves(*coordinates: Tensor) -> Tensor:
    return sum(
        math.cos(k * k) / k * math.prod(torch.cos((k + i) * math.pi * x) for i, x in enumerate(coordinates))
        for k in range(1, 9)
    )


def exact(domain: pde.Domain, u0: Tensor, t: float) -> Tensor:
    return pde.evolve(domain, u0, t).values


def simulated(simulator: pde.Simulator) -> Solve:
    return lambda domain, u0, t: simulator.simulate(domain, u0, t)[0]


def by_expm(domain: pde.Domain, u0: Tensor, t: float) -> Tensor:
    """The heat flow by scipy's action of the matrix exponential, rescaled once."""
    from scipy.sparse.linalg import expm_multiply

    laplacian, u = domain.laplacian(), (u0 - u0.mean()).flatten().numpy()
    v = expm_multiply(t * laplacian, u, traceA=t * laplacian.trace())
    return torch.from_numpy(v * math.sqrt((u @ (laplacian @ u)) / (v @ (laplacian @ v)))).reshape(u0.shape)


def with_py_pde(domain: pde.Domain, u0: Tensor, t: float) -> tuple[Tensor, float, float]:
    """Values, seconds of the solver and seconds of numba's compilation."""
    import importlib

    import numba

    py_pde = importlib.import_module("pde")

    class Rayleigh(py_pde.PDEBase):
        def evolution_rate(self, state, t=0):
            heat = state.laplace(bc={"derivative": 0})
            return heat - (heat.data**2).sum() / (state.data * heat.data).sum() * state

        def make_pde_rhs_numba(self, state, **options):
            laplace = state.grid.make_operator("laplace", bc={"derivative": 0})

            @numba.njit
            def right(u, t):
                heat = laplace(u)
                return heat - (heat**2).sum() / (u * heat).sum() * u

            return right

        _make_pde_rhs_numba = make_pde_rhs_numba

    grid = py_pde.CartesianGrid([[0, 1]] * u0.ndim, list(u0.shape))
    state = py_pde.ScalarField(grid, (u0 - u0.mean()).numpy())
    found, facts = Rayleigh().solve(
        state, t_range=t, dt=1e-9, adaptive=True, solver="runge-kutta", tolerance=1e-8, backend="numba",
        tracker=None, ret_info=True,
    )  # fmt: skip
    compiling = facts["controller"]["profiler"]["compilation"]
    u = torch.from_numpy(found.data)
    laplacian = domain.laplacian()

    def energy(u: Tensor) -> float:
        return float(u.flatten().numpy() @ (laplacian @ u.flatten().numpy()))

    return u * math.sqrt(energy(u0 - u0.mean()) / energy(u)), facts["controller"]["profiler"]["solver"], compiling


def seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """CPU seconds of the fastest of up to 30 runs, within 2 s."""
    best, begun = math.inf, time.perf_counter()
    for _ in range(30):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
        if time.perf_counter() - begun > 2:
            break
    return best, result


def methods(cells: int, dimension: int) -> list[tuple[str, Solve, float]]:
    """Name, method and which part of the interval it runs over."""
    total = cells**dimension
    part = 1.0 if cells < 1000 else 0.05 if cells < 4000 else 0.002
    found: list[tuple[str, Solve, float]] = [("exact (evolve)", exact, 1.0)]
    share = 1.0 if total < 10_000 else 0.01
    found.append(("SDIRK2, 2000 steps", simulated(pde.SDIRK2(round(2000 * share))), share))
    found += [(f"ETDRK4, {steps} steps", simulated(pde.ETDRK4(steps)), 1.0) for steps in (100, 1000) if total < 10_000]
    if total <= 1024:
        found.append(("expm_multiply, rescaled", by_expm, 1.0))
    if total <= 256:
        for method in ("LSODA", "BDF", "Radau"):
            found.append((f"{method}, rtol 1e-8", simulated(pde.MethodOfLines(method, 1e-8)), 1.0))
    found.append(("RK45, rtol 1e-8", simulated(pde.MethodOfLines("RK45", 1e-8)), part if dimension == 1 else 0.2))
    if importlib.util.find_spec("torchdiffeq"):
        short = 0.1 if total <= 1024 and dimension == 1 and cells > 64 else part
        short = short if dimension == 1 else 0.02 if cells > 100 else 1.0
        found.append(("torchdiffeq dopri5, 1e-8", simulated(pde.TorchMethodOfLines("dopri5", 1e-8)), short))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[64, 256, 1024, 4096])
    parser.add_argument("--square", type=int, nargs="*", default=[28, 256])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problems = [(ud.pde.Interval(n, 1.0, ud.pde.FiniteDifferences()), n, 1, 0.02) for n in arguments.cells]
    problems += [
        (ud.pde.Rectangle((n, n), (1.0, 1.0), ud.pde.FiniteDifferences()), n, 2, 0.005) for n in arguments.square
    ]
    for domain, n, dimension, t in problems:
        u0 = domain.field(waves)
        print(f"\n{n} cells" if dimension == 1 else f"\n{n} x {n} cells", f"to t = {t:g}", flush=True)
        print(f"  {'method':26} {'CPU seconds':>12} {'error':>9} {'of exact':>9}")
        unit = math.nan
        for name, solve, part in methods(n, dimension):
            end = t * part
            spent, found = seconds(lambda: solve(domain, u0, end))  # noqa: B023 (called at once)
            if n <= 64:
                truth = pde.MethodOfLines("DOP853", 1e-13).simulate(domain, u0, end)[0]
            else:
                truth = exact(domain, u0, end)
            unit = spent if math.isnan(unit) else unit
            show(name, spent / part, part, relative(found, truth), unit)
        if importlib.util.find_spec("pde"):
            part = 1.0 if n < 1000 else 0.05 if n < 4000 else 0.01
            found, solving, compiling = with_py_pde(domain, u0, t * part)
            error = relative(found, exact(domain, u0, t * part))
            show("py-pde Runge-Kutta, 1e-8", solving / part, part, error, unit, f"(+ {compiling:.1f} s compilation)")


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def show(name: str, spent: float, part: float, error: float, unit: float, more: str = "") -> None:
    star = "*" if part < 1 else " "
    print(f"  {name:26} {spent:11.2e}{star} {error:9.1e} {spent / unit:9.3g} {more}", flush=True)


if __name__ == "__main__":
    main()
