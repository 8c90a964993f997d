"""Names of the last release that are still read for this one."""

from __future__ import annotations

__all__ = ["RENAMED"]

# Old public name -> new public name.
RENAMED: dict[str, str] = {
    "Codec": "Autoencoder",
    "CodecInTraining": "TrainableAutoencoder",
    "Data": "Dataset",
    "Heat": "InverseHeat",
    "RandomHoles": "RandomMasks",
    "Sigma2": "EpsilonWeighting",
    "Simple": "UniformWeighting",
    "Start": "InitialCondition",
    "Trace": "DivergenceEstimator",
}
