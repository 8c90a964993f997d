"""How the networks of a model are executed when samples are drawn: compiled, recorded as CUDA graphs, or in part."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.memory import keep_freed_memory
from unidiff.process.base import Process
from unidiff.text import first_line

__all__ = ["Acceleration", "Compiled", "CudaGraphs", "compiled", "lay_channels_last", "plainly"]

_WARM_UPS = 3  # evaluations in which libraries choose their algorithms and take their memory, before one is recorded
_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plainly() -> Iterator[None]:
    """Networks are executed layer by layer inside the block, as if they were not accelerated."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@dataclass(frozen=True)
class Acceleration(PlainArguments, ABC):
    """A way to execute networks. All but FeatureCache change their numbers by rounding at most.

    On a CPU the process also keeps the memory that it frees (`unidiff.memory.keep_freed_memory`).

    Args:
        channels_last: Keep the weights of convolutions with the channels as the last axis in memory, which tensor cores
            of GPUs and the convolutions of CPUs want. The model's own weights stay as they are; these are copies.
    """

    channels_last: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        require(isinstance(self.channels_last, bool), "channels_last", self.channels_last, "true or false")

    @plain_arguments
    def apply(self, denoiser: Denoiser) -> Denoiser:
        """The same model with each of its networks executed in this way, those that guide it included.

        Args:
            denoiser: The model, which is not changed. The result follows later changes of its weights, unless they
                were copied.

        Raises:
            ParameterError: If the model has no network, or is on a device where this is impossible.
        """
        wrapped: list[nn.Module] = []
        self.check_process(denoiser.process)

        def wrap(network: nn.Module) -> nn.Module:
            if getattr(network, "takes_level", False):
                problem = "the model keeps features already; give FeatureCache the model that is not accelerated yet"
                raise ParameterError("denoiser", f"{problem}.")
            self.check_network(network)
            for device in {weight.device for weight in network.parameters()}:
                self.check_device(device)
                if device.type == "cpu":
                    keep_freed_memory()
            if self.channels_last:
                network = lay_channels_last(copy.deepcopy(network))
            wrapped.append(self.execute(network))
            return wrapped[-1]

        model = denoiser.with_networks(wrap)
        if not wrapped:
            problem = f"{type(denoiser).__name__} has no network that {type(self).__name__} could make faster."
            raise ParameterError("acceleration", f"{problem} Leave it out.")
        return model

    def check_device(self, device: torch.device) -> None:
        """Raise a ParameterError for a device on which networks cannot be executed in this way."""

    def check_network(self, network: nn.Module) -> None:
        """Raise a ParameterError for a network that cannot be executed in this way."""

    def check_process(self, process: Process) -> None:
        """Raise a ParameterError for a process of whose models this makes none faster."""

    @abstractmethod
    def execute(self, network: nn.Module) -> nn.Module:
        """A network with the same outputs, which takes the same arguments."""


@dataclass(frozen=True)
class Compiled(Acceleration):
    """By `torch.compile`, which writes and compiles a program for the network when it is first evaluated.

    That takes from seconds to minutes, once for each size of a batch; torch keeps the program on the disk, so that the
    next process takes seconds. On a CPU it needs a C++ compiler, and is fastest with `channels_last`.
    """

    def execute(self, network: nn.Module) -> nn.Module:
        """See `Acceleration.execute`."""
        return compiled(network, "acceleration")


@dataclass(frozen=True)
class CudaGraphs(Acceleration):
    """By CUDA graphs: the kernels of one evaluation are recorded for each size of a batch, and started together.

    It saves what the host needs to start each kernel, which is most of the time of a small network or batch. Each size
    of a batch keeps its own memory. The network must not wait for the host, and has no gradients.
    """

    def check_device(self, device: torch.device) -> None:
        """See `Acceleration.check_device`."""
        if device.type != "cuda":
            problem = f"CudaGraphs needs a model on a CUDA device, got one on {device}. Move it there, or use Compiled"
            raise ParameterError("acceleration", f"{problem} or none (null in a recipe).")

    def execute(self, network: nn.Module) -> nn.Module:
        """See `Acceleration.execute`."""
        return _Recorded(network)


def compiled(network: nn.Module, parameter: str) -> nn.Module:
    """A network that is compiled when it is first evaluated.

    Args:
        network: The network, whose weights are shared.
        parameter: What asked for it, for the ParameterError that is raised where it cannot be compiled.
    """
    return _CompiledNetwork(network, parameter)


class _CompiledNetwork(nn.Module):
    def __init__(self, network: nn.Module, parameter: str) -> None:
        super().__init__()
        self.network, self._parameter = network, parameter
        self._run: list[Callable[..., Tensor]] = [torch.compile(network)]  # in a list: it is no second child

    def forward(self, *args: Tensor, **cond: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException

        run = self.network if _plain.get() else self._run[0]
        try:
            out: Tensor = run(*args, **cond)
        except TorchDynamoException as error:  # of the compilers behind it, too
            kind, place = type(self.network).__name__, next(self.parameters()).device.type
            problem = f"torch.compile failed for {kind} on {place} ({' '.join(str(error).split())[:300]}). Leave it out"
            raise ParameterError(self._parameter, f"{problem}, or install what is missing.") from error
        return out


class _Recorded(nn.Module):
    """A network whose evaluation is recorded once for each form of its arguments, and then replayed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._records: dict[object, tuple[list[Tensor], Tensor, Callable[[], None]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_records": {}}  # a copy's weights are others, and no graph can be pickled

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        if _plain.get():
            return self.network(x, c, **cond)
        given = [x, c, *cond.values()]
        if torch.is_grad_enabled() and any(value.requires_grad for value in (*given, *self.parameters())):
            raise ParameterError("acceleration", "a CUDA graph has no gradients. Use Compiled, or none.")
        kind = x.device.type
        precision = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        form = (*cond, *((value.shape, value.dtype, value.device) for value in given), *precision)
        if form not in self._records:
            inputs = [value.clone() for value in given]
            named = dict(zip(cond, inputs[2:]))

            def evaluate() -> Tensor:
                # Weights that autocast has cast and keeps would be freed behind the graph's back.
                with torch.autocast(kind, *precision, cache_enabled=False):
                    return self.network(*inputs[:2], **named)

            self._records[form] = (inputs, *_record(evaluate, x.device))
        inputs, output, replay = self._records[form]
        for own, value in zip(inputs, given):
            own.copy_(value, non_blocking=True)
        replay()
        return output.clone()  # the next replay writes over it


def _record(evaluate: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], None]]:
    """Record an evaluation as a CUDA graph: the tensor that it writes to, and what evaluates it again."""
    try:
        with torch.cuda.device(device), torch.no_grad():
            aside, current = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    evaluate()
            current.wait_stream(aside)
            graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = evaluate()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        problem = f"the network cannot be recorded as a CUDA graph ({first_line(error)[:300]}). Use Compiled, or none."
        raise ParameterError("acceleration", problem) from error
    return output, graph.replay


def lay_channels_last(network: nn.Module) -> nn.Module:
    """The network itself, the weights of its convolutions of two and three axes with the channels last in memory."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in network.parameters():
        if weight.ndim in orders:
            weight.data = weight.data.contiguous(memory_format=orders[weight.ndim])
    return network
