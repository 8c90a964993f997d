"""What a scheduler's config determines: the process, what the network predicts, its noise condition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from unidiff.errors import ParameterError, RunError, is_whole, require, require_whole
from unidiff.interop.diffusers.unsupported import UNSUPPORTED
from unidiff.noise_condition import LogSigma, NoiseCondition, NoiseScale, TableIndex, Timestep
from unidiff.parameterization import X0, Eps, Parameterization, Preconditioned, Score, V, Velocity
from unidiff.pretrained import import_diffusers
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.process.flow import FlowMatching
from unidiff.process.level import Level, Scale
from unidiff.process.variance_exploding import EDM, VESDE
from unidiff.process.variance_preserving import CosineVP
from unidiff.schedule import BetaTable, Cosine, Linear, ScaledLinear, Schedule, ZeroTerminalSNR

__all__ = ["PREDICTIONS", "SchedulerModel", "made", "modernized", "read_scheduler"]

# Samplers of one and the same model: a network trained on a table of betas. Their other options are how they sample.
_ON_A_TABLE = (
    *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "SASolverScheduler"),
    *("LCMScheduler", "TCDScheduler", "RePaintScheduler", "UnCLIPScheduler"),
    *("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DPMSolverSDEScheduler"),
)
_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
_KARRAS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_OTHERS = ("ScoreSdeVeScheduler", "IPNDMScheduler", *_FLOWS, *_KARRAS)
_SCHEDULERS = (*_ON_A_TABLE, *_OTHERS)
# A scheduler that needs another package -> one of the same options and times.
_SAME_TIMES = {"DPMSolverSDEScheduler": "EulerDiscreteScheduler"}
_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
# NumPy or torch arrays, in 2022; the seed of the noise of DPMSolverSDE.
_NOT_OF_THE_MODEL = ("tensor_format", "noise_sampler_seed")
# Options of 2022 -> those of today.
_RENAMED = {"predict_epsilon": "prediction_type", "timesteps": "num_train_timesteps"}
_FAR = 40.0  # log SNR that is as good as infinite: sigma / alpha = 2e-9
PREDICTIONS: dict[str, Parameterization] = {"epsilon": Eps(), "sample": X0(), "v_prediction": V()}


@dataclass(frozen=True)
class NegativePreconditioned(Preconditioned):
    """Minus `Preconditioned`: the v_prediction of diffusers' EDM schedulers.

    Args:
        data_std: Standard deviation of the data.
    """

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        """See `Parameterization.coefficients`."""
        a, b = super().coefficients(level)
        return -a, -b


@dataclass(frozen=True)
class SchedulerModel:
    """What a scheduler's config says of the model.

    Attributes:
        process: The process of the noisy states.
        parameterization: What the network predicts.
        noise_condition: What it is passed of the time: its `timestep`.
        clip: Where the expected data are clipped; None if they are not.
        variance: Its `variance_type`; None if it has none.
        T: `timesteps` that make up the time 1: `num_train_timesteps`, or 1 where they are times.
        first: The number of the first entry of a table in units of 1 / T; 0 without a table.
        scaled: Whether the network's input is scaled as in `NeuralDenoiser`, and not the state as it is.
    """

    process: Process
    parameterization: Parameterization
    noise_condition: NoiseCondition
    clip: float | None = None
    variance: str | None = None
    T: int = 1
    first: int = 0
    scaled: bool = False


def read_scheduler(config: Mapping[str, Any], place: str) -> SchedulerModel:
    """What the config of a scheduler says of the model.

    Args:
        config: Its entries, with `_class_name`.
        place: Where it was read, for messages.

    Raises:
        RunError: If the scheduler, or an option of it that changes the mathematics, is unsupported.
    """
    name = config.get("_class_name")
    if reason := UNSUPPORTED.get(str(name)):
        raise RunError(f"{place}: the scheduler {name} {reason}.")
    if name not in _SCHEDULERS:
        problem = f"the scheduler {name} is unsupported; supported are {', '.join(_SCHEDULERS)}"
        remedy = 'If one of them fits the model, take it: scheduler={"_class_name": "DDIMScheduler"}'
        raise RunError(f"{place}: {problem}. {remedy}.")
    try:
        full = _completed(modernized(config), place)
        if full.get("thresholding"):
            problem = "thresholding=True is not part of a model"
            remedy = 'Load it with scheduler={"thresholding": False}, and wrap it in unidiff.DynamicThreshold.'
            raise RunError(f"{place}: {problem}. {remedy}")
        if name == "ScoreSdeVeScheduler":
            process = VESDE(full["sigma_min"], full["sigma_max"], full["sampling_eps"])
            return SchedulerModel(process, Score(), NoiseScale())
        if name == "IPNDMScheduler":  # t = 2 / pi atan(sigma / alpha), and the network predicts v
            absent = full["trained_betas"] is None
            require(absent, "trained_betas", "a list", "null, which is the only schedule with times of its own")
            return SchedulerModel(CosineVP(-_FAR, _FAR, 1 / full["num_train_timesteps"]), V(), Timestep(1))
        if name in _KARRAS:
            return _karras(full)
        if name in _FLOWS or full.get("use_flow_sigmas"):
            return _flow(full)
        return _table(full)
    except ParameterError as error:
        raise RunError(f"{place}: {error}") from error


def modernized(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the options of 2022 under their names of today, as the diffusers of that time translated them."""
    modern = {key: value for key, value in config.items() if key not in (*_RENAMED, *_NOT_OF_THE_MODEL)}
    for old, new in _RENAMED.items():
        value = config.get(old)
        if value is None:
            continue
        if old == "predict_epsilon":
            require(isinstance(value, bool), old, value, "true or false")
            value = "epsilon" if value else "sample"
        if modern.get(new) not in (None, value):
            problem = f"{config[old]!r} contradicts {new} = {modern[new]!r}. Remove the wrong one."
            raise ParameterError(old, problem)
        modern[new] = value
    return modern


