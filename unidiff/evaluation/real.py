"""The real data that samples are measured against: a reference, a floor, and what was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.data.base import Dataset, OpenDataset, require_split
from unidiff.errors import DataError, RunError, require_whole
from unidiff.noise import generator_of
from unidiff.text import count_of

__all__ = ["RealData", "Rows", "real_data"]

_BATCH = 500
_SEED = 2**42  # of the choice of rows
_FEWEST = 20  # as many as samples


@dataclass(frozen=True, eq=False)
class Rows:
    """Some samples of opened data.

    Attributes:
        source: The data.
        rows: Which samples, (N,), increasing.
    """

    source: OpenDataset
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        """The samples in batches."""
        return (self.source.batch(rows) for rows in self.rows.split(_BATCH))

    def facts(self) -> dict[str, Any]:
        """What results say of them."""
        return {"data": self.source.name, "count": len(self), "checksum": self.source.checksum}


@dataclass(frozen=True, eq=False)
class RealData:
    """Real data in their roles.

    Attributes:
        reference: What samples are compared with.
        floor: Other real data, as many as there are samples: what perfect samples would score.
        train: What the model was trained on, all of it; None if it is not to be held against copies.
        held_out: Data that it was not trained on, and a second set of them; None if there is no test split.
        features: Name of the shipped network of such data, empty if there is none.
        seed: Of the choice of rows.
    """

    reference: Rows
    floor: Rows
    train: OpenDataset | None = None
    held_out: tuple[Rows, Rows] | None = None
    features: str = ""
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.reference.source.shape

    def facts(self) -> dict[str, Any]:
        """What results say of them."""
        return {
            "reference": self.reference.facts(),
            "floor": self.floor.facts(),
            "memorization": None
            if self.train is None or self.held_out is None
            else {"train": self.train.name, "count": len(self.train), "held_out": len(self.held_out[0])},
            "stand_in": self.reference.source.stand_in,
            "seed": self.seed,
        }


@plain_arguments
def real_data(
    data: Dataset,
    count: int = 2000,
    *,
    split: str = "test",
    most: int = 10_000,
    classes: Tensor | None = None,
    seed: int = 0,
) -> RealData:
    """Open data and choose the reference, and a floor of as many real data as there are samples.

    With `split` "test" the reference is held-out data and the floor training data; with "train" both are training data,
    of which no sample is in both.

    Args:
        data: The data; of latents the images.
        count: Number of samples that will be measured.
        split: Of the reference: "test" or "train".
        most: Size of the reference at most; more are chosen at random, by `seed`.
        classes: Only data of these classes, (K,) integers, as many of each; None for all.
        seed: Of the choice, at least 0.

    Raises:
        DataError: If data cannot be read.
        RunError: If there are fewer than 20 in a role.
    """
    require_split(split)
    for name, value in (("count", count), ("most", most)):
        require_whole(name, value, _FEWEST)
    require_whole("seed", seed, 0, 2**40)
    images, test = data.images, None
    train = images.open("train")
    try:
        test = images.open("test")
    except DataError as error:
        if split == "test":
            raise DataError(f"{error} The reference is the test split; choose --split train for the other.") from error
    generator = generator_of(_SEED + seed)
    of_train, of_test = (None if part is None else _order(part, classes, generator) for part in (train, test))
    assert of_train is not None
    if split == "train":
        count = min(count, len(of_train) // 2)
        reference, floor = Rows(train, of_train[count:][:most]), Rows(train, of_train[:count])
    else:
        assert test is not None
        assert of_test is not None
        reference, floor = Rows(test, of_test[:most]), Rows(train, of_train[:count])
    for rows in (reference, floor):
        if len(rows) < _FEWEST:
            of_classes = "" if classes is None else f" of the classes {', '.join(map(str, classes.tolist()))}"
            number, least = len(rows), _FEWEST
            if split == "train":  # for reference and floor together
                number, least = len(of_train), 2 * _FEWEST
            problem = f"{rows.source.name} has {count_of(number, 'sample')}{of_classes} to evaluate with"
            other = ", or --split train" * (split == "test" and len(of_train) >= 2 * _FEWEST)
            raise RunError(f"{problem}; at least {least} are needed. Use more data{other}.")
    held_out = None
    if test is not None and of_test is not None and len(of_test) >= 2 * _FEWEST:
        half = min(count, len(of_test) // 2)
        held_out = Rows(test, of_test[:half]), Rows(test, of_test[half : 2 * half])
    return RealData(_sorted(reference), _sorted(floor), train, held_out, images.features, seed)


def _sorted(rows: Rows) -> Rows:
    return Rows(rows.source, rows.rows.sort().values)


def _order(source: OpenDataset, classes: Tensor | None, generator: torch.Generator) -> Tensor:
    """All rows in a random order; of some classes as many of each, in turn."""
    order = torch.randperm(len(source), generator=generator)
    if classes is None:
        return order
    if source.labels is None:
        raise RunError(f"{source.name} has no labels, so those of the samples' classes cannot be chosen.")
    of_classes = [order[source.labels[order] == k] for k in classes.unique()]
    each = min(map(len, of_classes), default=0)
    return torch.stack([rows[:each] for rows in of_classes], 1).flatten() if of_classes else order[:0]
