r"""
The heat equation keeps its gradient
====================================

The heat equation smooths until nothing is left. Higham, Higham & Grindrod (2023, section 7) rescale its solution so
that the norm of the gradient stays what it was: with :math:`R = \int |\nabla u|^2`,

.. math:: \partial_t u = \Delta u + r(t)\, u, \qquad r(t) = \frac{1}{R} \int (\Delta u)^2 .

Nothing fades, and yet everything but the lowest eigenmode disappears.
"""

# %%
# On an interval the modes are cosines. The solution is exact at any time: each mode is multiplied by its own factor.
import matplotlib.pyplot as plt
import torch

import unidiff as ud
from unidiff import pde

plt.style.use("tableau-colorblind10")
domain = pde.Interval(256)
x = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
times = [0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
flow = pde.evolve(domain, lambda x: (9 * x).sin() + 0.5 * (40 * x).cos(), times)

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for t, values, line in zip(times, flow.values, ("-", "--", "-.", ":", "-", "--")):
    axis.plot(x, values, line, label=f"t = {t:g}")
axis.set(xlabel="x", ylabel="u(x, t)")
axis.legend(ncols=3, fontsize=8, loc="lower left")

# %%
# The gradient energy at these times, and the multiplier r(t), which falls to the lowest eigenvalue, :math:`\pi^2`.
energy = (domain.eigenvalues * flow.modes**2).sum(-1)
for t, e, r in zip(times, energy, flow.r):
    print(f"t = {t:6g}   gradient energy {float(e):.6f}   r {float(r):10.4f}")
assert torch.allclose(energy, flow.R.expand_as(energy), rtol=1e-10)
assert abs(float(flow.r[-1]) - torch.pi**2) < 0.05 * torch.pi**2

# %%
# Which mode has the energy? The shares are a Gibbs law in the eigenvalues, whose temperature falls with time.
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
image = axis.imshow(flow.shares[:, 1:21], aspect="auto", cmap="viridis", vmin=0, vmax=1, extent=(0.5, 20.5, 5.5, -0.5))
axis.set(xlabel="mode", xticks=range(1, 21), yticks=range(6), yticklabels=[f"t = {t:g}" for t in times])
figure.colorbar(image, label="share of the gradient energy")

# %%
# As a noising process, ``RenormalizedHeat`` blurs an image and adds noise to what was taken away, so that the expected
# gradient energy is conserved. A network that was trained on it draws digits from smooth noise; here are 6 of them, on
# their way from t = 1 (left) to t = 0.
run = ud.load("shipped:heat_digits")
solution = ud.sample(run.denoiser, grid=ud.ArcLength(20), seeds=6, keep=8)
figure, axes = plt.subplots(1, len(solution.path), figsize=(8, 5.2), layout="constrained")
for axis, state in zip(axes, solution.path):
    axis.imshow(torch.cat(list(state.u[:, 0])), cmap="gray", vmin=-1.5, vmax=1.5, interpolation="nearest")
    axis.set(xticks=[], yticks=[])

# %%
# **Now you can** evolve any initial condition on an interval, a rectangle, a mask or a polygon at any time, and see
# where its energy goes. The derivations are in the page on the renormalised heat equation.
