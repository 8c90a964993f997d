r"""
A score you can see
===================

Noise is added to data, :math:`u_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon`, until nothing of them is left. What a
diffusion model learns is the **score** of the noisy data, :math:`\nabla \log p_t(u)`: the direction in which they
become more likely. For data of two Gaussians it is a formula, so that nothing needs to be learned, and all can be seen.
"""

# %%
# The data are at -1 and +1, each with standard deviation 0.2. ``GaussianMixture`` is their exact model.
import matplotlib.pyplot as plt
import torch

import unidiff as ud

plt.style.use("tableau-colorblind10")
process = ud.VPSDE()
model = ud.GaussianMixture(process, [[-1.0], [1.0]], 0.2**2)

# %%
# Density and score at four times. At t = 0.05 each point is drawn to the nearer mode, steeply; at t = 1 the noisy data
# are N(0, 1), whose score is -u: noise has forgotten the data.
u = torch.linspace(-3, 3, 301, dtype=torch.float64)[:, None]
figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(6, 5), layout="constrained")
for t, line in zip((0.05, 0.12, 0.25, 1.0), ("-", "--", "-.", ":")):
    level = process.level(t)
    variance = (level.alpha * 0.2) ** 2 + level.sigma**2
    density = sum(torch.exp(-((u - level.alpha * m) ** 2) / (2 * variance)) / 2 for m in (-1, 1))
    density /= (2 * torch.pi * variance) ** 0.5
    above.plot(u, density, line, label=f"t = {t}")
    below.plot(u, model(u, level).score, line)
above.set(ylabel="density of $u_t$")
above.legend()
below.set(ylabel=r"score $\nabla\,\log\,p_t(u)$", xlabel="u", ylim=(-15, 15))

# %%
# A network would give a prediction of the clean data, of the noise, or of the score. They are the same statement:
# with :math:`\hat x_0` and :math:`\hat\varepsilon` the means of data and noise given u, the score is
# :math:`-\hat\varepsilon / \sigma`, and :math:`\alpha \hat x_0 + \sigma \hat\varepsilon = u`.
level = process.level(0.3)
prediction = model(u, level)
assert torch.allclose(prediction.score, -prediction.eps / level.sigma)
assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, u)

# %%
# A sampler follows the score from noise to data. Here are 20 paths along the probability flow, and the histogram of
# 2,000 samples beside the density of the data.
paths = ud.sample(model, ud.DDIM(), ud.Uniform(100), seeds=20, keep=101)
samples = ud.sample(model, seeds=2000).x.flatten()
figure, (left, right) = plt.subplots(1, 2, width_ratios=(2, 1), sharey=True, figsize=(7, 3.5), layout="constrained")
left.plot(paths.times[: len(paths.path)], torch.stack([state.u for state in paths.path])[:, :, 0], color="C0", lw=0.8)
left.set(xlabel="t, from noise (left) to data (right)", ylabel="u", xlim=(1, 0))
x = torch.linspace(-2, 2, 200)
right.hist(samples, 60, density=True, orientation="horizontal", color="C1")
right.plot(sum(torch.exp(-((x - m) ** 2) / 0.08) for m in (-1, 1)) / (2 * 0.2 * (2 * torch.pi) ** 0.5), x, "k")
right.set(xlabel="density")

# %%
# Your own score is a function. For data N(1, 0.3²) on a process with :math:`\alpha = 1` it is
# :math:`(1 - u) / (0.3^2 + \sigma^2)`:
rising = ud.VESDE()
own = ud.FromFunction(rising, ud.Score(), lambda u, sigma: (1 - u) / (0.3**2 + sigma**2), shape=(1,))
x = ud.sample(own, seeds=400).x
print(f"mean {x.mean():.3f} (1), standard deviation {x.std():.3f} (0.3)")

# %%
# **Now you can** look at the score of any mixture, make a model of a score of your own, and sample it.
