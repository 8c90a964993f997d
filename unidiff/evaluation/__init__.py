"""Evaluation: distances between sets of samples, reference solutions of the flow, and comparisons of solvers."""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {})
