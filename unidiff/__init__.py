"""unidiff: diffusion models as one thing seen from different sides, each part held against an exact answer.

The names below are imported when they are first used, so `import unidiff` costs nothing. This flat namespace is also
the registry of recipes: a `type:` in a recipe is one of these names.
"""

from __future__ import annotations

import importlib
from typing import Any

from unidiff._version import __version__

# name -> module inside the package. The folder or file a class lives in is its kind ("process", "solver", ...).
EXPORTS: dict[str, str] = {
    # schedule: noise tables for DDPM
    "Linear": "schedule",
    "ScaledLinear": "schedule",
    "Cosine": "schedule",
    "ZeroTerminalSNR": "schedule",
    "BetaTable": "schedule",
    "Schedule": "schedule",
    # basis, process
    "DCT": "basis",
    "Process": "process.base",
    "Level": "process.base",
    "DDPM": "process.ddpm",
    "NCSN": "process.ncsn",
    "VPSDE": "process.sde",
    "SubVPSDE": "process.sde",
    "VESDE": "process.sde",
    "EDM": "process.edm",
    "FlowMatching": "process.flow",
    "CosineVP": "process.sde",
    "RenormalizedHeat": "process.heat",
    "Blurring": "process.heat",
    "InverseHeat": "process.inverse_heat",
    "PerSampleHeat": "process.per_sample",
    # parameterization
    "Parameterization": "parameterization",
    "Prediction": "parameterization",
    "Eps": "parameterization",
    "Score": "parameterization",
    "X0": "parameterization",
    "V": "parameterization",
    "Velocity": "parameterization",
    "Preconditioned": "parameterization",
    # denoiser
    "Denoiser": "denoiser",
    "NeuralDenoiser": "denoiser",
    "Counted": "denoiser",
    "Rescheduled": "denoiser",
    "GaussianMixture": "exact",
    "Empirical": "exact",
    # velocity, and its samplers: for a mean that is not linear in the data
    "PerSamplePosterior": "velocity",
    "VelocityNetwork": "velocity",
    "PosteriorDDIM": "solver.per_sample",
    "PlugIn": "solver.per_sample",
    "VelocityFlow": "solver.per_sample",
    "MixtureClassifier": "exact",
    # classifier: of noisy states
    "Classifier": "classifier",
    "NeuralClassifier": "classifier",
    # guidance: models that steer one
    "ClassifierFree": "guidance.classifier_free",
    "AutoGuidance": "guidance.classifier_free",
    "ClassifierGuidance": "guidance.classifier",
    "GuidanceInterval": "guidance.stabilizers",
    "RescaledGuidance": "guidance.stabilizers",
    "DynamicThreshold": "guidance.stabilizers",
    # conditioning: what a network is told of the data
    "Labels": "conditioning.labels",
    "SuperResolution": "conditioning.image",
    "Colorization": "conditioning.image",
    "RandomMasks": "conditioning.image",
    "ImageConditioning": "conditioning.image",
    "Conditioning": "conditioning.base",
    # objective
    "Denoising": "objective.denoising",
    "Hybrid": "objective.hybrid",
    "ExplicitScoreMatching": "objective.score_matching",
    "SlicedScoreMatching": "objective.score_matching",
    "SlicedScoreMatchingVR": "objective.score_matching",
    "Objective": "objective.base",
    "UniformWeighting": "objective.weighting",
    "EpsilonWeighting": "objective.weighting",
    "MinSNR": "objective.weighting",
    "Weighting": "objective.weighting",
    "TimeSampling": "objective.times",
    "UniformTimes": "objective.times",
    "LogNormal": "objective.times",
    "LogitNormal": "objective.times",
    # noise_condition: what a network is passed of the noise level
    "NoiseCondition": "noise_condition",
    "Timestep": "noise_condition",
    "TableIndex": "noise_condition",
    "NoiseScale": "noise_condition",
    "LogSigma": "noise_condition",
    # grid, noise, solver
    "Uniform": "grid",
    "Native": "grid",
    "Power": "grid",
    "Quadratic": "grid",
    "LogSNR": "grid",
    "Karras": "grid",
    "Tapered": "grid",
    "ArcLength": "grid",
    "Grid": "grid",
    "Seeded": "noise",
    "Solver": "solver.base",
    "OneStep": "solver.base",
    "Solution": "solver.sample",
    "sample": "solver.sample",
    "Ancestral": "solver.ancestral",
    "DDIM": "solver.ddim",
    "AnnealedLangevin": "solver.langevin",
    "EulerMaruyama": "solver.sde",
    "ReverseDiffusion": "solver.sde",
    "PredictorCorrector": "solver.sde",
    "Resampling": "solver.resampling",
    "Euler": "solver.ode",
    "Heun": "solver.ode",
    "ProbabilityFlow": "solver.ode",
    "EDMStochastic": "solver.edm",
    "DPMSolver": "solver.dpm",
    "DPMSolverSinglestep": "solver.dpm",
    "UniPC": "solver.unipc",
    "AdamsBashforth": "solver.adams",
    "DEIS": "solver.adams",
    "ExponentialAdams": "solver.exponential_adams",
    # encoding
    "encode": "encoding",
    "decode": "encoding",
    "round_trip": "encoding",
    "interpolate": "encoding",
    "RoundTrip": "encoding",
    # editing
    "Replacement": "editing",
    "inpaint": "editing",
    "edit": "editing",
    "variations": "editing",
    # inverse problems
    "Operator": "inverse.operators",
    "HeatBlur": "inverse.operators",
    "BlockMean": "inverse.operators",
    "Inpainting": "inverse.operators",
    "RandomProjection": "inverse.operators",
    "Posterior": "inverse.posterior",
    "DPS": "inverse.posterior",
    "PiGDM": "inverse.posterior",
    "MomentMatching": "inverse.posterior",
    "conditioned": "inverse.conditioned",
    # likelihood
    "log_likelihood": "likelihood",
    "Likelihood": "likelihood",
    "variational_bound": "variational",
    "Bound": "variational",
    "ExactTrace": "divergence",
    "Hutchinson": "divergence",
    "GaussianHutchinson": "divergence",
    "DivergenceEstimator": "divergence",
    # pde: the renormalised heat equation
    "Domain": "pde.domain",
    "Interval": "pde.domain",
    "Rectangle": "pde.domain",
    "Box": "pde.domain",
    "Mask": "pde.mesh",
    "Polygon": "pde.mesh",
    "InitialCondition": "pde.initial_condition",
    "Broadband": "pde.initial_condition",
    "RandomField": "pde.initial_condition",
    "Eigenmodes": "pde.initial_condition",
    # evaluation
    "compare": "evaluation.compare",
    "Comparison": "evaluation.comparison",
    "reference_flow": "evaluation.reference",
    "energy_distance": "evaluation.distances",
    "sliced_wasserstein": "evaluation.distances",
    "Discriminants": "evaluation.features",
    "mean_prediction": "evaluation.conditional",
    # backbone
    "UNet": "backbone.unet",
    "DiT": "backbone.dit",
    "MLP": "backbone.mlp",
    "UNetEncoder": "backbone.encoder",
    "MLPEncoder": "backbone.encoder",
    "Encoder": "backbone.encoder",
    "Backbone": "backbone.base",
    # codec: pictures to latents and back
    "Autoencoder": "codec.codec",
    "TrainableAutoencoder": "codec.codec",
    "measure_latents": "codec.statistics",
    "load_codec": "codec.folder",
    "AutoencoderConfig": "codec.autoencoders",
    "AutoencoderKL": "codec.autoencoders",
    "VQModel": "codec.autoencoders",
    "AutoencoderDC": "codec.autoencoders",
    "AutoencoderTiny": "codec.autoencoders",
    "CodecObjective": "codec.objective",
    "Variational": "codec.objective",
    "Commitment": "codec.objective",
    "Reconstruction": "codec.objective",
    "PixelError": "codec.objective",
    "SquaredError": "codec.objective",
    "AbsoluteError": "codec.objective",
    # data
    "Digits": "data.digits",
    "MNIST": "data.mnist",
    "FashionMNIST": "data.mnist",
    "ImageFolder": "data.folder",
    "ArrayFile": "data.array",
    "Ring": "data.toy",
    "TwoMoons": "data.toy",
    "Spiral": "data.toy",
    "Checkerboard": "data.toy",
    "Latent": "data.latent",
    "Dataset": "data.base",
    # recipes, training, runs
    "Training": "training.settings",
    "Sampling": "sampling",
    "Recipe": "recipe.recipe",
    "load_recipe": "recipe.recipe",
    "train": "training.loop",
    "load": "run.load",
    "Comparing": "run.comparing",
    "Evolving": "run.evolving",
    "load_evolving": "run.evolving",
    "Classifying": "run.classifying",
    "load_classifying": "run.classifying",
    "load_classifier": "run.load",
    "Coding": "run.coding",
    "load_coding": "run.coding",
}

__all__ = ["EXPORTS", "__version__", *EXPORTS]


def __getattr__(name: str) -> Any:
    if name == "pde":  # a namespace of its own: `ud.pde.evolve(...)`
        return importlib.import_module("unidiff.pde")
    if name not in EXPORTS:
        raise AttributeError(f"module 'unidiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unidiff.{EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
