"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""

from unidiff.pde.gradient import GradientModes as GradientModes
from unidiff.pde.mean_field import MeanFieldForcing as MeanFieldForcing
from unidiff.pde.mean_field import MeanFieldState as MeanFieldState
from unidiff.pde.mean_field import Stationary as Stationary
from unidiff.pde.mean_field import interval_multiplier as interval_multiplier
from unidiff.pde.pathwise import Bingham as Bingham
from unidiff.pde.pathwise import PathwiseForcing as PathwiseForcing
