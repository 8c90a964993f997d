"""A model trained on one process, on the states of another."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.parameterization import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level, eps_of, scale_by

__all__ = ["Rescheduled"]


class Rescheduled(Denoiser):
    """A model trained on one process, evaluated on the states of another.

    States of equal log SNR differ by a factor only, so the expected data are the same (Kingma et al. 2021, section 5.1;
    Karras et al. 2022, appendix C). Where the new process is noisier than the model's own, the model is evaluated at
    its own t = 1.

    Args:
        denoiser: The trained model.
        process: The process to sample on; scalar, in the basis of the model's own.

    Raises:
        ParameterError: If the bases differ, or the new process goes to less noise than the model was trained with.
    """

    def __init__(self, denoiser: Denoiser, process: Process) -> None:
        super().__init__()
        own = denoiser.process
        if own.basis.shape:
            problem = f"the modes of {own!r} differ in log SNR; no time of another process matches them all."
            raise ParameterError("denoiser", problem)
        if own.basis != process.basis:
            raise ParameterError("process", f"{process!r} has a different basis from the model's {own!r}.")
        new, trained = (p.level(p.t_min) for p in (process, own))
        if new.log_snr > trained.log_snr + 1e-9:
            ratios = [level.sigma / level.alpha for level in (new, trained)]
            problem = "{!r} goes down to sigma / alpha = {:.12g}, but the model was trained only down to {:.12g}, "
            remedy = f"that is, t >= {_matching(process, trained.log_snr):.12g} here. Raise its t_min or sigma_min."
            raise ParameterError("process", problem.format(process, *ratios) + remedy)
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self.process = process

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The wrapped model's E[x0 | u], and the noise (u - alpha x0) / sigma."""
        own = self.denoiser.process
        if isinstance(level.log_snr, Tensor):
            at = own.level(own.time_at(level.log_snr.flatten()).clamp(min=own.t_min), u)
        else:
            at = own.level(max(_matching(own, level.log_snr), own.t_min))
        ratio = ((at.alpha**2 + at.sigma**2) / (level.alpha**2 + level.sigma**2)) ** 0.5
        prediction: Prediction = self.denoiser(scale_by(ratio, u), at, **cond)
        x0 = prediction.x0
        return Prediction(x0, eps_of(x0, u, level), level, prediction.variance_interpolation)


@lru_cache(maxsize=100_000)
def _matching(process: Process, log_snr: float) -> float:
    """The time of a process at one log SNR: the same at every step of every run."""
    return float(process.time_at(torch.tensor(log_snr, dtype=torch.float64)))
