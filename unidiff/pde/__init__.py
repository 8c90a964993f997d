"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""

from unidiff.pde.domain import Box, Domain, Interval, Rectangle
from unidiff.pde.evolution import Flow, evolve, evolve_modes
from unidiff.pde.mesh import Mask, Polygon
from unidiff.pde.simulators import MethodOfLines, Simulator, TorchMethodOfLines, equation_22_with_frozen_R
from unidiff.pde.stability import Stability, stability, takeover_time
from unidiff.pde.start import Broadband, Eigenmodes, RandomField, Start
from unidiff.pde.steppers import ETDRK4, SDIRK2

__all__ = [
    "ETDRK4",
    "SDIRK2",
    "Box",
    "Broadband",
    "Domain",
    "Eigenmodes",
    "Flow",
    "Interval",
    "Mask",
    "MethodOfLines",
    "Polygon",
    "RandomField",
    "Rectangle",
    "Simulator",
    "Stability",
    "Start",
    "TorchMethodOfLines",
    "equation_22_with_frozen_R",
    "evolve",
    "evolve_modes",
    "stability",
    "takeover_time",
]
