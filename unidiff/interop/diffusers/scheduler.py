"""What a scheduler's config says of its model: the process, what the network predicts, how it is told the time."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unidiff.errors import ParameterError, RunError, require, require_whole
from unidiff.grid import Grid
from unidiff.noise_condition import NoiseCondition, NoiseScale, TableIndex, Timestep
from unidiff.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from unidiff.pretrained import import_diffusers
from unidiff.process.base import Process
from unidiff.process.continuous import FlowMatching
from unidiff.process.ddpm import DDPM
from unidiff.process.variance_exploding import VESDE
from unidiff.schedule import BetaTable, Cosine, Linear, ScaledLinear, Schedule, ZeroTerminalSNR

__all__ = ["Reading", "Timesteps", "read_scheduler", "timesteps_of"]

# Samplers of one and the same thing: a network trained on a table of betas. What else they take is how they sample.
_ON_A_TABLE = (
    *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
)
_OTHERS = ("ScoreSdeVeScheduler", "FlowMatchEulerDiscreteScheduler")
_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
_DEAD = frozenset({"tensor_format"})  # chose NumPy or torch arrays in 2022; no part of the model
# Old option -> its name of today and, for a switch, what false and true mean.
_OLD: dict[str, tuple[str, tuple[str, str] | None]] = {
    "predict_epsilon": ("prediction_type", ("sample", "epsilon")),
    "timesteps": ("num_train_timesteps", None),
}
_PREDICTIONS: dict[str, Parameterization] = {"epsilon": Eps(), "sample": X0(), "v_prediction": V()}


@dataclass(frozen=True)
class Reading:
    """A scheduler's config, understood.

    Attributes:
        process: The process of the noisy states.
        parameterization: What the network predicts.
        noise_condition: What it is passed of the time: its `timestep`.
        clip: Where the expected data are clipped; None if they are not.
        variance: Its `variance_type`; None if it has none.
        T: `timesteps` that make up the time 1: `num_train_timesteps`, or 1 where they are times.
        first: The number of the first entry of a table in units of 1 / T; 0 without a table.
    """

    process: Process
    parameterization: Parameterization
    noise_condition: NoiseCondition
    clip: float | None = None
    variance: str | None = None
    T: int = 1
    first: int = 0

    def times(self, timesteps: Tensor) -> Tensor:
        """The times in [0, 1] that the scheduler's `timesteps`, (N,) float64, stand for."""
        return (timesteps + self.first) / self.T


@dataclass(frozen=True)
class Timesteps(Grid):
    """Given times, such as a scheduler's. They need not begin at 1: many schedulers take later noise for the purest.

    Args:
        given: Times in (0, 1], strictly decreasing; the 0 behind them is left out.
    """

    given: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in pairwise((*self.given, 0.0)))
        allowed = "a tuple of times in (0, 1], strictly decreasing"
        require(bool(self.given) and self.given[0] <= 1 and falling, "given", self.given, allowed)

    def times(self, process: Process) -> Tensor:
        """The times (N + 1,) with the 0; see `Grid.times`."""
        return torch.tensor([*self.given, 0.0], dtype=torch.float64)


def read_scheduler(config: Mapping[str, Any], place: str) -> Reading:
    """What the config of a scheduler says.

    Args:
        config: Its entries, with `_class_name`.
        place: Where it was read, for messages.

    Raises:
        RunError: If the scheduler, or an option of it that changes the mathematics, is unsupported.
    """
    name = config.get("_class_name")
    if name not in (*_ON_A_TABLE, *_OTHERS):
        known = ", ".join((*_ON_A_TABLE, *_OTHERS))
        raise RunError(f"{place}: the scheduler {name} is unsupported; supported are {known}.")
    config = _modernized(config, place)
    try:
        _check_values(config)
    except ParameterError as error:
        raise RunError(f"{place}: {error}") from error
    full = _completed(config, place)
    if full.get("thresholding"):
        problem = "thresholding=True was found, which is no part of a model"
        remedy = 'Load it with scheduler={"thresholding": False}, and wrap it in unidiff.DynamicThreshold.'
        raise RunError(f"{place}: {problem}. {remedy}")
    try:
        if name == "ScoreSdeVeScheduler":
            process = VESDE(full["sigma_min"], full["sigma_max"], full["sampling_eps"])
            return Reading(process, Score(), NoiseScale())
        if name == "FlowMatchEulerDiscreteScheduler" or full.get("use_flow_sigmas"):
            return _flow(full, place)
        return _table(full, place)
    except ParameterError as error:
        raise RunError(f"{place}: {error}") from error


