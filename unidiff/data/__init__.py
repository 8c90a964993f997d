"""Data sets: what is learnt from.

A `Data` says which data (a frozen dataclass of arguments, so its repr is a recipe); `Data.open` reads, verifies and
gives a `Source`, from which batches are taken by index.
"""

from __future__ import annotations

from unidiff.data.base import Data, Source, TensorSource

__all__ = ["Data", "Source", "TensorSource"]
