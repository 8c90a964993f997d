r"""
From DDPM to SDE to flow, on one ring
=====================================

DDPM, score-based models with stochastic differential equations, and flow matching differ in two functions,
:math:`\alpha(t)` and :math:`\sigma(t)`. Here each of them noises the same eight Gaussians on a circle, and one solver
draws from all.
"""

# %%
# Four processes, one set of data. ``GaussianMixture`` is the exact model on each.
import matplotlib.pyplot as plt
import torch

import unidiff as ud

plt.style.use("tableau-colorblind10")
ring = ud.data.Ring()
processes = {
    "DDPM": ud.DDPM(),
    "VP-SDE": ud.VPSDE(),
    "NCSN": ud.NCSN(0.01, 5.0, 100),
    "flow matching": ud.FlowMatching(),
}
models = {name: ud.GaussianMixture(process, ring.means, ring.std**2) for name, process in processes.items()}

# %%
# The two functions. DDPM is the VP-SDE at 1,000 times; NCSN keeps the data and adds ever more noise; flow matching goes
# from data to noise in a straight line.
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for (name, process), line in zip(processes.items(), ("-", "--", "-.", ":")):
    times = torch.linspace(float(process.t_min), 1, 101, dtype=torch.float64)
    levels = [process.level(t) for t in times]
    axes[0].plot(times, [float(level.alpha) for level in levels], line, label=name)
    axes[1].plot(times, [float(level.sigma) for level in levels], line)
axes[0].set(xlabel="t", ylabel=r"$\alpha(t)$")
axes[1].set(xlabel="t", ylabel=r"$\sigma(t)$", yscale="log")
axes[0].legend()

# %%
# The same solver, ``Ancestral``, walks back on each of them with fresh noise in every step; ``DDIM`` walks back without
# any. The paths differ, the samples have one distribution.
figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
for column, (name, model) in enumerate(models.items()):
    for row, solver in enumerate((ud.Ancestral(), ud.DDIM())):
        solution = ud.sample(model, solver, ud.LogSNR(60) if name == "NCSN" else ud.Uniform(60), seeds=300, keep=61)
        path = torch.stack([state.u for state in solution.path])[:, :6]
        scale = path[0].abs().max().clamp(min=2)
        axes[row, column].plot(path[..., 0], path[..., 1], lw=0.6, alpha=0.7)
        axes[row, column].scatter(*solution.x.T, s=2, color="k", zorder=3)
        axes[row, column].set(xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[], aspect="equal")
    axes[0, column].set_title(name, fontsize=9)
axes[0, 0].set_ylabel("with fresh noise")
axes[1, 0].set_ylabel("without")

# %%
# At equal signal-to-noise ratio the states of two processes differ by a factor alone. So a model of one is a model of
# the other: ``Rescheduled`` samples the DDPM as a flow, and with enough steps the same noise gives the same points.
as_flow = ud.Rescheduled(models["DDPM"], ud.FlowMatching(t_min=0.01))
here = ud.sample(models["DDPM"], ud.DDIM(), ud.LogSNR(200), seeds=100, dtype=torch.float64).x
there = ud.sample(as_flow, ud.Heun(), ud.Uniform(200), seeds=100, dtype=torch.float64).x
print(f"share of samples within 0.05 of one another: {((here - there).norm(dim=1) < 0.05).double().mean():.2f}")

# %%
# **Now you can** choose a process by its two functions, put any solver on it, and carry a model from one to another.
