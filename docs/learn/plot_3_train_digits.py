r"""
Train on digits, and look inside
================================

A network learns to remove noise from the 8x8 digits of scikit-learn. This page trains for some seconds, so that it can
be run anywhere; then it looks inside of the same network after its full training, which comes with the package.
"""

# %%
# A model is a process, what the network predicts, and the network. ``Denoising`` is the loss of Ho et al. 2020, eq. 14.
import matplotlib.pyplot as plt
import torch

import unidiff as ud

plt.style.use("tableau-colorblind10")
data = ud.data.Digits().open()
network = ud.UNet(shape=(1, 8, 8), width=16, multipliers=(1, 2), blocks=1)
model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network)
losses = {}
averaged = ud.train(
    model,
    data,
    ud.Denoising(),
    ud.Training(steps=80, batch=32, lr=4e-3, warmup=8, ema=0.9, log_every=2),
    on_step=lambda progress: losses.update({progress.step: progress.loss} if progress.loss else {}),
)
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.plot(*zip(*losses.items()))
axis.set(xlabel="step", ylabel="loss", ylim=(0, 1))


# %%
# One function shows images, (B, 1, H, W) in [-1, 1].
def show(rows: dict[str, torch.Tensor]) -> None:
    """A row of images for each entry."""
    _, axes = plt.subplots(len(rows), 1, figsize=(7, 0.95 * len(rows)), layout="constrained", squeeze=False)
    for axis, (name, images) in zip(axes[:, 0], rows.items()):
        axis.imshow(torch.cat(list(images[:, 0]), 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")


# %%
# What 80 steps draw is stroke-like at best. ``shipped:ddpm_digits`` was trained in the same way, for 1,000 steps with
# twice the width.
trained = ud.load("shipped:ddpm_digits").denoiser
show(
    {
        "80 steps": ud.sample(averaged, ud.DDIM(), ud.Uniform(15), seeds=8).x,
        "1,000 steps": ud.sample(trained, ud.DDIM(), ud.Uniform(15), seeds=8).x,
        "data": data.batch(torch.arange(8)),
    }
)

# %%
# Inside: one digit at rising noise, and the network's guess of the clean image, :math:`E[x_0 \mid u_t]`. With little
# noise it is the digit; with much of it the mean of all digits that it might
# have been. At t = 1 the signal is :math:`\alpha = 0.006` of the state, and a network that predicts noise has its error
# divided by that: one reason to predict ``X0`` or ``V``.
x = data.batch(torch.tensor([3]))
noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
times = [0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]
noisy, guesses = [], []
with torch.no_grad():
    for t in times:
        level = trained.process.level(t)
        noisy.append(float(level.alpha) * x + float(level.sigma) * noise)
        guesses.append(trained(noisy[-1], level).x0)
show({"noisy": torch.cat(noisy).clamp(-1, 1), "guess": torch.cat(guesses).clamp(-1, 1)})

# %%
# Where is the loss? The error of the guessed noise falls with t: seeing noise under an image is hard when there is
# little of it, and the image is all that it could be confused with.
x, noise = data.batch(torch.arange(100)), torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(1))
errors = []
with torch.no_grad():
    for t in times:
        level = trained.process.level(t)
        prediction = trained(float(level.alpha) * x + float(level.sigma) * noise, level)
        errors.append(float((prediction.eps - noise).square().mean()))
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.plot(times, errors, "o-")
axis.set(xlabel="t", ylabel="squared error of the noise", yscale="log")

# %%
# **Now you can** train a model, follow its loss, and ask it what it sees at any noise. The same as a run that can be
# stopped and resumed is ``unidiff run ddpm_digits``.
