"""Seeded streams: each sample has its own, and nothing else decides it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unidiff import Seeded
from unidiff.data import TwoMoons
from unidiff.errors import ParameterError
from unidiff.noise import generator_of, seed_everything
from unidiff.training.batches import BatchPlan, stream_seed


def draws(seeds, shape=(3, 4), count=3, dtype=torch.float32) -> torch.Tensor:
    noise = Seeded(seeds)
    return torch.stack([noise(torch.empty(len(seeds), *shape, dtype=dtype)) for _ in range(count)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (17,), ()], ids=str)
def test_a_stream_is_its_seed(dtype, shape):
    together = draws(range(10), shape, dtype=dtype)
    assert together.dtype == dtype
    assert together.shape == (10, 3, *shape)
    assert torch.equal(draws([7], shape, dtype=dtype)[0], together[7])
    assert torch.equal(draws([9, 0, 7], shape, dtype=dtype), together[[9, 0, 7]])
    assert torch.equal(draws([4, 4], shape, dtype=dtype)[0], draws([4, 4], shape, dtype=dtype)[1])


def test_low_precision_is_float32_rounded():
    assert torch.equal(draws(range(4), dtype=torch.bfloat16), draws(range(4)).bfloat16())


def test_draws_of_one_stream_differ_and_the_global_generator_is_untouched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    values = draws(range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert values.flatten().unique().numel() == values.numel()


def test_values_do_not_come_from_the_tensor_given():
    like = torch.full((2, 3), math.nan)
    noise = Seeded([0, 1])(like)
    assert noise.isfinite().all()
    assert like.isnan().all()


def test_noise_is_standard_normal_and_streams_are_uncorrelated():
    # n numbers: mean 0 +- 1 / sqrt(n), variance 1 +- sqrt(2 / n), correlation of two streams 0 +- 1 / sqrt(n). Five of
    # each.
    n = 10_000
    values = Seeded(range(4))(torch.empty(4, n, dtype=torch.float64))
    assert (values.mean(1).abs() < 5 / math.sqrt(n)).all()
    assert ((values.var(1) - 1).abs() < 5 * math.sqrt(2 / n)).all()
    products = values @ values.T / n
    assert ((products - torch.diag(products.diagonal())).abs() < 5 / math.sqrt(n)).all()


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="samples must be one for each of 2 seeds, got 3"):
        Seeded([0, 1])(torch.empty(3, 2))


# --- seeds of more than 32 bits

SEEDS = [2**32, 2**32 + 5, 2**33 + 5, 5 * 2**32, 2**62, 2**63 - 1, 2**64 - 1, 0x0123456789ABCDEF]
MASK = 2**32 - 1


def twister(generator) -> list[int]:
    """The 624 words of a generator's Mersenne Twister."""
    return generator.get_state()[24 : 24 + 8 * 624].view(torch.int64).tolist()


def key_of(words: list[int]) -> int:
    """The seed that a state was filled with: `init_by_array` of Matsumoto & Nishimura (2002), run backwards."""

    def mixed(word: int, factor: int) -> int:
        return (word ^ word >> 30) * factor & MASK

    start = [19650218]
    for i in range(1, 624):
        start.append(mixed(start[-1], 1812433253) + i & MASK)
    words = words.copy()
    for i in (1, *range(623, 1, -1)):  # the second pass, which ends at word 1 with word 623 before it
        words[i] = words[i] + i & MASK ^ mixed(words[623 if i == 1 else i - 1], 1566083941)
    # The first pass adds the halves in turn: word 3 the low one, word 4 the high one, and its index in the key, 1.
    low = words[3] - (start[3] ^ mixed(words[2], 1664525)) & MASK
    high = words[4] - (start[4] ^ mixed(words[3], 1664525)) - 1 & MASK
    return high << 32 | low


def test_every_seed_can_be_read_off_its_state_so_no_two_share_a_stream():
    assert [key_of(twister(generator_of(seed))) for seed in SEEDS] == SEEDS


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1])
def test_seeds_of_32_bits_are_those_of_torch(seed):
    assert torch.equal(generator_of(seed).get_state(), torch.Generator().manual_seed(seed).get_state())


@pytest.mark.parametrize("draw", [torch.rand, torch.randn, torch.randperm])
def test_a_long_seed_is_a_stream_like_any_other(draw):
    # numpy's twister with the same key gives the same uniform numbers: 24 bits of each word, as torch takes them.
    words = np.random.RandomState([5, 1]).randint(0, 2**32, 100, dtype=np.uint32)
    expected = torch.from_numpy((words & 0xFFFFFF).astype(np.float64) / 2**24).float()
    assert torch.equal(torch.rand(100, generator=generator_of(2**32 + 5)), expected)
    first, again, other = (draw(1000, generator=generator_of(seed)) for seed in (2**32 + 5, 2**32 + 5, 5))
    assert torch.equal(first, again)
    assert (first == other).double().mean() < 0.02


def test_long_seeds_are_uncorrelated_with_the_short_ones():
    n = 10_000
    values = Seeded([5, *SEEDS])(torch.empty(1 + len(SEEDS), n, dtype=torch.float64))
    products = values @ values.T / n
    assert ((products - torch.diag(products.diagonal())).abs() < 5 / math.sqrt(n)).all()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_an_error(seed):
    with pytest.raises(ParameterError, match=r"integers from 0 to 2\^64 - 1"):
        Seeded([0, seed])


@pytest.mark.parametrize("seed", [5, *SEEDS])
def test_the_global_generator_is_seeded_whole(seed):
    before = torch.get_rng_state()
    try:
        seed_everything(seed)
        assert torch.equal(torch.rand(9), torch.rand(9, generator=generator_of(seed)))
    finally:
        torch.set_rng_state(before)


def test_training_seeds_are_streams_of_their_own():
    # [5, 1, 1, 0] are the words of (5, 1, 1) and, were they joined in order, of (2^32 + 5, 1, 0).
    seeds = {stream_seed(seed, *key) for seed in (5, *SEEDS) for key in ((0, 0), (1, 0), (1, 1), (2, 1, 0), (2, 1, 1))}
    assert len(seeds) == 5 * (1 + len(SEEDS))
    assert stream_seed(5, 1, 7) == int(
        np.random.SeedSequence((5, 1, 7)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
    first, second = (BatchPlan(seed, 8, 100) for seed in (5, 2**32 + 5))
    assert not torch.equal(first.indices(0), second.indices(0))
    assert not torch.equal(first.noise(0, (2,)), second.noise(0, (2,)))


def test_points_of_long_seeds_are_not_those_of_the_other_split():
    # [5, 1] are the words of (5, test) and, with zeros after them, of (2^32 + 5, train) if the seed comes whole.
    opened = [TwoMoons(count=9, seed=seed).open(split) for seed in (5, 2**32 + 5) for split in ("train", "test")]
    assert len({source.checksum for source in opened}) == 4
    random = np.random.default_rng([5, 1])
    assert torch.equal(opened[1].values, torch.from_numpy(TwoMoons(count=9)._draw(random)[0]).float())
