"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""

from unidiff.pde.backward import mode_deviation, recover, recover_modes, resolution, resolvable_modes
from unidiff.pde.domain import Box, Domain, Interval, Rectangle
from unidiff.pde.evolution import Flow, evolve, evolve_modes
from unidiff.pde.gradient import GradientModes
from unidiff.pde.mean_field import MeanFieldForcing, MeanFieldState, Stationary, interval_multiplier
from unidiff.pde.mesh import Mask, Polygon
from unidiff.pde.mollifiers import (
    CutOff,
    Mollifier,
    Naive,
    Observation,
    Posterior,
    PosteriorMean,
    PosteriorSample,
    Tikhonov,
    Wiener,
    posterior,
)
from unidiff.pde.pathwise import Bingham, PathwiseForcing
from unidiff.pde.simulators import MethodOfLines, Simulator, TorchMethodOfLines, equation_22_with_frozen_R
from unidiff.pde.stability import Stability, stability, takeover_time
from unidiff.pde.start import Broadband, Eigenmodes, RandomField, Start
from unidiff.pde.steppers import ETDRK4, SDIRK2

__all__ = [
    "ETDRK4",
    "SDIRK2",
    "Bingham",
    "Box",
    "Broadband",
    "CutOff",
    "Domain",
    "Eigenmodes",
    "Flow",
    "GradientModes",
    "Interval",
    "Mask",
    "MeanFieldForcing",
    "MeanFieldState",
    "MethodOfLines",
    "Mollifier",
    "Naive",
    "Observation",
    "PathwiseForcing",
    "Polygon",
    "Posterior",
    "PosteriorMean",
    "PosteriorSample",
    "RandomField",
    "Rectangle",
    "Simulator",
    "Stability",
    "Start",
    "Stationary",
    "Tikhonov",
    "TorchMethodOfLines",
    "Wiener",
    "equation_22_with_frozen_R",
    "evolve",
    "evolve_modes",
    "interval_multiplier",
    "mode_deviation",
    "posterior",
    "recover",
    "recover_modes",
    "resolution",
    "resolvable_modes",
    "stability",
    "takeover_time",
]
