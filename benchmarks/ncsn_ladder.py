"""Which ladder of noise scales lets annealed Langevin dynamics find every digit?

The score is exact (the optimum on real MNIST images), so whatever goes wrong is the sampler's. Prints how many of the
samples come from each class, beside what the data hold: python benchmarks/ncsn_ladder.py (about 3 minutes on one core).
"""

from __future__ import annotations

import argparse
import time

import torch

import unidiff as ud

LADDERS = {
    "1 to 0.01, 10 levels x 30": (ud.NCSN(0.01, 1.0, 10), ud.AnnealedLangevin(30, 2e-5)),
    "8 to 0.02, 76 levels x 10": (ud.NCSN(0.02, 8.0, 76), ud.AnnealedLangevin(10, 4e-5)),
    "25 to 0.01, 100 levels x 5": (ud.NCSN(0.01, 25.0, 100), ud.AnnealedLangevin(5, 2e-5)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="real MNIST test images that the score is exact for")
    parser.add_argument("--samples", type=int, default=300)
    arguments = parser.parse_args()
    source = ud.data.MNIST().open("test")
    images, labels = source.batch(torch.arange(arguments.images)), source.labels[: arguments.images]
    expected = torch.bincount(labels, minlength=10) * arguments.samples / arguments.images
    print(f"{'':28} {'seconds':>7}  digits 0 to 9")
    print(f"{'expected':28} {'':7}  " + " ".join(f"{n:4.0f}" for n in expected))
    for name, (process, solver) in LADDERS.items():
        start = time.perf_counter()
        x = ud.sample(ud.Empirical(process, images), solver, ud.Native(), source.shape, arguments.samples).x
        nearest = torch.cdist(x.flatten(1), images.flatten(1)).argmin(1)
        counts = torch.bincount(labels[nearest], minlength=10)
        print(f"{name:28} {time.perf_counter() - start:7.0f}  " + " ".join(f"{n:4d}" for n in counts), flush=True)


if __name__ == "__main__":
    main()