def _check_values(config: Mapping[str, Any]) -> None:
    """Reject values of options that diffusers does not check itself."""
    require_whole("num_train_timesteps", config.get("num_train_timesteps", 1))
    for name, value in config.items():
        kinds = [_OF_KIND[kind] for kind in _kinds(name)]
        fits = value is None or not kinds or any(of_kind(value) for _, of_kind in kinds)
        require(fits, name, value, " or ".join(sorted(allowed for allowed, _ in kinds)))
    for name in ("clip_sample_range", "shift", "sigma_min", "sigma_max"):
        value = config.get(name)
        require(value is None or (_is_number(value) and 0 < value < float("inf")), name, value, "a number > 0")
    betas, variance = config.get("trained_betas"), config.get("variance_type")
    numbers = isinstance(betas, (list, tuple)) and all(map(_is_number, betas))
    require(betas is None or numbers, "trained_betas", betas, "a list of numbers")
    require(variance in (None, *_VARIANCES), "variance_type", variance, " or ".join(_VARIANCES))


@cache
def _kinds(option: str) -> set[type]:
    """The types of the defaults of an option, over all schedulers: "false", a string, would be true for diffusers."""
    signatures = (inspect.signature(getattr(import_diffusers(), name)).parameters for name in _SCHEDULERS)
    defaults = {type(options[option].default) for options in signatures if option in options}
    return defaults & _OF_KIND.keys()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_OF_KIND: dict[type, tuple[str, Callable[[object], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("an integer", lambda value: is_whole(value, -(2**62))),
    float: ("a number", _is_number),
    str: ("a string", lambda value: isinstance(value, str)),
    list: ("a list", lambda value: isinstance(value, (list, tuple))),
}


def made(config: Mapping[str, Any], place: str) -> Any:
    """The scheduler itself, with those of its options that the config has."""
    name = config["_class_name"]
    cls = getattr(import_diffusers(), _SAME_TIMES.get(name, name))
    options = inspect.signature(cls).parameters
    try:
        return cls.from_config({key: value for key, value in config.items() if key in options})
    except (ValueError, TypeError, RuntimeError, NotImplementedError, ImportError) as error:
        raise RunError(f"{place}: diffusers rejects this {config['_class_name']}: {error}") from error


def _completed(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The config with diffusers' own defaults for absent options, and without those that this scheduler does not use.

    `from_config` of another scheduler keeps the options of the first, so those of all supported ones are accepted.
    """
    _check_values(config)
    diffusers, name = import_diffusers(), config["_class_name"]
    scheduler = made(config, place)
    unknown = {key for key, value in config.items() if not key.startswith("_") and value is not None}
    for cls in (name,) if name in ("ScoreSdeVeScheduler", "IPNDMScheduler", *_KARRAS) else _SCHEDULERS:
        unknown -= inspect.signature(getattr(diffusers, cls)).parameters.keys()
    if unknown:
        problem = f"unknown option {', '.join(sorted(unknown))} of {name}, which may change what the model is"
        raise RunError(f"{place}: {problem}. Remove it, or update diffusers.")
    # Whatever the scheduler, a network predicts what it was trained to.
    prediction = config.get("prediction_type")
    return {**scheduler.config, **({"prediction_type": prediction} if prediction else {})}


def _flow(full: Mapping[str, Any]) -> SchedulerModel:
    """The straight path: the network predicts its velocity."""
    inverted = full.get("invert_sigmas")
    require(not inverted, "invert_sigmas", inverted, "False, which is noise at time 1")
    prediction = full.get("prediction_type", "flow_prediction")
    require(prediction == "flow_prediction", "prediction_type", prediction, "'flow_prediction' on a flow")
    T = full["num_train_timesteps"]
    return SchedulerModel(FlowMatching(t_min=1 / T), Velocity(), Timestep(T), T=T)


def _karras(full: Mapping[str, Any]) -> SchedulerModel:
    """Noise on unscaled data (Karras et al. 2022): x0 = c_skip u + c_out F, or minus c_out for a v_prediction."""
    prediction = full["prediction_type"]
    require(prediction in ("epsilon", "v_prediction"), "prediction_type", prediction, "'epsilon' or 'v_prediction'")
    parameterization = (Preconditioned if prediction == "epsilon" else NegativePreconditioned)(full["sigma_data"])
    return SchedulerModel(
        EDM(full["sigma_min"], full["sigma_max"], full["rho"]), parameterization, LogSigma(), scaled=True
    )


def _table(full: Mapping[str, Any]) -> SchedulerModel:
    """A table of betas."""
    prediction, times = full.get("prediction_type", "epsilon"), full.get("timestep_type", "discrete")
    require(prediction in PREDICTIONS, "prediction_type", prediction, f"{' or '.join(PREDICTIONS)} on a table of betas")
    require(times == "discrete", "timestep_type", times, "discrete on a table of betas")
    T = full["num_train_timesteps"]
    schedule = _schedule(full, T)
    if (shift := full.get("snr_shift_scale") or 1) != 1:  # of CogVideoX: SNR / shift
        alpha_bar = DDPM(T, schedule).alpha(torch.arange(1, T + 1) / T) ** 2
        alpha_bar = alpha_bar / (shift + (1 - shift) * alpha_bar)
        before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        schedule = BetaTable(tuple((1 - alpha_bar / before).tolist()))
    if full.get("rescale_betas_zero_snr"):
        schedule = ZeroTerminalSNR(schedule)
    clip, variance = full.get("clip_sample_range", 1.0) if full.get("clip_sample") else None, full.get("variance_type")
    return SchedulerModel(DDPM(T, schedule), PREDICTIONS[prediction], TableIndex(T), clip, variance, T, 1)


def _schedule(full: Mapping[str, Any], T: int) -> Schedule:
    """The rule of the betas."""
    if (trained := full.get("trained_betas")) is not None:
        return BetaTable(tuple(float(beta) for beta in trained))
    first, last, name = full.get("beta_start", 1e-4), full.get("beta_end", 0.02), full["beta_schedule"]
    if name == "linear":
        return Linear(first, last)
    if name == "scaled_linear":
        return ScaledLinear(first, last)
    if name == "squaredcos_cap_v2":
        return Cosine()
    # Xu et al. 2022 (GeoDiff): beta goes from first to last along a sigmoid over [-6, 6].
    require(name == "sigmoid", "beta_schedule", name, "linear, scaled_linear, squaredcos_cap_v2 or sigmoid")
    rise = torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()
    return BetaTable(tuple((first + (last - first) * rise).tolist()))
