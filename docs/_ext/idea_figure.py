"""The figure of docs/idea.md: `python docs/_ext/idea_figure.py` writes docs/images/idea.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

import unidiff as ud

TIMES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)


def main() -> None:
    """Noise one digit, ask the shipped network what it sees, and draw both with alpha and sigma."""
    model = ud.load("shipped:ddpm_digits").denoiser
    x = ud.data.Digits().open().batch(torch.tensor([3]))
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    figure, axes = plt.subplots(2, len(TIMES), figsize=(9, 3.1), layout="constrained")
    for (above, below), t in zip(axes.T, TIMES):
        level = model.process.level(t)
        u = float(level.alpha) * x + float(level.sigma) * noise
        with torch.no_grad():
            guess = model(u, level).x0
        for axis, image in ((above, u), (below, guess)):
            axis.imshow(image[0, 0], cmap="gray", vmin=-1.2, vmax=1.2, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        above.set_title(rf"$t={t:g}$" "\n" rf"$\alpha={level.alpha:.2f},\ \sigma={level.sigma:.2f}$", fontsize=9)
    axes[0, 0].set_ylabel(r"$u_t$", fontsize=11)
    axes[1, 0].set_ylabel(r"guess of $u_0$", fontsize=11)
    figure.savefig(Path(__file__).parents[1] / "images" / "idea.png", dpi=150)


if __name__ == "__main__":
    main()
