"""The processes that share a training: what the environment says of them, and the wait for all of them."""

from __future__ import annotations

import os
import re
import reprlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.text import first_line
from unidiff.training.device import resolve_device
from unidiff.training.settings import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TIMEOUT", "accelerator_for", "accelerator_of", "any_process", "together"]

TIMEOUT = "UNIDIFF_LAUNCH_TIMEOUT"
_DEFAULT_TIMEOUT, _PATIENCE = 60.0, 5.0  # seconds
_RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TORCH = (*_RENDEZVOUS, "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # set by torchrun and accelerate launch
_INTEGERS = ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Of the variables ACCELERATE_..., all but these change how a network is trained.
_KEPT = ("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE")
_OF_PARTNERS = re.compile("gloo|NCCL|Connection (?:reset|closed)|TCPStore", re.IGNORECASE)
_DEFAULTS = ("", "0", "1", "no", "false", "default")


def accelerator_for(settings: Training, device: str = "auto", report: Callable[[str], None] = print) -> Accelerator:
    """An accelerator for a device of this machine; under `accelerate launch`, one of several that share each batch.

    The number format, compilation and accumulation are those of `settings`: variables of accelerate in the environment
    are ignored. The other processes are waited for 60 s, or as many as the variable UNIDIFF_LAUNCH_TIMEOUT says.

    Args:
        settings: The numbers of the run.
        device: auto, cpu, cuda, cuda:1 or mps.
        report: Receives a sentence for variables that are ignored, and when the other processes are waited for.

    Raises:
        ParameterError: If the device is unavailable, or the processes cannot share the batch.
        RunError: If the environment describes processes that do not exist, or only in part.
    """
    accelerator = _accelerator(resolve_device(device), report)
    share = accelerator.num_processes * settings.accumulate
    if settings.batch % share:
        parts = f"{accelerator.num_processes} processes and {settings.accumulate} accumulated parts"
        problem = f"{settings.batch} cannot be split evenly over {parts}; use a multiple of {share}."
        raise ParameterError("training.batch", problem)
    return accelerator


def accelerator_of(device: str, report: Callable[[str], None]) -> Accelerator | None:
    """As `accelerator_for`, for work that is no training; None for a process alone, which needs none."""
    chosen = resolve_device(device)
    alone = not torch.distributed.is_initialized() and os.environ.get("WORLD_SIZE", "1") in ("", "0", "1")
    return None if alone else _accelerator(chosen, report)


def _accelerator(chosen: torch.device, report: Callable[[str], None]) -> Accelerator:
    """An accelerator for a device, when all processes that the environment describes are there."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # accelerate says "cuda", which then means this one
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps one device per Python process

    def make() -> Accelerator:
        return Accelerator(mixed_precision="no", cpu=chosen.type == "cpu")

    ignored = [name for name in os.environ if name.startswith("ACCELERATE_") and name not in _KEPT]
    if telling := [name for name in ignored if os.environ[name].lower() not in _DEFAULTS]:
        report(f"The environment sets {_values(telling)}: ignored, as the recipe and the device that is named decide.")
    alone = torch.distributed.is_initialized() or _processes(chosen) == 1
    if not torch.distributed.is_initialized():
        ignored += [*_MPI_SIZES, *_TORCH] if alone else _MPI_SIZES
    with _without(ignored):
        return make() if alone else _wait_for_all(make, report)


def _processes(device: torch.device) -> int:
    """How many processes the environment says there are.

    Raises:
        RunError: If it contradicts itself, or does not say how to find them.
    """
    for name in (*_INTEGERS, *_MPI_SIZES):
        if not ((text := os.environ.get(name, "0")).isdecimal() and len(text) < 10):
            problem = f"must be an integer from 0 to 999999999 in the environment, got {reprlib.repr(text)}"
            raise RunError(f"{name} {problem}. {_unset()}")
    count = int(os.environ.get("WORLD_SIZE", 1)) or 1
    mpi = [name for name in _MPI_SIZES if int(os.environ.get(name, 1)) > 1]
    if mpi and "WORLD_SIZE" not in os.environ:
        size = os.environ[mpi[0]]
        launch = f"`torchrun --nproc-per-node {size} -m unidiff ...` starts {size} processes that share each batch"
        raise RunError(f"the environment sets {_values(mpi)}, but MPI cannot start this training. {launch}. {_unset()}")
    if count == 1:
        if ranks := [name for name in ("RANK", "LOCAL_RANK") if int(os.environ.get(name, 0)) > 0]:
            raise RunError(f"the environment sets {_values(ranks)}, but no WORLD_SIZE above that. {_unset()}")
        return 1
    needed = _RENDEZVOUS if device.type == "cpu" else (*_RENDEZVOUS, "LOCAL_RANK")
    if missing := [name for name in needed if not os.environ.get(name)]:
        problem = f"the environment sets WORLD_SIZE={count}, but not {', '.join(missing)}"
        raise RunError(f"{problem}. Start all processes with torchrun, which sets each of them. {_unset()}")
    if int(os.environ["RANK"]) >= count:
        raise RunError(f"RANK must be below WORLD_SIZE, got {_values(['RANK', 'WORLD_SIZE'])}. {_unset()}")
    return count


def _wait_for_all(make: Callable[[], Accelerator], report: Callable[[str], None]) -> Accelerator:
    """Make the accelerator of one of several processes, for which all of them must be there.

    The wait is in C++, where no signal would be heard: another thread does it.
    """
    made: list[Accelerator | Exception] = []
    threads: list[int] = []

    def work() -> None:
        before = torch.get_num_threads()
        try:
            # An address that is none: PyTorch would look it up until the end of the time, with a warning each second.
            socket.getaddrinfo(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
            made.append(make())
            threads.extend({torch.get_num_threads()} - {before})  # of this thread; the main one has its own
        except Exception as error:
            made.append(error)

    limit = _timeout()
    worker = threading.Thread(target=work, name="unidiff-rendezvous", daemon=True)
    worker.start()
    worker.join(min(_PATIENCE, limit))
    processes = f"the other processes of WORLD_SIZE={os.environ['WORLD_SIZE']}"
    if worker.is_alive():
        report(f"Waiting for {processes} at {_values(['MASTER_ADDR', 'MASTER_PORT'])}, {limit:g} s at most.")
        worker.join(max(0.0, limit - _PATIENCE))
    if not made:
        longer = f"To wait longer for slow machines, set {TIMEOUT} in seconds."
        raise RunError(f"{processes} did not come within {limit:g} s. {_launch()} {longer}")
    (accelerator,) = made
    if isinstance(accelerator, Exception):
        problem = f"{processes} could not be joined ({type(accelerator).__name__}: {accelerator})"
        raise RunError(f"{problem}. {_launch()}") from accelerator
    if threads:
        torch.set_num_threads(threads[0])
    if accelerator.device.type == "cuda":
        torch.cuda.set_device(accelerator.device)  # the current device is a property of the thread
    return accelerator


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, str(_DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise RunError(f"{TIMEOUT} must be a number of seconds in (0, 86400], got {text!r}")
    return seconds


def _launch() -> str:
    present = [name for name in _TORCH if name in os.environ]
    start = f"Start all of them (`torchrun --nproc-per-node {os.environ['WORLD_SIZE']} -m unidiff ...`)"
    return f"The environment sets {_values(present)}. {start}. {_unset()}"


def _unset() -> str:
    present = [name for name in (*_TORCH, *_MPI_SIZES) if name in os.environ]
    return f"To use one process: `unset {' '.join(present)}`."


def _values(names: Sequence[str]) -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in names)


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """The environment without some variables, which come back when the block ends."""
    values = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(values)


@contextmanager
def together() -> Iterator[None]:
    """Turn the error of a process whose partner has ended into one sentence; also a decorator.

    Raises:
        RunFailed: If the block failed because another process that trains with this one is gone.
    """
    try:
        yield
    except RuntimeError as error:  # which those of torch.distributed are
        if not torch.distributed.is_initialized() or not _OF_PARTNERS.search(str(error)):
            raise
        problem = (
            f"another process that trains with this one has ended or cannot be reached ({first_line(error)[:200]})"
        )
        remedy = "What it said tells why; start all of them again with --resume."
        raise RunFailed(f"{problem}. {remedy}") from error


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether any process raised its flag: all must stop after the same step."""
    if accelerator.num_processes == 1:
        return flag
    flags = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return bool(flags.item() > 0)
