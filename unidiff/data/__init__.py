"""Data sets: what is learnt from.

A `Dataset` says which data (a frozen dataclass of arguments, so its repr is a recipe); `Dataset.open` reads,
verifies and gives an `OpenDataset`, from which batches are taken by index.
"""

from __future__ import annotations

from unidiff.data.base import Dataset, OpenDataset, TensorSource

__all__ = ["Dataset", "OpenDataset", "TensorSource"]
