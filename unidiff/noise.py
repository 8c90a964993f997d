"""Random numbers as an argument: each sample has its own stream, so it does not depend on its batch."""

from __future__ import annotations

import operator
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.philox import Streams, blocks_for, normal
from unidiff.text import count_of

__all__ = ["Noise", "Seeded", "generator_of", "global_states_kept", "seed_everything", "seeds_of"]

# Given a tensor, standard normal noise of its shape, dtype and device.
Noise = Callable[[Tensor], Tensor]

_TOGETHER = 2**14  # numbers that are drawn at once, unless one draw has more

_WORDS = slice(24, 24 + 8 * 624)  # of the state of torch's CPU generator: the words of its Mersenne Twister, as int64


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator with a stream of its own for each seed from 0 to 2^64 - 1.

    torch seeds its Mersenne Twister with the low 32 bits alone. Seeds that have more fill the twister's state by
    `init_by_array` of Matsumoto & Nishimura (2002) with both halves as the key, which is invertible: the key can be
    read off the state, so no two seeds share one. Seeds below 2^32 are torch's own.
    """
    generator = torch.Generator().manual_seed(seed)
    if seed >= 2**32:
        words = np.random.RandomState([seed % 2**32, seed >> 32]).get_state(legacy=False)["state"]["key"]
        state = generator.get_state()
        state[_WORDS].view(torch.int64).copy_(torch.from_numpy(words.astype(np.int64)))
        generator.set_state(state)
    return generator


def seed_everything(seed: int) -> None:
    """Seed torch's global generator of the CPU, which draws the weights of networks, as `generator_of` does."""
    torch.set_rng_state(generator_of(seed).get_state())


@contextmanager
def global_states_kept(device: torch.device | str = "cpu") -> Iterator[None]:
    """Put the global random states of torch, NumPy and Python back as they were when the block ends.

    Of torch these are the CPU's and those of GPUs in use, the one of `device` among them.
    """
    kind = torch.device(device).type
    cuda = torch.cuda.get_rng_state_all() if kind == "cuda" or torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if kind == "mps" else None
    own, numpy, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(own)
        np.random.set_state(numpy)
        random.setstate(python)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


class Seeded(PlainArguments):
    """One stream of standard normal noise per sample, drawn on the device where it is used.

    Sample i of a batch has a stream that is a function of `seeds[i]` alone, by the counter-based generator of
    `unidiff.philox`: it is the same image in a batch of 1, in a batch of 64, or on another device. The numbers of a
    float32 state are those of a float64 state, rounded.

    Args:
        seeds: One integer from 0 to 2^64 - 1 per sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        require(all(0 <= seed < 2**64 for seed in seeds), "seeds", seeds, "integers from 0 to 2^64 - 1")
        self._streams = Streams(seeds)
        self._place = 0  # in the streams, in blocks
        self._blocks = 0  # of one draw
        self._kind: tuple[object, ...] = ()  # shape, dtype and device of the draws to come
        self._ahead: list[Tensor] = []  # the draws to come, the next one last
        self._together = 1  # small draws are made several at once: what a call costs hardly depends on its size

    def __call__(self, like: Tensor) -> Tensor:
        """The next draw: (B, *shape) as `like`, with B the number of seeds."""
        if len(like) != len(self._streams):
            raise ValueError(f"samples must be one for each of {len(self._streams)} seeds, got {len(like)}")
        kind = like.shape, like.dtype, like.device
        if not self._ahead or self._kind != kind:
            self._draw(like)
            self._kind = kind
        self._place += self._blocks
        return self._ahead.pop()

    def _draw(self, like: Tensor) -> None:
        size = like[0].numel()
        blocks = self._blocks = blocks_for(size)
        count = min(self._together, max(1, _TOGETHER // max(1, like.numel())))
        self._together = 2 * count
        words = self._streams.words(self._place, count * blocks, like.device).view(len(like), count, -1)
        drawn = normal(words.transpose(0, 1).contiguous())[..., :size].to(like.dtype)
        self._ahead = [*drawn.reshape(count, *like.shape)][::-1]


def seeds_of(seeds: int | Sequence[int] | None, count: int | None = None) -> Sequence[int]:
    """One seed per sample.

    Args:
        seeds: The seeds; a number n stands for 0, ..., n - 1; None for as many as `count`.
        count: Number of samples, where it is known beforehand.

    Raises:
        ParameterError: If these are not integers from 0 to 2^64 - 1, or not one for each sample, or none.
    """
    try:
        chosen: Sequence[int] = range(operator.index(count if seeds is None else seeds))  # type: ignore[arg-type]
    except (TypeError, RuntimeError):  # not one integer; NumPy and torch each have their own error for an array
        try:
            chosen = seeds if isinstance(seeds, range) else [*map(operator.index, seeds)]  # type: ignore[arg-type]
        except (TypeError, RuntimeError):
            problem = f"must be a number of samples or one integer for each, got {seeds!r}"
            raise ParameterError("seeds", problem) from None
    try:
        given = len(chosen)
    except OverflowError:  # of a range
        raise ParameterError("seeds", f"must be at most {sys.maxsize}, got {seeds!r}") from None
    if given == 0 and count is None and isinstance(chosen, range):  # of a number, and range(-1) is empty
        raise ParameterError("seeds", f"must be a number of samples >= 1 or one integer for each, got {seeds!r}")
    if given == 0 or count not in (None, given):
        needed = "at least one" if count is None else f"one for each of {count_of(count, 'sample')}"
        raise ParameterError("seeds", f"must be {needed}, got {given}")
    ends = (chosen[0], chosen[-1]) if isinstance(chosen, range) else chosen
    require(all(0 <= seed < 2**64 for seed in ends), "seeds", seeds, "integers from 0 to 2^64 - 1")
    return chosen
