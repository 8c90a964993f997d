"""Which network is best on 8x8 digits at equal CPU seconds: a perceptron, a U-Net without or with attention, a DiT?

Each is trained for the steps that fit into the same CPU seconds, with the same batches, objective, schedule and rate of
learning. No network is tuned.

    python examples/studies/architectures.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import unidiff as ud
from unidiff.figures.equal_seconds import networks_at_equal_seconds
from unidiff.figures.study import Row, Study, Table, draw_qualities, main

DATA = ud.data.Digits()
NETWORKS: dict[str, Callable[[], ud.Backbone]] = {
    "MLP": lambda: ud.MLP(DATA.shape, width=128, depth=3),
    "U-Net": lambda: ud.UNet(DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4),
    "U-Net, attention": lambda: ud.UNet(DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4, attention=(4,)),
    "DiT": lambda: ud.DiT(DATA.shape, patch=2, width=64, depth=3, heads=4),
}


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """The networks, one after the other."""
    seconds, count, evaluations = (0.2, 40, 2) if quick else (30.0, 300, 20)
    return networks_at_equal_seconds(NETWORKS, DATA, seed, seconds=seconds, count=count, evaluations=evaluations)


def draw(table: Table, path: Path) -> None:
    """Distance, precision and recall of each network."""
    draw_qualities(table, path, "Networks trained for equal CPU seconds on 8x8 digits. Dashed: real data.")


STUDY = Study(
    "architectures",
    "Which network is best on 8x8 digits at equal CPU seconds: a perceptron, a U-Net, one with attention, a DiT?",
    "slides of Sanchez Garcia & Soto Vicente 2024, architectures; Peebles & Xie 2023",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
