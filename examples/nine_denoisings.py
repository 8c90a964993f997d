"""The same noise, denoised nine times: figures 5 and 6 of Higham, Higham & Grindrod.

The denoising process is stochastic: from one picture of noise it reaches many digits. And it is unpredictable: let a
training image be noised to the end of the forward process, and what comes back has nothing to do with it. Both follow
from alpha(1) being almost 0, and both end where the forward process is stopped early: from t = 0.1 the nine pictures
are the training image again, because alpha is still large there.

The model is the optimum for the embedded digits (`Empirical`), so nothing is trained: its digits are those of the data
set, by construction. A trained network can take its place.

    python examples/nine_denoisings.py
    python examples/nine_denoisings.py --run runs/ddpm_digits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_table


def main() -> None:
    """Denoise one noise, one noised image, and one half-noised image nine times each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of embedded digits")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    images = ud.data.Digits().open().batch(torch.arange(1500))
    model = ud.load(arguments.run).denoiser if arguments.run else ud.Empirical(ud.DDPM(500), images)
    process, image = model.process, images[8:9]
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))

    # Figure 5: nine runs from the same Gaussian noise at t = 1.
    from_noise = denoise(model, process.prior_scale() * noise, 1.0, arguments.steps)
    # Figure 6: the same from a training image noised to t = 1; and, which the paper does not show, to t = 0.1.
    starts = {t: process.perturb(image, noise, process.level(t)) for t in (1.0, 0.1)}
    from_image = {t: denoise(model, u, t, arguments.steps) for t, u in starts.items()}

    cells: list[list[tuple[torch.Tensor, str] | None]] = [[None, (noise / 2, "pure noise"), (from_noise, "nine runs")]]
    for t, u in starts.items():
        cells.append([(image, "training image"), (u / 2, f"noised to t = {t:g}"), (from_image[t], "nine runs")])
    path = arguments.out / "nine_denoisings.png"
    save_table(cells, [""] * 3, [""] * 3, path, "One noise, denoised nine times (Higham, Higham & Grindrod, fig. 5, 6)")

    def distance(x: torch.Tensor) -> torch.Tensor:
        return (x - image).flatten(1).norm(dim=1)

    print(f"distance of the nine from the training image; between two digits it is {typical(images):.1f} on average")
    for t, x in from_image.items():
        print(f"  noised to t = {t:g}: {', '.join(f'{d:.1f}' for d in distance(x).tolist())}")

    # The claims: nine runs from one noise are not one picture; at t = 1 the image is forgotten; at 0.1 it is not.
    assert torch.pdist(from_noise.flatten(1)).mean() > 0.5 * typical(images)
    assert distance(from_image[1.0]).mean() > 0.5 * typical(images)
    assert distance(from_image[0.1]).mean() < 0.5 * distance(from_image[1.0]).mean()


@torch.no_grad()
def denoise(model: ud.Denoiser, u: torch.Tensor, t: float, steps: int) -> torch.Tensor:
    """Nine ancestral runs from one state at time t; only their noise differs."""
    times = torch.cat([torch.linspace(t, model.process.t_min, steps), torch.zeros(1)])
    *_, last = ud.Ancestral().trajectory(model, u.expand(9, -1, -1, -1), times, ud.Seeded(range(9)))
    return last.u


def typical(images: torch.Tensor) -> float:
    """The mean distance between two of the images."""
    return float(torch.pdist(images[:300].flatten(1)).mean())


if __name__ == "__main__":
    main()
