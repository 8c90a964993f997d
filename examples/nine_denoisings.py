"""The same noise, denoised nine times: figures 5 and 6 of Higham, Higham & Grindrod.

The denoising process is stochastic: from one picture of noise it reaches many digits. And it is unpredictable: let a
training image be noised to the end of the forward process, and what comes back has nothing to do with it. Both follow
from alpha(1) being almost 0, and both end where the forward process is stopped early: from t = 0.1 the nine pictures
are the training image again, because alpha is still large there.

The model is the optimum for the embedded digits (`Empirical`), so nothing is trained: its digits are those of the data
set, by construction. Any run that generates images can take its place, of whatever size, classes or codec.

    python examples/nine_denoisings.py
    python examples/nine_denoisings.py --run runs/ddpm_digits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.errors import RunError, UnidiffError
from unidiff.plot import save_table


def main() -> None:
    """Denoise one noise, one noised image, and one half-noised image nine times each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of a model of images")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()

    try:
        model, data, images, cond = of_run(arguments.run) if arguments.run else of_digits()
    except UnidiffError as error:
        parser.error(str(error))
    process, chosen = model.process, min(8, len(images) - 1)
    image, cond = images[chosen : chosen + 1], {name: value[chosen : chosen + 1] for name, value in cond.items()}
    noise = process.basis.forward(torch.randn(image.shape, generator=torch.Generator().manual_seed(3)))

    def denoised(u: Tensor, t: float, first_seed: int) -> Tensor:
        """Nine ancestral runs from one state at time t; only their noise differs."""
        times = torch.linspace(t, process.t_min, arguments.steps, dtype=torch.float64)
        nine = {name: value.expand(9, *value.shape[1:]) for name, value in cond.items()}
        seeds = ud.Seeded(range(first_seed, first_seed + 9))
        with torch.no_grad():
            *_, last = ud.Ancestral().trajectory(
                model, u.expand(9, *u.shape[1:]), [*times.tolist(), 0.0], seeds, **nine
            )
        return process.basis.inverse(last.u).float()

    def shown(u: Tensor) -> Tensor:
        """A noisy state as an image: its pixels, decoded, within [-1, 1]."""
        pixels = data.decode(process.basis.inverse(u).float())
        return pixels / pixels.abs().quantile(0.99).clamp(min=1)

    # Figure 5: nine runs from the same noise at t = 1.
    prior = process.start(lambda like: noise.to(like), noise)
    from_noise = denoised(prior, 1.0, 0)
    # Figure 6: the same from a training image noised to t = 1; and, which the paper does not show, to about t = 0.1.
    early = process.t_min + 0.1 * (1 - process.t_min)
    starts = {t: process.perturb(process.basis.forward(image), noise, process.level(t)) for t in (1.0, early)}
    from_image = {t: denoised(u, t, 9 * number) for number, (t, u) in enumerate(starts.items(), 1)}

    cells: list[list[tuple[Tensor, str] | None]] = [
        [None, (shown(prior), "pure noise"), (data.decode(from_noise), "nine runs")]
    ]
    for t, u in starts.items():
        noisy = (shown(u), f"noised to t = {t:.2g}")
        cells.append([(data.decode(image), "training image"), noisy, (data.decode(from_image[t]), "nine runs")])
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "nine_denoisings.png"
    save_table(cells, [""] * 3, [""] * 3, path, "One noise, denoised nine times (Higham, Higham & Grindrod, fig. 5, 6)")

    def distance(x: Tensor) -> Tensor:
        return (x - image).flatten(1).norm(dim=1)

    typical = float(torch.pdist(images[:300].flatten(1)).mean())
    print(f"distance of the nine from the training image; between two images it is {typical:.1f} on average")
    for t, x in from_image.items():
        print(f"  noised to t = {t:.2g}: {', '.join(f'{d:.1f}' for d in distance(x).tolist())}")
    if arguments.run:
        return  # what follows is true of the optimum; a network may not have come so far
    # The claims: nine runs from one noise are nine digits; at t = 1 the image is forgotten; at 0.1 it is not.
    assert torch.pdist(from_noise.flatten(1)).min() > 0.2 * typical
    assert distance(from_image[1.0]).mean() > 0.5 * typical
    assert distance(from_image[early]).mean() < 0.5 * distance(from_image[1.0]).mean()


def of_digits() -> tuple[ud.Denoiser, ud.data.Dataset, Tensor, dict[str, Tensor]]:
    """The optimum for the embedded digits, the data, their images, and no conditions."""
    data = ud.data.Digits()
    images = data.open().batch(torch.arange(1500))
    return ud.Empirical(ud.DDPM(500), images), data, images, {}


def of_run(directory: Path) -> tuple[ud.Denoiser, ud.data.Dataset, Tensor, dict[str, Tensor]]:
    """The model of a run, its data, images of them as the model sees them, and their conditions."""
    run = ud.load(directory, device="cpu")
    model, data, conditioning = run.denoiser, run.recipe.data, run.recipe.conditioning
    if len(data.decoded_shape) != 3:
        raise RunError(f"{directory}: a run of images is needed, got samples of shape {data.decoded_shape}")
    source = data.open()
    indices = torch.arange(min(1500, len(source)))
    images, labels = source.batch(indices), None if source.labels is None else source.labels[indices]
    if conditioning is None:
        return model, data, images, {}
    never_dropped = torch.full((len(images), conditioning.draws), 1 - 1e-9, dtype=torch.float64)
    return model, data, images, conditioning.conditions(images, labels, never_dropped)


if __name__ == "__main__":
    main()