def timesteps_of(config: Mapping[str, Any], steps: int, place: str) -> Timesteps:
    """The times at which a scheduler would take `steps` steps, as the scheduler itself says.

    Raises:
        RunError: If the scheduler is unsupported or has no times for that many steps.
        ParameterError: If steps is no integer of at least 1.
    """
    reading = read_scheduler(config, place)
    require_whole("steps", steps)
    # PNDM's Runge-Kutta start evaluates between its times; without it, the times are the same.
    scheduler = _made({**_modernized(config, place), "skip_prk_steps": True}, place)
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError) as error:
        raise RunError(f"{place}: {config['_class_name']} has no times for {steps} steps ({error}).") from error
    found = torch.as_tensor(scheduler.timesteps, dtype=torch.float64)
    if reading.first and config["_class_name"].startswith("DDIM"):
        stride = reading.T // steps
        meant = torch.cat([found[1:], found.new_tensor([-1.0])])
        if not torch.equal((found - stride).clamp(min=-1), meant):
            stepped = f"{config['_class_name']} steps by {reading.T} // {steps} = {stride}, past its own times"
            remedy = "The grid has the times themselves, so diffusers draws something else"
            warnings.warn(f"{place}: {stepped}. {remedy}; with leading times it does not.", stacklevel=3)
    times = reading.times(_without_stages(config["_class_name"], found)).tolist()
    try:
        require(len(times) == steps, "steps", steps, f"as many as its times, {len(times)}")
        return Timesteps(tuple(times))
    except ParameterError as error:
        raise RunError(f"{place}: {config['_class_name']} has no times for {steps} steps ({error}).") from error


def _without_stages(name: str, timesteps: Tensor) -> Tensor:
    """The times at which steps begin, out of a list that names each evaluation of the network."""
    if name == "PNDMScheduler":  # evaluates the second time twice: t0, t1, t1, t2, ...
        return torch.cat([timesteps[:1], timesteps[2:]])
    if name.startswith(("HeunDiscrete", "KDPM2")):  # t0, stage, t1, stage, t2, ...
        return timesteps[::2]
    return timesteps


