"""Does attention hurt on MNIST? Sedykh's thesis leaves it out, by the look of samples; here with several seeds.

A small U-Net on patches of 2 x 2 pixels, with or without self-attention between the 7 x 7 positions of its lower level,
each trained for the steps that fit into the same CPU seconds. Needs MNIST in $UNIDIFF_DATA.

    python examples/studies/attention_mnist.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import unidiff as ud
from unidiff.evaluation import real_data
from unidiff.figures.equal_seconds import networks_at_equal_seconds
from unidiff.figures.study import Row, Study, Table, draw_qualities, main

DATA = ud.data.MNIST()


def network(attention: tuple[int, ...]) -> ud.UNet:
    """A small U-Net with self-attention between the positions of maps of these sides."""
    return ud.UNet(DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4, patch=2, attention=attention)


NETWORKS: dict[str, Callable[[], ud.Backbone]] = {
    "without attention": lambda: network(()),
    "with attention": lambda: network((7,)),
}


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """Without and with attention."""
    seconds, count, evaluations = (0.2, 40, 2) if quick else (120.0, 300, 20)
    # No copies of 60,000 images are to be feared, and looking for them takes longer than all other measures.
    real = replace(real_data(DATA, count, most=2000, seed=seed), train=None)
    return networks_at_equal_seconds(
        NETWORKS, DATA, seed, seconds=seconds, count=count, evaluations=evaluations, real=real
    )


def draw(table: Table, path: Path) -> None:
    """Distance, precision and recall, without and with attention."""
    draw_qualities(table, path, "U-Nets trained for equal CPU seconds on MNIST. Dashed: real data.")


STUDY = Study(
    "attention_mnist",
    "Does attention hurt on MNIST, at equal CPU seconds?",
    "Sedykh's thesis, chapter 6",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
