r"""
Why grids matter
================

A sampler asks its model at N times. Which times are taken matters more than the method between them. On an exact model
all error is that of the sampler, so that it can be measured.
"""

# %%
# The exact model of eight Gaussians on a circle, the noise of 500 seeds, and where the probability flow takes them.
import matplotlib.pyplot as plt
import torch

import unidiff as ud

plt.style.use("tableau-colorblind10")
ring = ud.data.Ring()
model = ud.GaussianMixture(ud.DDPM(), ring.means, ring.std**2)
truth = ud.evaluation.reference_flow(model, (2,), 500).x

# %%
# Four grids of 20 steps, as values of the noise-to-signal ratio :math:`\sigma / \alpha`. ``Uniform`` is equal in t: it
# spends most of its steps where the ratio is above 1, and leaves nearly all of what is below to one step at the end.
grids = {"Uniform": ud.Uniform, "LogSNR": ud.LogSNR, "Karras": ud.Karras, "Tapered": ud.Tapered}
figure, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
for row, grid in enumerate(grids.values()):
    levels = [model.process.level(t) for t in grid(20).times(model.process)[:-1]]
    axis.plot([float(level.sigma / level.alpha) for level in levels], [row] * len(levels), "o", ms=4)
axis.set(xscale="log", xlabel=r"$\sigma/\alpha$", yticks=range(4), yticklabels=grids, ylim=(3.6, -0.6))


# %%
# The root mean square error of the samples, against the number of evaluations, for a first-order method and for the
# default, of fourth order.
def error(solver: ud.Solver, grid: ud.Grid) -> float:
    """Distance of the samples from the flow's ends."""
    x = ud.sample(model, solver, grid, (2,), seeds=500, dtype=torch.float64).x
    return float((x - truth).square().mean().sqrt())


steps = (5, 10, 20, 50, 100)
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(8, 3.4), layout="constrained")
for axis, solver in zip(axes, (ud.DDIM(), ud.ExponentialAdams())):
    for (name, grid), marker in zip(grids.items(), "osD^"):
        axis.plot(steps, [error(solver, grid(n)) for n in steps], marker=marker, ms=4, label=name)
    axis.set(xscale="log", yscale="log", xlabel="evaluations", title=type(solver).__name__)
    axis.set_xticks(steps, [str(n) for n in steps])
    axis.minorticks_off()
axes[0].set_ylabel("root mean square error")
axes[0].legend()

# %%
# The order of a method is visible on a good grid alone: with ``Uniform`` both fall at the rate of their last step.
best = {name: error(ud.ExponentialAdams(), grid(20)) for name, grid in grids.items()}
for name, value in best.items():
    print(f"ExponentialAdams, 20 steps, {name:8} {value:.1e}")
assert best["Tapered"] < best["Uniform"] / 5

# %%
# **Now you can** choose a grid with your eyes open, and measure any pair of solver and grid on an exact model. On a
# network of yours, ``unidiff compare RUN`` measures, and ``unidiff tune RUN`` fits both.
