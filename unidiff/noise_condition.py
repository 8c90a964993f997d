"""What a network is passed of the noise level: one number for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.basis import Basis
from unidiff.errors import ParameterError, require, require_whole
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale

__all__ = ["LogSigma", "NoiseCondition", "NoiseScale", "TableIndex", "Timestep", "apply_network"]


@dataclass(frozen=True)
class NoiseCondition(PlainArguments, ABC):
    """The number c that a network is passed as the noise level of its input."""

    def check(self, process: Process) -> None:
        """Raise a ParameterError for a process on which c is not one finite number at every time."""
        return

    @abstractmethod
    def at(self, level: Level) -> Scale:
        """The number at a level: a float, or a tensor with one for each sample."""

    def batch(self, level: Level, u: Tensor) -> Tensor:
        """The number of each sample of a state u, (B, *modes): (B,), in its format."""
        c = self.at(level)
        return c.to(u).flatten().expand(len(u)) if isinstance(c, Tensor) else u.new_full(u.shape[:1], c)

    def batches(self, levels: Sequence[Level], u: Tensor) -> Sequence[Tensor]:
        """The same at levels of numbers, in one copy to the device: rows of one tensor."""
        with torch.inference_mode(False):
            values = torch.tensor([self.at(level) for level in levels], dtype=u.dtype)
            return values.to(u.device, non_blocking=True)[:, None].repeat(1, u.shape[0]).unbind()


@dataclass(frozen=True)
class Timestep(NoiseCondition):
    """T t: the index, counted from 1, of a table with T entries (Ho et al. 2020), and T times the time of a flow.

    Args:
        T: The value at t = 1, above 0; 1000 whatever the process, unless a network was trained with another.
    """

    T: float = 1000.0

    def __post_init__(self) -> None:
        require(0 < self.T < float("inf"), "T", self.T, "a number > 0")

    def at(self, level: Level) -> Scale:
        """T t."""
        return self.T * level.time


@dataclass(frozen=True)
class TableIndex(NoiseCondition):
    """T t - 1: the index of a table's entry counted from 0, as in the networks of diffusers.

    Args:
        T: Number of entries.
    """

    T: int = 1000

    def __post_init__(self) -> None:
        require_whole("T", self.T)

    def at(self, level: Level) -> Scale:
        """T t - 1, from 0 to T - 1 on the table and between its entries."""
        return self.T * level.time - 1


@dataclass(frozen=True)
class _OneScale(NoiseCondition):
    """A function of the noise scale, which must be the same for all modes."""

    def check(self, process: Process) -> None:
        """See `NoiseCondition.check`."""
        if process.basis.shape:
            problem = f"{type(self).__name__} needs one noise scale for all modes, and those of {process!r} differ"
            raise ParameterError("noise_condition", f"{problem}. Use Timestep.")


@dataclass(frozen=True)
class NoiseScale(_OneScale):
    """The noise scale sigma itself, as in the variance-exploding networks of Song et al. 2021."""

    def at(self, level: Level) -> Scale:
        """Sigma."""
        return level.sigma


@dataclass(frozen=True)
class LogSigma(_OneScale):
    """log(sigma / alpha) / 4: c_noise of Karras et al. 2022, table 1, whose sigma is that of data left unscaled."""

    def check(self, process: Process) -> None:
        """See `NoiseCondition.check`; where alpha is 0 at t = 1, the logarithm is infinite."""
        super().check(process)
        if process.level(1.0).alpha == 0:
            problem = f"log(sigma / alpha) is infinite at t = 1, where {process!r} has alpha = 0. Use Timestep."
            raise ParameterError("noise_condition", problem)

    def at(self, level: Level) -> Scale:
        """Minus an eighth of log SNR."""
        return level.log_snr / -8


def apply_network(network: nn.Module, basis: Basis, u: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
    """The output of a network for a state in modes.

    Args:
        network: Called with pixels (B, *shape), c (B,) and the conditions.
        basis: The basis of the state.
        u: State, (B, *modes); the network sees its pixels in the dtype of its weights.
        c: Its noise condition, (B,); see `NoiseCondition.batch`.
        **cond: Conditions, each (B, ...).

    Returns:
        The output, in the dtype of u.
    """
    dtype, pixels = _dtype(network) or u.dtype, basis.inverse(u)
    if pixels.dtype != dtype:
        pixels = pixels.to(dtype)
    version = None if u.is_inference() else u._version
    output: Tensor = network(pixels, c, **cond)
    if not isinstance(output, Tensor):
        inner = " Wrap it in a module that returns the tensor inside, such as its .sample." if output else ""
        raise ParameterError("backbone", f"must return a tensor, got an object of {type(output).__name__}.{inner}")
    if version is not None and u._version != version:
        raise ParameterError("backbone", "the network writes into its input. Let it begin with x = x.clone().")
    return output if output.dtype == u.dtype else output.to(u.dtype)


def _dtype(network: nn.Module) -> torch.dtype | None:
    """The format of a network's first weight, without the generators of `nn.Module.parameters`; None without one."""
    for weight in network._parameters.values():
        if weight is not None:
            return weight.dtype
    for part in network._modules.values():
        if part is not None and (dtype := _dtype(part)) is not None:
            return dtype
    return None