def _modernized(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A config with the options of 2022 under their names of today, as the diffusers of that time translated them.

    Raises:
        RunError: If the old and the new option contradict each other.
    """
    modern = {key: value for key, value in config.items() if key not in (*_OLD, *_DEAD)}
    for old, (new, values) in _OLD.items():
        if config.get(old) is None:
            continue
        value = config[old]
        if values is not None:
            if not isinstance(value, bool):
                raise RunError(f"{place}: {old} must be true or false, got {value!r}.")
            value = values[value]
        if modern.get(new) not in (None, value):
            raise RunError(f"{place}: {old}={config[old]!r} contradicts {new}={modern[new]!r}. Remove the wrong one.")
        modern[new] = value
    return modern


def _check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of options that diffusers does not check itself.

    Raises:
        ParameterError: With the first.
    """
    require_whole("num_train_timesteps", config.get("num_train_timesteps", 1))
    for name in ("clip_sample_range", "shift", "sigma_min", "sigma_max"):
        value = config.get(name)
        good = value is None or (_is_number(value) and 0 < value < float("inf"))
        require(good, name, value, "a number above 0")
    betas = config.get("trained_betas")
    good = betas is None or (isinstance(betas, (list, tuple)) and all(map(_is_number, betas)))
    require(good, "trained_betas", betas, "a list of numbers")
    kind = config.get("variance_type")
    require(kind is None or kind in _VARIANCES, "variance_type", kind, " or ".join(_VARIANCES))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _made(config: Mapping[str, Any], place: str) -> Any:
    """The scheduler itself, told what it knows."""
    kind = getattr(import_diffusers(), config["_class_name"])
    known = inspect.signature(kind).parameters
    try:
        return kind.from_config({key: value for key, value in config.items() if key in known})
    except (ValueError, TypeError, RuntimeError, NotImplementedError, ImportError) as error:
        raise RunError(f"{place}: diffusers refuses this {config['_class_name']}: {error}") from error


def _completed(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The config with diffusers' own defaults for what it leaves unsaid, without what this scheduler has no use for.

    `from_config` of another scheduler keeps the options of the first, so those of all that are supported are let pass.
    """
    diffusers, name = import_diffusers(), config["_class_name"]
    scheduler = _made(config, place)
    unknown = {key for key, value in config.items() if not key.startswith("_") and value is not None}
    for kind in (name,) if name == "ScoreSdeVeScheduler" else (name, *_ON_A_TABLE, *_OTHERS):
        unknown = unknown and unknown - inspect.signature(getattr(diffusers, kind)).parameters.keys()
    if unknown:
        problem = f"diffusers knows no option {', '.join(sorted(unknown))} of {name}"
        raise RunError(f"{place}: {problem}, and it may change what the model is. Remove it, or update diffusers.")
    # Scheduler or not, a network predicts what it was trained to.
    told = {"prediction_type": config["prediction_type"]} if config.get("prediction_type") else {}
    return {**dict(scheduler.config), **told}


def _flow(full: Mapping[str, Any], place: str) -> Reading:
    """The straight path: the network predicts its velocity."""
    if full.get("invert_sigmas"):
        raise RunError(f"{place}: invert_sigmas=True was found; supported is False, noise at time 1.")
    prediction = full.get("prediction_type", "flow_prediction")
    if prediction != "flow_prediction":
        raise RunError(f"{place}: prediction_type {prediction!r} was found; supported on a flow is 'flow_prediction'.")
    T = full["num_train_timesteps"]
    return Reading(FlowMatching(t_min=1 / T), Velocity(), Timestep(T), T=T)


def _table(full: Mapping[str, Any], place: str) -> Reading:
    """A table of betas."""
    prediction = full.get("prediction_type")
    if prediction not in _PREDICTIONS:
        allowed = ", ".join(map(repr, _PREDICTIONS))
        raise RunError(f"{place}: prediction_type {prediction!r} was found; supported on a table are {allowed}.")
    if full.get("timestep_type", "discrete") != "discrete":
        problem = f"timestep_type {full['timestep_type']!r} was found; supported is 'discrete', a table of betas"
        raise RunError(f"{place}: {problem}.")
    T = full["num_train_timesteps"]
    schedule = _schedule(full, T, place)
    if full.get("rescale_betas_zero_snr"):
        schedule = ZeroTerminalSNR(schedule)
    clip = full.get("clip_sample_range", 1.0) if full.get("clip_sample") else None
    return Reading(DDPM(T, schedule), _PREDICTIONS[prediction], TableIndex(T), clip, full.get("variance_type"), T, 1)


def _schedule(full: Mapping[str, Any], T: int, place: str) -> Schedule:
    """The rule of the betas."""
    if (trained := full.get("trained_betas")) is not None:
        return BetaTable(tuple(float(beta) for beta in trained))
    first, last, name = full["beta_start"], full["beta_end"], full["beta_schedule"]
    if name == "linear":
        return Linear(first, last)
    if name == "scaled_linear":
        return ScaledLinear(first, last)
    if name == "squaredcos_cap_v2":
        return Cosine()
    if name == "sigmoid":  # Xu et al. 2022 (GeoDiff): beta goes from first to last along a sigmoid over [-6, 6]
        rise = torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()
        return BetaTable(tuple((first + (last - first) * rise).tolist()))
    supported = "linear, scaled_linear, squaredcos_cap_v2, sigmoid, or trained_betas"
    raise RunError(f"{place}: beta_schedule {name!r} was found; supported are {supported}.")
