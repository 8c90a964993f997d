"""The renormalised heat equation as a PDE: domains, eigenmodes, exact evolution, stability, forcing, backward runs."""

from unidiff.pde.backward import mode_deviation as mode_deviation
from unidiff.pde.backward import recover as recover
from unidiff.pde.backward import recover_modes as recover_modes
from unidiff.pde.backward import resolution as resolution
from unidiff.pde.backward import resolvable_modes as resolvable_modes
from unidiff.pde.gradient import GradientModes as GradientModes
from unidiff.pde.mean_field import MeanFieldForcing as MeanFieldForcing
from unidiff.pde.mean_field import MeanFieldState as MeanFieldState
from unidiff.pde.mean_field import Stationary as Stationary
from unidiff.pde.mean_field import interval_multiplier as interval_multiplier
from unidiff.pde.mollifiers import CutOff as CutOff
from unidiff.pde.mollifiers import Mollifier as Mollifier
from unidiff.pde.mollifiers import Naive as Naive
from unidiff.pde.mollifiers import Observation as Observation
from unidiff.pde.mollifiers import Posterior as Posterior
from unidiff.pde.mollifiers import PosteriorMean as PosteriorMean
from unidiff.pde.mollifiers import PosteriorSample as PosteriorSample
from unidiff.pde.mollifiers import Tikhonov as Tikhonov
from unidiff.pde.mollifiers import Wiener as Wiener
from unidiff.pde.mollifiers import posterior as posterior
from unidiff.pde.pathwise import Bingham as Bingham
from unidiff.pde.pathwise import PathwiseForcing as PathwiseForcing
