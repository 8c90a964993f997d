"""The counter-based generator: published answers, NumPy's integers, and the law of the normal numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pretend_gpu import pretend_gpu
from scipy import stats

from unidiff import Seeded, philox
from unidiff.philox import Streams, normal, uniform
from unidiff.training.batches import BatchPlan

CPU = torch.device("cpu")
HIGHEST = 2**64 - 1


def signed(*words: int) -> torch.Tensor:
    return torch.tensor([philox.signed(word) for word in words])


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # kat_vectors of Random123, by the authors of the paper
        (
            (0,) * 4,
            (0,) * 2,
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (HIGHEST,) * 4,
            (HIGHEST,) * 2,
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
        ),
    ],
)
def test_published_answers(counter, key, answer):
    assert torch.equal(philox.philox(signed(*counter), signed(*key)), signed(*answer))


@pytest.mark.parametrize(("purpose", "part"), [(0, 0), (3, 7), (HIGHEST, 2**63)])
def test_words_are_numpys_on_every_path_and_device(monkeypatch, purpose, part):
    keys = [0, 1, 2**32, 2**63 + 5, HIGHEST]
    words = Streams(keys, purpose, part).words(5, 9, CPU)  # by NumPy
    counter = np.array([5, part, 0, 0], dtype=np.uint64)
    generators = [np.random.Philox(key=np.array([key, purpose], dtype=np.uint64), counter=counter) for key in keys]
    raw = [generator.random_raw(36) for generator in generators]
    assert np.array_equal(words.numpy(), np.stack(raw).view(np.int32))
    with pretend_gpu() as gpu:
        assert torch.equal(Streams(keys, purpose, part).words(5, 9, gpu.device).cpu(), words)
    monkeypatch.setattr(philox, "_LONG", 10**9)
    monkeypatch.setattr(philox, "_FEW", 0)
    stream = Streams(keys, purpose, part)
    assert torch.equal(stream.words(5, 9, CPU), words)
    assert torch.equal(stream.words(8, 1, CPU), words[:, 24:32])  # a word depends on its place alone


@pytest.mark.parametrize("size", [1, 3, 8, 50, 3000])  # small draws are made several at once, large ones alone
def test_draws_do_not_depend_on_how_they_are_made(size):
    draw, one = Seeded(range(40)), torch.empty(40, size, dtype=torch.float64)
    drawn = torch.stack([draw(one) for _ in range(7)], 1)
    blocks = -(-size // 8)
    for place in range(7):
        words = Streams(range(40)).words(place * blocks, blocks, CPU)
        assert torch.equal(drawn[:, place], normal(words)[:, :size])
    again = Seeded([39, 5])  # and neither on the other samples, the precision, nor the shape of draws before
    kinds = [one[:2], one[:2].float(), one[:2].view(2, 1, size), one[:2].double()]
    for place, like in enumerate(kinds):
        assert torch.equal(again(like), drawn[[39, 5], place].to(like.dtype).view(like.shape))


@pytest.mark.slow  # a second or more
def test_rows_of_a_batch_are_the_same_in_any_share():
    plan, shape = BatchPlan(2**40 + 3, 12, 100), (2, 3, 5)
    whole = plan.noise(17, shape)
    assert whole.dtype == torch.float32
    with pretend_gpu() as gpu:
        for device in (CPU, gpu.device):
            parts = [plan.noise(17, shape, range(first, first + 4), device).cpu() for first in (0, 4, 8)]
            assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(plan.noise(18, shape), whole)
    # Training and sampling with one seed have different noise.
    assert not np.isin(whole.numpy(), Seeded([plan.seed])(torch.empty(1, *whole.shape)).numpy()).any()


def test_the_extreme_words_are_inside_the_interval():
    ends = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)
    assert uniform(ends).tolist() == [2.0**-33, 1 - 2.0**-33]
    assert normal(torch.tensor([-(2**31), 0], dtype=torch.int32)).norm().item() == pytest.approx(
        math.sqrt(66 * math.log(2))
    )


@pytest.mark.slow  # millions of numbers
@pytest.mark.parametrize(("kind", "n"), [("elements", 3 * 10**6), ("seeds", 10**6), ("draws", 10**6), ("steps", 10**6)])
def test_the_law_of_the_numbers(kind, n):
    if kind == "seeds":
        x = Seeded(range(n // 100))(torch.empty(n // 100, 100, dtype=torch.float64)).flatten()
    elif kind == "draws":
        draw, one = Seeded([0]), torch.empty(1, 1000, dtype=torch.float64)
        x = torch.cat([draw(one)[0] for _ in range(n // 1000)])
    elif kind == "elements":
        x = Seeded([HIGHEST])(torch.empty(1, n, dtype=torch.float64))[0]
    else:
        x = torch.cat([BatchPlan(0, 100, 100).noise(step, (100,)).flatten() for step in range(n // 10**4)]).double()
    # Kolmogorov-Smirnov: sqrt(n) D exceeds 1.95 with a chance of 1/1000 (twice exp(-2 d^2)).
    assert math.sqrt(n) * stats.kstest(x.numpy(), "norm").statistic < 1.95
    # The moments are means of n independent numbers; variance of x^k: (2k - 1)!! - (E x^k)^2. 4 standard errors.
    for power, mean, square in [(1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105)]:
        assert abs(x.pow(power).mean().item() - mean) < 4 * math.sqrt((square - mean**2) / n)
    # Neighbours at any distance are independent: means of products of odd, and of even, functions of the two.
    for lag in (1, 2, 4, 7, 50, 100, 500, 10**4):
        a, b = x[:-lag], x[lag:]
        assert abs((a * b).mean().item()) < 4 / math.sqrt(n)
        assert abs(((a**2 - 1) * (b**2 - 1)).mean().item()) < 4 * 2 / math.sqrt(n)
        assert abs((a.sign() * b).mean().item()) < 4 / math.sqrt(n)
