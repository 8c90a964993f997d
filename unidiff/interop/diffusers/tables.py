"""The scheduler of diffusers on whose table a process can be sampled there."""

from __future__ import annotations

from typing import Any

import torch

from unidiff.errors import ParameterError
from unidiff.interop.diffusers.scheduler import PREDICTIONS
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.schedule import Cosine, Linear, ScaledLinear, Schedule, ZeroTerminalSNR

__all__ = ["table_config"]

_LENGTH = 1000  # entries of an exported table: entry i is the time i / 1000, with the noise condition c = i
_SMALLEST = 2.0**-20  # variance that 1 - alpha-bar, in diffusers' float32, still distinguishes from 0 (by 6%)


def table_config(process: Process, parameterization: Parameterization) -> dict[str, Any]:
    """The options, shared by diffusers' table schedulers, with which its samples are those of the process here.

    `NeuralDenoiser` passes its network u / sqrt(alpha^2 + sigma^2), and predicts Eps, X0 and V at unit scale. That is
    the state of a variance-preserving process of the same SNR, alpha-bar = alpha^2 / (alpha^2 + sigma^2) (Kingma et al.
    2021, section 5.1), so any scalar process that starts from that process's noise has such a table.

    Raises:
        ParameterError: If there is none, with the reason.
    """
    prediction = next((name for name, known in PREDICTIONS.items() if known == parameterization), None)
    if prediction is None:
        raise ParameterError("parameterization", f"diffusers' tables support Eps, X0 and V, not {parameterization!r}")
    if process.basis.shape:
        raise ParameterError("process", f"diffusers has no scheduler for {process!r}, whose modes differ in SNR")
    last = process.level(1.0)
    start = float(process.prior_scale()) / (last.alpha**2 + last.sigma**2) ** 0.5
    if abs(start - 1) > 1e-4:
        problem = f"diffusers' pipelines start from noise of scale 1, but {process!r} from {start:.6g}"
        raise ParameterError("process", problem)
    levels = process.levels_at(torch.arange(1, _LENGTH + 1, dtype=torch.float64) / _LENGTH)
    alpha, sigma = torch.tensor([(level.alpha, level.sigma) for level in levels], dtype=torch.float64).T
    alpha_bar = alpha**2 / (alpha**2 + sigma**2)
    if not bool((alpha_bar[1:] < alpha_bar[:-1]).all()) or alpha_bar[0] > 1 - _SMALLEST:
        raise ParameterError("process", f"the float32 of diffusers' tables cannot resolve {process!r} at t = 0.001")
    named = _named(process.schedule) if isinstance(process, DDPM) and process.T == _LENGTH else {}
    betas = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return {
        "num_train_timesteps": _LENGTH,
        **(named or {"trained_betas": betas.tolist()}),
        "prediction_type": prediction,
        "clip_sample": False,
        "timestep_spacing": "trailing",  # from t = 1 on, in equal steps
    }


def _named(schedule: Schedule) -> dict[str, Any]:
    """Diffusers' name of a schedule; empty if it has none."""
    if isinstance(schedule, ZeroTerminalSNR):
        inner = _named(schedule.schedule)
        return inner and {**inner, "rescale_betas_zero_snr": True}
    if schedule == Cosine():
        return {"beta_schedule": "squaredcos_cap_v2"}
    if isinstance(schedule, (Linear, ScaledLinear)):
        name = "linear" if isinstance(schedule, Linear) else "scaled_linear"
        return {"beta_start": schedule.beta_min, "beta_end": schedule.beta_max, "beta_schedule": name}
    return {}
