"""The parts under contract: an instance of each public class, small, and the models that try them.

A class that cannot be built without arguments needs a line in EXAMPLES, and so does one whose defaults are too large
for a quick test; everything else is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from contrast import AttributePairs

import unidiff as ud
from unidiff.basis import Basis
from unidiff.data.base import Dataset
from unidiff.grid import Grid
from unidiff.objective.base import Objective
from unidiff.objective.weighting import Weighting
from unidiff.process.level import Level
from unidiff.recipe.registry import PUBLIC
from unidiff.schedule import Schedule
from unidiff.solver.per_sample import PerSampleSolver

FROZEN = (
    *(Schedule, Basis, ud.Process, ud.PerSampleHeat, ud.Parameterization, ud.Solver, PerSampleSolver, Grid, Weighting),
    *(
        Objective,
        ud.Coupling,
        ud.TimeSampling,
        Dataset,
        ud.DivergenceEstimator,
        ud.NoiseSpectrum,
        ud.pde.Discretization,
        ud.inverse.Operator,
        ud.Condition,
        ud.Conditioning,
        ud.codec.AutoencoderConfig,
        ud.codec.CodecObjective,
        ud.codec.PixelError,
        ud.Acceleration,
        ud.Attention,
        ud.BlockDesign,
        ud.Optimizer,
    ),
)

# A signal, an image and a volume or video: every network takes each.
SHAPES = [(2, 8), (1, 8, 8), (1, 2, 4, 8)]

# Constructor arguments, one entry for each instance to test: small, and beside the defaults where there are choices.
EXAMPLES: dict[str, list[dict[str, object]]] = {
    "DDPM": [{"T": 12, "schedule": cls()} for name, cls in PUBLIC.choices(Schedule).items() if name != "BetaTable"],
    "BetaTable": [{"entries": [0.01, 0.2, 1.0]}],  # of one T only: tests/exact/test_process.py
    "DCT": [{"shape": (2,)}, {"shape": (3, 4)}],
    "RenormalizedHeat": [
        {"shape": (2,), "blur_max": 0.5},
        {"shape": (2,), "blur_max": 40.0, "noise": ud.DataSpectrum()},
    ],
    "Blurring": [{"shape": (2,), "blur_max": 2.0}],
    "InverseHeat": [{"shape": (2,), "blur_max": 0.8, "levels": 8}],
    "NCSN": [{}, {"sigma_min": 0.05, "sigma_max": 20.0, "levels": 6}],
    **{name: [{"steps": 7}, {"steps": 1}] for name in PUBLIC.choices(Grid) if name != "Native"},
    "Trailing": [{"steps": 4}, {"steps": 1}],  # at most 1 / t_min
    "FixedGrid": [{"interior": (0.8, 0.5, 0.3)}, {"interior": (0.7, 0.3), "steps": 7, "last": 0.27}],
    "Ancestral": [{}, {"variance_interpolation": 1.0}],
    "DDIM": [{}, {"eta": 0.5}],
    "EulerMaruyama": [{}, {"eta": 0.0}],
    "ProbabilityFlow": [{}, {"method": "rk4"}],
    "EDMStochastic": [{}, {"churn": 0.0}],
    "DPMSolver": [{"order": order, "eta": eta} for order in (1, 2, 3) for eta in (0.0, 1.0)],
    **{name: [{"order": order} for order in (1, 2, 3)] for name in ("DPMSolverSinglestep", "UniPC", "DEIS")},
    "DPMSolverNoise": [{"order": 2}, {"order": 3}],
    "DPMSolverAdaptive": [{"order": 2, "rtol": 0.2, "atol": 0.2}, {"rtol": 0.2, "atol": 0.2}],
    "UniPCNoise": [{}, {"order": 3, "variant": "bh1"}],
    "LogRhoDEIS": [{}, {"published_orders": True}],
    "AdamsBashforth": [{"order": 1}, {"order": 4}],
    "ExponentialAdams": [{}, {"order": 2}, {"order": 5}],
    "LinearMultistep": [{"weights": ((-0.5,),)}, {"weights": [[]]}],
    # A step size below 4 sigma^2 / alpha^2 at t_min of every process.
    "AnnealedLangevin": [{"steps_per_level": 2, "step_size": 1e-9, "denoise": denoise} for denoise in (True, False)],
    "Langevin": [{"steps": 2, "step_size": 1e-9, "denoise": denoise} for denoise in (True, False)],
    "SASolver": [{"order": 2, "tau": 0.0}, {}],
    "Restart": [{"low": 0.2, "high": 0.7, "repeats": 1}, {"solver": ud.DDIM(), "low": 0.1, "high": 0.9}],
    "Resampling": [{"repeats": 2}, {"solver": ud.DDIM(), "repeats": 3, "jump": 2}],
    "Hutchinson": [{}, {"probes": 3}],
    "HeatBlur": [{"shape": (2, 3), "blur": 0.7}],
    "BlockMean": [{"shape": [2, 4], "factor": 2}],
    "Inpainting": [{"known": [1, 0]}, {"known": ((True, False), (False, True))}],
    "RandomProjection": [{"shape": (2, 3), "count": 4}],
    "Label": [{"classes": 3}, {"classes": 2, "name": "colour"}],
    "Image": [{"channels": 2}, {"channels": 1, "size": (8, 8)}],
    "Control": [{"channels": 2, "size": (8, 8)}],
    "Tokens": [{"length": 4, "vocabulary": 9}],
    "Caption": [{"length": 3, "word_list": ("a", "b")}],
    "Embedding": [{"shape": (5,)}, {"shape": (4, 5)}],
    "Joint": [{"parts": (ud.Labels(), ud.SuperResolution(2, dropout=0.1)), "joint_dropout": 0.2}],
    "UNet": [
        *({"shape": shape, "width": 8, "multipliers": (1, 2), "blocks": 1} for shape in SHAPES),
        {"shape": SHAPES[-1], "width": 8, "multipliers": (1, 2), "blocks": 1, "factorized": True},
        {"shape": SHAPES[1], "width": 8, "multipliers": (1,), "blocks": 1, "attention": (8,), "axial": True},
    ],
    "DiT": [
        *({"shape": shape, "width": 8, "depth": 1, "heads": 2} for shape in SHAPES),
        {"shape": SHAPES[-1], "width": 8, "depth": 1, "heads": 2, "factorized": True},
        {"shape": SHAPES[-1], "width": 8, "depth": 3, "heads": 2, "axial": True, "attention": ud.LinearAttention()},
        *(
            {"shape": SHAPES[i % 2], "width": 8, "depth": 1, "heads": 2, "block": design()}
            for i, design in enumerate(PUBLIC.choices(ud.BlockDesign).values())
        ),
    ],
    "MMDiT": [
        {"shape": shape, "width": 8, "depth": 2, "heads": 2, "conditions": (ud.Tokens(3, 4),)} for shape in SHAPES
    ],
    "MLP": [{"shape": shape, "width": 8} for shape in SHAPES],
    "UNetEncoder": [{"shape": shape, "width": 8, "multipliers": (1, 2), "classes": 3} for shape in SHAPES],
    "MLPEncoder": [{"shape": shape, "width": 8, "classes": 3} for shape in SHAPES],
    "ImageFolder": [{"root": "somewhere"}],
    "CaptionedFolder": [{"root": "somewhere"}],
    "Prompts": [{"folder": "somewhere"}],
    "Pretrained": [],  # of a folder that diffusers saved: golden/test_diffusers_tuning.py
    "Latent": [{"data": ud.data.Digits(16), "codec": "runs/none"}],
    "ArrayFile": [{"path": "points.npy"}],
    "Concatenated": [{"parts": (ud.data.Digits(), ud.data.ShearedDigits()), "repeats": (1, 2)}],
    "Unavailable": [{"sample_shape": (2,), "class_count": 3}],
    "TorchOptimizer": [{"name": "SGD"}, {"name": "RAdam", "arguments": {"betas": [0.8, 0.9]}}],
    "Pairs": [{"path": "noise.npy"}],
    "HuggingFaceImages": [{"path": "photos"}],
    "Identity": [{"name": "y"}, {"name": "embedding", "noise": 0.1, "dropout": 0.1}],
}


def instances(*bases: type) -> list[Any]:
    made: list[Any] = []
    for base in bases:
        for name, cls in PUBLIC.choices(base).items():
            made += [cls(**arguments) for arguments in EXAMPLES.get(name, [{}])]
    return made


def classes(*bases: type) -> list[Any]:
    return [cls for base in bases for cls in PUBLIC.choices(base).values()]


def every(name: str | tuple[str, ...], values: Iterable[object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=lambda value: getattr(value, "__name__", None) or repr(value))


MEANS = [[-0.6, 0.3], [0.5, -0.2]]
FIRST, MEASURED = ud.inverse.Inpainting((1, 0)), torch.tensor([[0.4]], dtype=torch.float64)


def squared_norm(x: torch.Tensor) -> torch.Tensor:
    """An energy that can be pickled."""
    return x.square().sum(1)


# A guided model is just another model: a way to make each, from a mixture whose classes are its components.
GUIDED: dict[str, Callable[[ud.GaussianMixture], ud.Denoiser]] = {
    "ClassifierFree": lambda model: ud.ClassifierFree(model, 2.5),
    "AutoGuidance": lambda model: ud.AutoGuidance(model, ud.GaussianMixture(model.process, MEANS, 0.3), 1.5),
    "ClassifierGuidance": lambda model: ud.ClassifierGuidance(model, ud.MixtureClassifier(model), 1.5, chunk=2),
    "CLIPGuidance": lambda model: ud.CLIPGuidance(model, AttributePairs(model), 1.5, chunk=2),
    "UniversalGuidance": lambda model: ud.UniversalGuidance(model, squared_norm, 1.5, chunk=2),
    "GuidanceInterval": lambda model: ud.GuidanceInterval(ud.ClassifierFree(model, 2.5), 0.2, 0.7),
    "RescaledGuidance": lambda model: ud.RescaledGuidance(ud.ClassifierFree(model, 2.5)),
    "DynamicThreshold": lambda model: ud.DynamicThreshold(ud.ClassifierFree(model, 2.5), 0.5),
    "DPS": lambda model: ud.inverse.DPS(model, FIRST, MEASURED, 1.0),
    "PiGDM": lambda model: ud.inverse.PiGDM(model, FIRST, MEASURED, 0.3),
    "MomentMatching": lambda model: ud.inverse.MomentMatching(model, FIRST, MEASURED, 0.3, iterations=2),
    "Replacement": lambda model: ud.Replacement(model, torch.tensor([0.4, 0.0]), torch.tensor([1.0, 0.0])),
}


# The solvers that need one SNR for all modes; the others run where the modes differ.
NEED_ONE_SNR = [
    *(ud.DEIS(order=order) for order in (1, 2, 3)),
    *(ud.DPMSolverSinglestep(order=order) for order in (2, 3)),
    *(ud.DPMSolverNoise(order=order) for order in (2, 3)),
    *(ud.DPMSolverAdaptive(order=order, rtol=0.2, atol=0.2) for order in (2, 3)),
    *(solver(published_orders=published) for solver in (ud.PNDM, ud.PLMS) for published in (False, True)),
    ud.EDMStochastic(),  # with churn
]


class Through(ud.Denoiser):
    """The exact denoiser of a mixture, its answer handed through a parameterization as a network's would be."""

    def __init__(self, process: ud.Process, parameterization: ud.Parameterization) -> None:
        super().__init__()
        parameterization.check(process)
        self.process = process
        self.parameterization = parameterization
        self.exact = ud.GaussianMixture(process, MEANS, 0.04)
        self.calls = [0]

    def forward(self, u: torch.Tensor, level: Level, **cond: Any) -> ud.Prediction:
        self.calls[0] += 1
        x0, eps, *_ = self.exact(u, level)
        return self.parameterization.solve(self.parameterization.target(x0, eps, level), u, level)


class Answer(torch.nn.Module):
    """A network of two constants: what it predicts, and the second half of its channels, 2 v - 1."""

    learned_variance = True

    def __init__(self, output: torch.Tensor, v: torch.Tensor) -> None:
        super().__init__()
        self.output, self.v = torch.nn.Parameter(output), torch.nn.Parameter(v)
        self.shape = output.shape

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.output, self.v]).expand(len(x), -1)
