"""The same noise, denoised nine times: figures 5 and 6 of Higham, Higham & Grindrod.

The denoising process is stochastic: from one image of pure noise it reaches many digits. And it is unpredictable: let a
training image be noised to the end of the forward process, and what comes back has nothing to do with it. Both are
consequences of alpha(1) being almost 0, and they end where the forward process is stopped half way: from t = 1/4 the
nine pictures are the training image again, because there alpha is still large.

Run on the exact optimum for the embedded digits (`Empirical`), so no training is needed: its "new" digits are those of
the data set, by construction.

    python examples/nine_denoisings.py
    python examples/nine_denoisings.py --run runs/ddpm_digits      # a trained network instead
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of digits")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    images = ud.Digits().open().batch(torch.arange(1500))
    model = ud.load(arguments.run).denoiser if arguments.run else ud.Empirical(ud.DDPM(500), images)
    process, one = model.process, images[8:9]
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))

    # Figure 5: nine runs from the same Gaussian noise at t = 1.
    from_noise = denoise(model, process.prior(noise), 1.0, arguments.steps)
    # Figure 6: the same from a training image, noised to t = 1; and, which the paper does not show, to t = 1/4.
    starts = {t: process.perturb(one, noise, process.level(t)) for t in (1.0, 0.25)}
    from_image = {t: denoise(model, u, t, arguments.steps) for t, u in starts.items()}

    panels = {"pure noise": noise.clamp(-3, 3) / 3, "nine runs from it": from_noise, "a training image": one}
    for t, u in starts.items():
        panels[f"noised to t = {t}"] = u / u.abs().max()
        panels[f"nine runs from t = {t}"] = from_image[t]
    save_panels(panels, arguments.out / "nine_denoisings.png", "Higham, Higham & Grindrod, figures 5 and 6")

    def distance(x: torch.Tensor) -> torch.Tensor:
        return (x - one).flatten(1).norm(dim=1)

    print("distance of the nine from the training image (a typical distance between digits is about 5):")
    for t, x in from_image.items():
        print(f"  noised to t = {t}: {', '.join(f'{d:.1f}' for d in distance(x).tolist())}")

    # The claims: nine runs from one noise are not one picture; at t = 1 the image is forgotten; at 1/4 it is not.
    assert torch.pdist(from_noise.flatten(1)).max() > 3
    assert distance(from_image[1.0]).mean() > 3
    assert distance(from_image[0.25]).mean() < 0.6 * distance(from_image[1.0]).mean()


@torch.no_grad()
def denoise(model: ud.Denoiser, u: torch.Tensor, t: float, steps: int) -> torch.Tensor:
    """Nine ancestral runs from one state at time t; only their noise differs."""
    times = torch.cat([torch.linspace(t, model.process.t_min, steps), torch.zeros(1)])
    *_, last = ud.Ancestral().trajectory(model, u.expand(9, -1, -1, -1), times, ud.Seeded(range(9)))
    return last.u


if __name__ == "__main__":
    main()
