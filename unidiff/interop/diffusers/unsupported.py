"""Schedulers of diffusers that do not say which Gaussian diffusion a model is of, each with what to take instead."""

from __future__ import annotations

__all__ = ["UNSUPPORTED"]

_BACKWARDS = "goes from images to noise; take DDIMScheduler for the model, and unidiff.encode for the way to noise"
_TOKENS = "is of tokens, and unidiff is of Gaussian noise; take the pipeline of diffusers itself"
_ENDS = "is of a model that predicts ends of paths, and not the expected data; take the model it was distilled from"
_OF_ITS_OWN = "steps on states of its own pipeline; take a model with FlowMatchEulerDiscreteScheduler, or that pipeline"

UNSUPPORTED: dict[str, str] = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": _ENDS,
    "CosineDPMSolverMultistepScheduler": "is of audio, with a noise condition of its own; take the pipeline of "
    "diffusers itself, or EDMDPMSolverMultistepScheduler for a model whose noise condition is log(sigma) / 4",
    "DDIMInverseScheduler": _BACKWARDS,
    "DDPMWuerstchenScheduler": "is of the three stages of Wuerstchen; take the pipeline of diffusers itself",
    "DPMSolverMultistepInverseScheduler": _BACKWARDS,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "FlowMapEulerDiscreteScheduler": _ENDS,
    "HeliosDMDScheduler": _OF_ITS_OWN,
    "HeliosScheduler": _OF_ITS_OWN,
    "KarrasVeScheduler": "was removed from diffusers; take the network alone, as in load(folder / 'unet', "
    "process=EDM(), parameterization=Preconditioned())",
    "LTXEulerAncestralRFScheduler": "takes its times from its own pipeline; take FlowMatchEulerDiscreteScheduler, "
    "whose model is the same",
    "MiniMaxH3Scheduler": _OF_ITS_OWN,
    "PiflowScheduler": _ENDS,
    "RFD4ProteinaScheduler": "is of proteins; take the pipeline of diffusers itself",
    "SCMScheduler": _ENDS,
    "VQDiffusionScheduler": _TOKENS,
}
