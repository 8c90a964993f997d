"""Encode, interpolate, decode.

The probability flow is a bijection between data and noise. Two images are carried to their noise, the noise is joined
by an arc (a straight line would be too short: the norm of Gaussian noise hardly varies), and points of the arc are
carried back. The encoding is not learned; it comes with the score.

Going there and back changes nothing, up to the solver's error, which is printed. Any run that generates images can
take the place of the exact model, of whatever size, classes or codec; each half of the arc has the conditions of its
end.

    python examples/interpolation.py                                # an exact model of smoothed digits
    python examples/interpolation.py --run runs/ddpm_digits         # a trained network
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.errors import DataError, RunError, UnidiffError
from unidiff.plot import save_table


def main() -> None:
    """Interpolate three pairs of images, along the flow and, for comparison, pixel by pixel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of a model of images")
    parser.add_argument("--count", type=int, default=9)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of the flow's adaptive steps")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()

    try:
        model, data, images, cond = of_run(arguments.run) if arguments.run else of_digits()
    except UnidiffError as error:
        parser.error(str(error))
    count, flow = arguments.count, ud.ProbabilityFlow(rtol=arguments.tolerance, atol=arguments.tolerance)
    ends = (torch.arange(count) >= count / 2).long()  # the nearer end of each point of an arc

    rows, cells = [], []
    for first, second in ((0, 1), (6, 9), (2, 7)):
        pair = images[[first, second]]
        given = {name: value[[first, second]] for name, value in cond.items()}
        trip = ud.round_trip(model, pair, flow, **given)
        print(f"{first} to {second}: the round trip changes pixels by {float(trip.error.max()):.1e} (rms)")
        arc = ud.interpolate(trip.latent[0], trip.latent[1], count)
        between = ud.decode(model, arc, flow, **{name: value[ends] for name, value in given.items()})
        start, end = data.decode(pair).split(1)
        mixed = torch.lerp(start, end, torch.linspace(0, 1, count)[:, None, None, None])
        for name, path in (("along the flow", data.decode(between)), ("pixels mixed", mixed)):
            rows.append(f"{first} to {second}, {name}")
            cells.append([(path[i : i + 1], "") for i in range(count)])
        if not arguments.run:
            # The claims: the round trip is the identity, and the path ends in the two digits.
            assert trip.error.max() < 0.02
            assert (between[[0, -1]] - pair).flatten(1).square().mean(1).sqrt().max() < 0.02
    title = "Two images, joined in the latent space of the probability flow, and pixel by pixel"
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_table(cells, rows, [""] * count, arguments.out / "interpolation.png", title)


def of_digits() -> tuple[ud.Denoiser, ud.data.Dataset, Tensor, dict[str, Tensor]]:
    """A model with a Gaussian around each of 500 digits, the data, their images, and no conditions."""
    data = ud.data.Digits()
    images = data.open().batch(torch.arange(500))
    return ud.GaussianMixture(ud.VPSDE(), images, 0.05), data, images, {}


def of_run(directory: Path) -> tuple[ud.Denoiser, ud.data.Dataset, Tensor, dict[str, Tensor]]:
    """The model of a run, its data, images of them as the model sees them, and their conditions."""
    run = ud.load(directory, device="cpu")
    model, data, conditioning = run.denoiser, run.recipe.data, run.recipe.conditioning
    if len(data.decoded_shape) != 3:
        raise RunError(f"{directory}: a run of images is needed, got samples of shape {data.decoded_shape}")
    source = data.open()
    if len(source) < 10:
        raise DataError(f"{source.name}: at least 10 images are needed, got {len(source)}")
    indices = torch.arange(min(1500, len(source)))
    images, labels = source.batch(indices), None if source.labels is None else source.labels[indices]
    if conditioning is None:
        return model, data, images, {}
    never_dropped = torch.full((len(images), conditioning.draws), 1 - 1e-9, dtype=torch.float64)
    return model, data, images, conditioning.conditions(images, labels, never_dropped)


if __name__ == "__main__":
    main()
