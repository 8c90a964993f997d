"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""

from unidiff.pde.domain import Box, Domain, Interval, Rectangle
from unidiff.pde.evolution import Flow, evolve, evolve_modes
from unidiff.pde.stability import Stability, stability, takeover_time
from unidiff.pde.start import Broadband, Eigenmodes, RandomField, Start

__all__ = [
    "Box",
    "Broadband",
    "Domain",
    "Eigenmodes",
    "Flow",
    "Interval",
    "RandomField",
    "Rectangle",
    "Stability",
    "Start",
    "evolve",
    "evolve_modes",
    "stability",
    "takeover_time",
]
