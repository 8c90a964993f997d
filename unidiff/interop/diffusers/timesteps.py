"""The times at which a scheduler would take its steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unidiff.errors import RunError, require, require_whole
from unidiff.grid import Grid
from unidiff.interop.diffusers.scheduler import made, modernized, read_scheduler
from unidiff.process.base import Process
from unidiff.text import count_of

__all__ = ["Timesteps", "timesteps_of"]


@dataclass(frozen=True)
class Timesteps(Grid):
    """A fixed list of times, such as a scheduler's. It need not begin at 1: many schedulers start from a later time.

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


def timesteps_of(config: Mapping[str, Any], steps: int, place: str, **options: Any) -> Timesteps:
    """The times at which a scheduler would take `steps` steps, as the scheduler itself says with these options.

    Raises:
        RunError: If the scheduler is unsupported or has no times for that many steps.
        ParameterError: If steps is not an integer >= 1.
    """
    model = read_scheduler(config, place)
    require_whole("steps", steps)
    name = config["_class_name"]
    # PNDM's Runge-Kutta start evaluates between its times; without it, the times are the same.
    scheduler = made({**modernized(config), "skip_prk_steps": True}, place)
    try:
        scheduler.set_timesteps(steps, **options)
        if name.startswith("EDM"):  # whose timesteps are noise conditions
            sigmas = torch.as_tensor(scheduler.sigmas, dtype=torch.float64)[:steps]
            return Timesteps(tuple(model.process.time_at(-2 * sigmas.log()).clamp(max=1.0).tolist()))
        timesteps = torch.as_tensor(scheduler.timesteps, dtype=torch.float64)
        stride = model.T // steps
        following = torch.cat([timesteps[1:], timesteps.new_tensor([-1.0])])
        if name.startswith("DDIM") and not torch.equal((timesteps - stride).clamp(min=-1), following):
            problem = f"{name} steps by {model.T} // {steps} = {stride}, past its own times"
            remedy = "The grid has the times themselves, so diffusers' samples differ; with leading times they do not."
            warnings.warn(f"{place}: {problem}. {remedy}", stacklevel=3)
        times = ((_step_starts(name, timesteps) + model.first) / model.T).tolist()
        require(len(times) == steps, "steps", steps, f"as many as its times, {len(times)}")
        return Timesteps(tuple(times))
    except (ValueError, IndexError, ZeroDivisionError) as error:  # a ParameterError is a ValueError
        raise RunError(f"{place}: {name} has no times for {count_of(steps, 'step')} ({error}).") from error


def _step_starts(name: str, timesteps: Tensor) -> Tensor:
    """The times at which steps begin, out of a list that names each evaluation of the network."""
    if name == "PNDMScheduler":  # evaluates the second time twice: t0, t1, t1, t2, ...
        return torch.cat([timesteps[:1], timesteps[2:]])
    if name.startswith(("HeunDiscrete", "KDPM2", "FlowMatchHeun")):  # t0, stage, t1, stage, t2, ...
        return timesteps[::2]
    return timesteps
