"""Seeded streams: each sample has its own, and nothing else decides it."""

from __future__ import annotations

import math

import pytest
import torch

from unidiff import Seeded


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
    with pytest.raises(ValueError, match="3 samples asked of 2 streams"):
        Seeded([0, 1])(torch.empty(3, 2))
