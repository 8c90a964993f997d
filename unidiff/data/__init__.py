"""Data sets.

A `Dataset` holds arguments only: a frozen dataclass whose repr is a recipe. `Dataset.open` reads and verifies the data
and returns an `OpenDataset`, which gives batches by index.
"""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
