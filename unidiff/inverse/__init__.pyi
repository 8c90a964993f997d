"""The registry of unidiff.inverse: each name is imported when it is first used."""

from unidiff.inverse.operators import BlockMean as BlockMean
from unidiff.inverse.operators import HeatBlur as HeatBlur
from unidiff.inverse.operators import Inpainting as Inpainting
from unidiff.inverse.operators import Operator as Operator
from unidiff.inverse.operators import RandomProjection as RandomProjection
from unidiff.inverse.posterior import DPS as DPS
from unidiff.inverse.posterior import MomentMatching as MomentMatching
from unidiff.inverse.posterior import PiGDM as PiGDM
from unidiff.inverse.posterior import Posterior as Posterior
from unidiff.inverse.posterior import conditioned as conditioned
