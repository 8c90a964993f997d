"""Memory: how much there is, a refusal of what cannot fit, and one sentence where it runs out all the same."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unidiff.errors import ParameterError, RunFailed
from unidiff.text import first_line

__all__ = [
    "LOWER_BATCH",
    "PLENTY",
    "OutOfMemory",
    "as_bytes",
    "enough_memory",
    "keep_freed_memory",
    "memory_of",
    "require_memory",
]

# Numbers kept for each number of a sample, more than by any network of the recipes: below that, with half of the memory
# left, nothing is counted. PyTorch takes seconds to prepare for a count.
PLENTY = 20_000
_CGROUPS = Path("/sys/fs/cgroup")
_ALWAYS_THERE = 2**15  # bytes: a process that runs has them, and reading the limits takes a millisecond
# How allocators of PyTorch, of a CPU or of a GPU's libraries, say that there is no memory.
_WORDS = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"),
    *("alloc_failed", "bad_alloc", "bad allocation", "could not create a primitive"),  # the last is oneDNN's
)
# malloc.h: M_TRIM_THRESHOLD, free memory from which glibc returns it, and M_MMAP_THRESHOLD, the size from which a block
# is one of its own, returned as it is freed. Larger blocks have computations beside which their pages cost little.
_MALLOPT = {-1: 2**31 - 1, -3: 2**28}
LOWER_BATCH = "Lower the batch, the number of samples computed together: `batch`, or sampling.batch in a recipe."
_GENERAL = "Lower the batch (training.batch or a higher training.accumulate, sampling.batch, --batch), or the network."


class OutOfMemory(RunFailed):
    """The memory of the machine or of the GPU was not enough. What had been saved is as it was."""


@contextmanager
def enough_memory(remedy: str = _GENERAL) -> Iterator[None]:
    """Turn an error of an allocator into one sentence; also a decorator.

    Args:
        remedy: What to lower, as a sentence.

    Raises:
        OutOfMemory: If the block ran out of memory, of the machine or of a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_shortage(error):
            raise
        problem = f"out of memory ({first_line(error)[:300]}). {remedy}"
        traceback.clear_frames(error.__traceback__)  # whoever tries again with less gets the memory back
        raise OutOfMemory(problem) from None


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next allocations.

    Sampling on a CPU allocates and frees the activations of every layer. glibc returns blocks of their size to the
    system and takes them back, and clearing their pages anew is up to a quarter of the time. The most memory that the
    process has at once stays the same; it has it until it ends.

    Returns:
        Whether it does; other C libraries have no such setting, and nothing changes there.
    """
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # musl has a mallopt that does nothing
        return sum(libc.mallopt(option, size) for option, size in _MALLOPT.items()) == len(_MALLOPT)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of the process itself
        return False


def _is_shortage(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS)


def memory_of(device: str | object = "cpu") -> int:
    """Bytes that a process may take at most: of a GPU all it has, of a machine the least of all limits."""
    if (kind := str(device)).startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(kind).total_memory)
    limits = [sys.maxsize]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits += _limits_of_groups()
    try:
        import resource
    except ImportError:  # Windows
        return min(limits)
    limits += [soft for soft, _ in [resource.getrlimit(resource.RLIMIT_AS)] if soft != resource.RLIM_INFINITY]
    return min(limit for limit in limits if limit > 0)


@functools.cache
def _files_of_groups(root: Path) -> list[Path]:
    """Where the limits of the control groups that the process is in may stand."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:  # another system
        own = ""
    folders = (root / own, *(root / own).parents)
    return [root / "memory/memory.limit_in_bytes", *(folder / "memory.max" for folder in folders)]  # version 1; 2


def _limits_of_groups() -> Iterator[int]:
    """The limits of the control groups that the process is in: Linux's, of containers and of job schedulers."""
    for file in _files_of_groups(_CGROUPS):
        with suppress(OSError, ValueError):  # there is no such group, or its limit is "max"
            yield int(file.read_text())


def require_memory(parameter: str, needed: int, what: str, remedy: str, device: str | object = "cpu") -> None:
    """Raise a ParameterError if something surely does not fit into the memory.

    Args:
        parameter: The parameter to lower.
        needed: Bytes, an underestimate.
        what: What needs them, as a phrase: "the weights and a batch of 64".
        remedy: What to do, as a sentence.
        device: Where they are needed.
    """
    if needed > _ALWAYS_THERE and needed > (limit := memory_of(device)):
        place = "this machine" if str(device) == "cpu" else device
        raise ParameterError(
            parameter, f"{what} need at least {as_bytes(needed)}, and {place} has {as_bytes(limit)}. {remedy}"
        )


def as_bytes(number: int) -> str:
    """A number of bytes in words: 1.5 GB."""
    for unit, size in (("EB", 1e18), ("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1e24 else f"{number:.1e} bytes"
    return f"{number / 1e3:.3g} kB"
