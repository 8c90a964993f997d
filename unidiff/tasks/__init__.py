"""Tasks: what a recipe can describe. One file for each kind, beside the report that it writes."""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
