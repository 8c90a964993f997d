r"""
A diffusers checkpoint: nine solvers, and fine-tuning
=====================================================

A folder that diffusers saved is a model like any other: any solver samples it, and it can be trained further. Nothing
is downloaded here: the model of digits that comes with the package is exported first, and then read as a stranger's.
"""

# %%
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unidiff as ud
from unidiff.interop.diffusers import export, load

plt.style.use("tableau-colorblind10")
folder = export("shipped:ddpm_digits", Path(tempfile.mkdtemp()) / "digits").directory
shutil.rmtree(folder / "unidiff")  # what is left is what diffusers' save_pretrained writes
print(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))

# %%
# ``load`` takes a folder or a name on the hub. Clipping is switched off: with it, each sampler has an equation of its
# own.
model = load(folder, scheduler={"clip_sample": False})
print(model.process)

# %%
# Nine deterministic solvers from the same noise follow one flow. With 10 steps they differ in how far they got.
solvers = {
    "DDIM": ud.DDIM(),
    "Euler": ud.Euler(),
    "Heun": ud.Heun(),
    "DPM-Solver++ 2": ud.DPMSolver(2),
    "DPM-Solver 3": ud.DPMSolverSinglestep(3),
    "UniPC": ud.UniPC(),
    "DEIS": ud.DEIS(),
    "Adams-Bashforth": ud.AdamsBashforth(),
    "exponential Adams": ud.ExponentialAdams(),
}
limit = ud.sample(model, grid=ud.Tapered(30), seeds=4).x
figure, axes = plt.subplots(9, 1, figsize=(4.4, 7.6), layout="constrained")
for axis, (name, solver) in zip(axes, solvers.items()):
    solution = ud.sample(model, solver, ud.Tapered(10), seeds=4)
    error = float((solution.x - limit).square().mean().sqrt())
    axis.imshow(torch.cat(list(solution.x[:, 0]), 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(
        f"{name}\n{solution.nfe} evaluations\nerror {error:.3f}", rotation=0, ha="right", va="center", fontsize=7
    )

# %%
# Fine-tuning is training from these weights. Here the digits are turned white on black to black on white; a few steps
# do.
ink = -ud.data.Digits().open().batch(torch.arange(500))
model.requires_grad_(True)
settings = ud.Training(steps=40, batch=32, lr=1e-3, warmup=5, ema=0.9)
tuned = ud.train(model, ink, ud.Denoising(), settings)
x = ud.sample(tuned, grid=ud.Tapered(15), seeds=8).x
figure, axis = plt.subplots(figsize=(6, 1.2), layout="constrained")
axis.imshow(torch.cat(list(x[:, 0]), 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
axis.set(title=f"after 40 steps: mean brightness {float(x.mean()):+.2f}, of the new data {float(ink.mean()):+.2f}")
axis.set(xticks=[], yticks=[])

# %%
# **Now you can** sample a checkpoint of diffusers with any solver, measure how far each gets, and train it further.
