"""Encode, interpolate, decode.

The probability flow is a bijection between data and noise. Two digits are carried to their noise, the noise is joined
by an arc (a straight line would be too short: the norm of Gaussian noise hardly varies), and points of the arc are
carried back. The encoding is not learned; it comes with the score.

Going there and back changes nothing, up to the solver's error, which is printed.

    python examples/interpolation.py                                # an exact model of smoothed digits
    python examples/interpolation.py --run runs/ddpm_digits         # a trained network
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_table


def main() -> None:
    """Interpolate three pairs of digits, along the flow and, for comparison, pixel by pixel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of embedded digits")
    parser.add_argument("--count", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    images = ud.data.Digits().open().batch(torch.arange(1500))
    if arguments.run:
        model: ud.Denoiser = ud.load(arguments.run).denoiser
    else:
        model = ud.GaussianMixture(ud.VPSDE(), images[:500], 0.05)  # a Gaussian around each of 500 digits

    rows, cells = [], []
    for first, second in ((0, 1), (6, 9), (2, 7)):
        pair = images[[first, second]]
        trip = ud.round_trip(model, pair)
        print(f"{first} to {second}: the round trip changes pixels by {float(trip.error.max()):.1e} (rms)")
        between = ud.decode(model, ud.interpolate(trip.latent[0], trip.latent[1], arguments.count))
        mixed = torch.lerp(pair[:1], pair[1:], torch.linspace(0, 1, arguments.count)[:, None, None, None])
        for name, path in (("along the flow", between), ("pixels mixed", mixed)):
            rows.append(f"{first} to {second}, {name}")
            cells.append([(path[i : i + 1], "") for i in range(arguments.count)])

        # The claims: the round trip is the identity, and the path ends in the two digits.
        assert trip.error.max() < 0.02
        assert (between[[0, -1]] - pair).flatten(1).square().mean(1).sqrt().max() < 0.02
    title = "Two digits, joined in the latent space of the probability flow, and pixel by pixel"
    save_table(cells, rows, [""] * arguments.count, arguments.out / "interpolation.png", title)


if __name__ == "__main__":
    main()
