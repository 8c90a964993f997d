"""Data sets: what is learnt from.

A `Dataset` says which data (a frozen dataclass of arguments, so its repr is a recipe); `Dataset.open` reads,
verifies and gives an `OpenDataset`, from which batches are taken by index.
"""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
