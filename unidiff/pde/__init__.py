"""The renormalised heat equation as a PDE: domains, exact evolution, stability, stochastic forcing, backward runs."""

from unidiff.pde.backward import mode_deviation, recover, recover_modes, resolution, resolvable_modes
from unidiff.pde.domain import Box, Domain, Interval, Rectangle
from unidiff.pde.evolution import Flow, evolve, evolve_modes
from unidiff.pde.gradient import GradientModes
from unidiff.pde.initial_condition import Broadband, Eigenmodes, InitialCondition, RandomField
from unidiff.pde.mean_field import MeanFieldForcing, MeanFieldState, Stationary, interval_multiplier
from unidiff.pde.mesh import Mask, Polygon
from unidiff.pde.pathwise import Bingham, PathwiseForcing
from unidiff.pde.regularizers import (
    Mollifier,
    Observation,
    Posterior,
    PosteriorMean,
    PosteriorSample,
    SpectralCutoff,
    Tikhonov,
    TruncatedInverse,
    Wiener,
    posterior,
)
from unidiff.pde.simulators import MethodOfLines, Simulator, TorchMethodOfLines, equation_22_with_frozen_R
from unidiff.pde.stability import Stability, stability, takeover_time
from unidiff.pde.steppers import ETDRK4, SDIRK2

__all__ = [
    "ETDRK4",
    "SDIRK2",
    "Bingham",
    "Box",
    "Broadband",
    "Domain",
    "Eigenmodes",
    "Flow",
    "GradientModes",
    "InitialCondition",
    "Interval",
    "Mask",
    "MeanFieldForcing",
    "MeanFieldState",
    "MethodOfLines",
    "Mollifier",
    "Observation",
    "PathwiseForcing",
    "Polygon",
    "Posterior",
    "PosteriorMean",
    "PosteriorSample",
    "RandomField",
    "Rectangle",
    "Simulator",
    "SpectralCutoff",
    "Stability",
    "Stationary",
    "Tikhonov",
    "TorchMethodOfLines",
    "TruncatedInverse",
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
