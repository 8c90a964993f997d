"""The renormalised heat equation as a PDE: domains, exact evolution, stability, stochastic forcing, backward runs."""

from __future__ import annotations

from unidiff.lazy import attach, exports

EXPORTS = exports(__file__)
__all__ = list(EXPORTS)
__getattr__ = attach(__name__, EXPORTS, {"CutOff": "SpectralCutoff", "Naive": "TruncatedInverse"})
