"""The scheduler of diffusers on whose table a process can be sampled there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unidiff.errors import ParameterError
from unidiff.parameterization import X0, Eps, Parameterization, V
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.schedule import Cosine, Linear, ScaledLinear, Schedule, ZeroTerminalSNR

__all__ = ["LENGTH", "table_config"]

LENGTH = 1000  # entries of an exported table: entry i is the time i / 1000, of which a network is told c = i

_PREDICTIONS: dict[Parameterization, str] = {Eps(): "epsilon", X0(): "sample", V(): "v_prediction"}
_SMALLEST = 2.0**-20  # variance that 1 - alpha-bar, in diffusers' float32, still tells from 0 (by 6%)


def table_config(process: Process, parameterization: Parameterization) -> dict[str, Any]:
    """The config of a table on which diffusers draws what is drawn here: those entries that its table schedulers share.

    `NeuralDenoiser` shows a network u / sqrt(alpha^2 + sigma^2), and asks Eps, X0 and V of it at unit scale. That is
    the state of a variance-preserving process of the same SNR, alpha-bar = alpha^2 / (alpha^2 + sigma^2) (Kingma et al.
    2021, section 5.1), so any scalar process that starts from that process's noise has such a table.

    Raises:
        ParameterError: If there is none: the message says why.
    """
    name = repr(parameterization)
    if parameterization not in _PREDICTIONS:
        raise ParameterError("parameterization", f"diffusers' tables know Eps, X0 and V, not {name}")
    if process.basis.shape:
        raise ParameterError("process", f"diffusers has no scheduler for {process!r}, whose modes differ in SNR")
    last = process.level(1.0)
    start = float(process.prior_scale()) / (last.alpha**2 + last.sigma**2) ** 0.5
    if abs(start - 1) > 1e-4:
        problem = f"diffusers' pipelines start from noise of scale 1, {process!r} from {start:.6g} of that"
        raise ParameterError("process", problem)
    alpha_bar = _alpha_bar(process)
    if not bool((alpha_bar[1:] < alpha_bar[:-1]).all()) or alpha_bar[0] > 1 - _SMALLEST:
        raise ParameterError("process", f"diffusers' tables, kept in float32, cannot tell {process!r} at t = 0.001")
    return {
        "num_train_timesteps": LENGTH,
        **_betas(process, alpha_bar),
        "prediction_type": _PREDICTIONS[parameterization],
        "clip_sample": False,
        "timestep_spacing": "trailing",  # from t = 1 on, in equal steps
    }


def _alpha_bar(process: Process) -> Tensor:
    """alpha^2 / (alpha^2 + sigma^2) at t = i / 1000, i = 1, ..., 1000."""
    levels = process.levels_at(torch.arange(1, LENGTH + 1, dtype=torch.float64) / LENGTH)
    alpha, sigma = (
        torch.tensor([getattr(at, name) for at in levels], dtype=torch.float64) for name in ("alpha", "sigma")
    )
    return alpha**2 / (alpha**2 + sigma**2)


def _betas(process: Process, alpha_bar: Tensor) -> dict[str, Any]:
    """The table by the name that diffusers has for it, or written out."""
    if isinstance(process, DDPM) and process.T == LENGTH and (named := _named(process.schedule)):
        return named
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return {"trained_betas": (1 - alpha_bar / before).tolist()}


def _named(schedule: Schedule) -> dict[str, Any]:
    """Diffusers' name of a schedule; empty if it has none."""
    if isinstance(schedule, ZeroTerminalSNR):
        inner = _named(schedule.schedule)
        return inner and {**inner, "rescale_betas_zero_snr": True}
    if schedule == Cosine():
        return {"beta_schedule": "squaredcos_cap_v2"}
    names = {Linear: "linear", ScaledLinear: "scaled_linear"}
    if not isinstance(schedule, (Linear, ScaledLinear)):
        return {}
    ends = {"beta_start": schedule.beta_min, "beta_end": schedule.beta_max}
    return {**ends, "beta_schedule": names[type(schedule)]}
