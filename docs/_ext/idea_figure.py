"""The figure of docs/idea.md: `python docs/_ext/idea_figure.py` writes docs/images/idea.png."""

from __future__ import annotations

from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import new_figure, save_figure, style

TIMES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)


def main() -> None:
    """Noise one digit, ask the shipped network what it sees, and draw both with alpha and sigma."""
    model = ud.load("shipped:ddpm_digits").denoiser
    x = ud.data.Digits().open().batch(torch.tensor([3]))
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with style():
        figure, axes = new_figure(len(TIMES), (7.2, 2.7), 2)
        for above, below, t in zip(axes, axes[len(TIMES) :], TIMES):
            level = model.process.level(t)
            u = float(level.alpha) * x + float(level.sigma) * noise
            with torch.no_grad():
                guess = model(u, level).x0
            for axis, image in ((above, u), (below, guess)):
                axis.imshow(image[0, 0], cmap="gray", vmin=-1.2, vmax=1.2)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            words = f"$t={t:g}$\n$\\alpha={level.alpha:.2f}$\n$\\sigma={level.sigma:.2f}$"
            above.set_title(words, fontsize=9)
        axes[0].set_ylabel("$u_t$")
        axes[len(TIMES)].set_ylabel("guess of $u_0$")
        save_figure(figure, Path(__file__).parents[1] / "images" / "idea.png")


if __name__ == "__main__":
    main()
