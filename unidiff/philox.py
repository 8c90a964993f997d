"""Random numbers that are a function of a key and a counter, the same on every device.

The generator is Philox4x64-10 of Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", section 3.3,
which NumPy has in C. On a CPU NumPy draws long streams; many short ones, and all on another device, are computed with
PyTorch's integer arithmetic. Both give the same integers.

A normal number is made from two uniform ones (Box & Muller 1958) in float64: there devices differ by one unit in the
last place at most, in float32 in about one number of 10^8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from unidiff.precision import precise

__all__ = ["Streams", "blocks_for", "normal", "philox", "uniform"]

_PER_BLOCK = 8  # 32-bit words that the generator makes of one counter
_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # added to the key after each round
_LOW = 2**32 - 1
# Rows of at least so many words, or at most so many rows, are NumPy's on a CPU: it has a cost per row, but little per
# word.
_LONG, _FEW = 64, 32


def signed(value: int) -> int:
    """An unsigned 64-bit integer as the signed one with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high 32 bits of 64-bit integers."""
    return x & _LOW, (x >> 32) & _LOW


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    multipliers, weyl = (torch.tensor([signed(word) for word in words]) for words in (_MULTIPLIERS, _WEYL))
    return multipliers.to(device), weyl.to(device)


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x64-10: four 64-bit words for each counter.

    Args:
        counter: (4, ...) int64, the bits of unsigned integers.
        key: (2, ...) int64, which broadcasts against a word of the counter.

    Returns:
        (4, ...) int64.
    """
    shape = torch.broadcast_shapes(counter.shape[1:], key.shape[1:])
    factors, weyl = (words.view(2, *[1] * len(shape)) for words in _constants(counter.device))
    low_factor, high_factor = _halves(factors)
    even, odd = counter[0::2].expand(2, *shape), counter[1::2].expand(2, *shape)  # words 0 and 2, words 1 and 3
    for _ in range(_ROUNDS):
        low, high = _halves(even)
        # The high word of a 64 x 64 bit product, of 32 x 32 bit ones that cannot overflow 64 bits with their carries.
        middle = high * low_factor + ((low * low_factor) >> 32 & _LOW)
        other = low * high_factor + (middle & _LOW)
        upper = high * high_factor + (middle >> 32 & _LOW) + (other >> 32 & _LOW)
        even, odd = upper.flip(0) ^ odd ^ key, (even * factors).flip(0)
        key = key + weyl
    return torch.stack((even[0], odd[0], even[1], odd[1]))


class Streams:
    """Streams of 32-bit words, one for each key; a word is a function of its key and its place in the stream.

    Args:
        keys: Integers from 0 to 2^64 - 1, one for each stream.
        purpose: The second word of every key, from 0 to 2^64 - 1: other purposes have other streams.
        part: The second word of the counter, from 0 to 2^64 - 1, such as a step: other parts have other streams.
    """

    def __init__(self, keys: Sequence[int], purpose: int = 0, part: int = 0) -> None:
        self._keys, self._purpose, self._part = keys, purpose, part
        self._numpy: list[np.random.Philox] = []
        self._next = 0  # the place of NumPy's generators
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def words(self, first: int, blocks: int, device: torch.device) -> Tensor:
        """The words of blocks `first` to `first + blocks - 1`: (number of keys, 8 blocks) int32."""
        if device.type == "cpu" and (_PER_BLOCK * blocks >= _LONG or len(self) <= _FEW):
            words = np.stack([own.random_raw(4 * blocks) for own in self._generators(first, blocks)])
            return torch.from_numpy(words).view(torch.int32)
        if device not in self._on_device:
            seeds = np.array(self._keys, dtype=np.uint64).view(np.int64)
            key = torch.from_numpy(np.stack((seeds, np.full_like(seeds, signed(self._purpose)))))
            upper = torch.tensor([[signed(self._part)], [0], [0]])
            self._on_device[device] = (
                key.to(device, non_blocking=True)[:, :, None],
                upper.to(device, non_blocking=True),
            )
        key, upper = self._on_device[device]
        place = torch.arange(first + 1, first + blocks + 1, device=device)  # NumPy counts before it draws
        counter = torch.cat((place[None], upper.expand(3, blocks)))[:, None]
        return philox(counter, key).permute(1, 2, 0).contiguous().view(torch.int32).flatten(1)

    def _generators(self, first: int, blocks: int) -> list[np.random.Philox]:
        """NumPy's generators, at the place where a draw begins."""
        if not self._numpy:
            counter = np.array([0, self._part, 0, 0], dtype=np.uint64)
            keys = (np.array([key, self._purpose], dtype=np.uint64) for key in self._keys)
            self._numpy = [np.random.Philox(key=key, counter=counter) for key in keys]
        if moved := first - self._next:
            for own in self._numpy:
                own.advance(moved)
        self._next = first + blocks
        return self._numpy


def blocks_for(numbers: int) -> int:
    """Blocks of words that so many numbers need."""
    return -(-numbers // _PER_BLOCK)


def uniform(words: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64 where the device has it, of 32-bit words: centres of 2^32 equal intervals."""
    made = words.to(precise(words.device)).mul_(2.0**-32).add_(0.5 + 2.0**-33)
    return made if made.dtype == torch.float64 else made.clamp_(2.0**-33)


def normal(words: Tensor) -> Tensor:
    """Standard normal numbers, float64, of as many 32-bit words, an even number of them along the last axis."""
    first, second = uniform(words).chunk(2, -1)
    radius, angle = first.log().mul_(-2).sqrt_(), second * (2 * math.pi)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), -1)
