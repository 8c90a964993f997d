"""Times drawn by the second moments of the loss: unbiased, of the least variance, and with a state that is kept."""

from __future__ import annotations

from collections import deque

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.objective.importance import LossHistory
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

UNIT = 2.0**-40  # probabilities are counted in these
CPU = torch.device("cpu")


def history(losses, uniform=0.001):
    """The state after each entry of a table had these losses, (L, history)."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    return LossHistory(losses, torch.full((len(losses),), losses.shape[1]), uniform)


def probabilities(state):
    weights = state.weights().double()
    return weights / weights.sum()


def middles(state):
    """Uniform numbers, the middle of each entry's share of [0, 1)."""
    p = probabilities(state)
    return p.cumsum(0) - p / 2


@pytest.mark.parametrize("uniform", [1e-6, 0.001, 0.3, 1.0])
def test_probabilities_are_those_of_the_paper(uniform):
    losses = torch.randn(37, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    losses[5] = -losses[5]  # score matching has losses of any sign
    losses[7] = 0
    root = losses.square().mean(1).sqrt()  # eq. 18, with a share of uniform times
    expected = (1 - uniform) * root / root.sum() + uniform / 37
    # Each is rounded to a unit, which moves it by half of one and the sum of 37 by up to 18.5: by p times that.
    error = (probabilities(history(losses, uniform)) - expected).abs()
    assert (error <= UNIT * (0.5 + 18.5 * expected) + 1e-15).all()


@pytest.mark.parametrize("losses", [[[0.0], [0.0], [0.0]], [[1e-300], [1.0], [1e300]], [[0.0], [1.0], [3.0]]])
def test_the_expectation_is_that_of_uniform_times_for_any_probabilities(losses):
    # sum_t p_t L_t / (n p_t) = sum_t L_t / n for any table L: the factors are 1 / (n p_t), to three roundings.
    state = history(losses)
    rows, factors = state.draw(middles(state))
    assert rows.tolist() == [0, 1, 2]
    torch.testing.assert_close(probabilities(state) * factors * 3, torch.ones(3).double(), rtol=1e-15, atol=0)
    assert (factors <= 1000 * (1 + 1000 * 3 * UNIT)).all()  # 1 / uniform; the smallest p is known to half a unit


def test_entries_are_drawn_as_often_as_their_probability_says():
    state = history(torch.rand(11, 3, generator=torch.Generator().manual_seed(1)).double())
    cells = 100_000
    rows, _ = state.draw((torch.arange(cells, dtype=torch.float64) + 0.5) / cells)
    assert (rows.diff() >= 0).all()  # quantiles
    counts = torch.bincount(rows, minlength=11)
    # An interval of length p has p n middles of n cells, to less than one at each end.
    assert (counts - probabilities(state) * cells).abs().max() <= 1
    ends, _ = state.draw(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ends.tolist() == [0, 10]


def vlb_weights(process):
    """(SNR_s - SNR_t) / 2, the weight of a squared error of x0 in each term of L_vlb but the first (l. 1 is 0)."""
    snr = process.log_snr(process.native_times()).exp()
    return torch.cat([snr.new_zeros(1), (snr[:-1] - snr[1:]) / 2])


def test_the_variance_falls_by_the_factor_of_theory():
    # The terms of L_vlb of DDPM(200) for a model whose error of x0 is normal of constant size: L_t = w_t z^2, and
    # E L_t = w_t, E L_t^2 = 3 w_t^2. An estimate n L_t of the sum W of the w_t has the variance 3 n sum w^2 - W^2 at
    # uniform t, and L_t / p_t with p = w / W has 3 W^2 - W^2.
    w = vlb_weights(ud.DDPM(200))
    total = w.sum()

    def theory(n):
        return float((3 * n * w.square().sum() - total**2) / (2 * total**2))

    assert theory(199) == pytest.approx(142.33, abs=0.01)  # over the 199 terms that are not 0
    # By the class: second moments 3 w^2 from a history, variances by summation over the table of 200.
    share = 1e-3
    state = history((3**0.5 * w)[:, None].expand(-1, 10), share)
    p = probabilities(state)
    mean = total / 200
    uniform = (3 * w.square()).mean() - mean**2
    sampled = (3 * w.square() / (200**2 * p)).sum() - mean**2
    # p >= (1 - share) w / W up to rounding, so the second moment is at most 1 / (1 - share) times 3 mean^2.
    assert 2 * mean**2 * (1 - 1e-9) <= sampled <= (3 / (1 - share) - 1 + 1e-6) * mean**2
    ratio = float(uniform / sampled)
    assert theory(200) / (1 + 1.6 * share) <= ratio <= theory(200) * (1 + 1e-9)
    # And drawn: w z^2 / (n p) has mean w z^2 W / (n w), that is mean * z^2, kurtosis 15: the variance of N draws is
    # known to sqrt(14 / N), the mean to sqrt(2 / N) of the mean.
    generator, count = torch.Generator().manual_seed(3), 40_000
    rows, factors = state.draw(torch.rand(count, generator=generator, dtype=torch.float64))
    drawn = factors * w[rows] * torch.randn(count, generator=generator, dtype=torch.float64).square()
    assert abs(drawn.mean() / mean - 1) < 5 * (2 / count) ** 0.5
    assert abs(drawn.var() / sampled - 1) < 5 * (14 / count) ** 0.5
    print(f"ratio of variances {ratio:.2f}, in theory {theory(200):.2f} and over 199 terms {theory(199):.2f}")


def test_the_last_losses_at_each_entry_are_kept():
    state = ud.ImportanceSampled(history=3).state(ud.DDPM(5), CPU)
    assert state.losses.shape == (5, 3)
    kept = [deque(maxlen=3) for _ in range(5)]
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 4, 40, 7):  # 40: more at one entry than are kept
        rows, losses = torch.randint(0, 4, (batch,), generator=generator), torch.rand(batch, generator=generator)
        before = state
        state = state.record(rows, losses)
        assert state is not before
        for row, loss in zip(rows.tolist(), losses.tolist()):
            kept[row].append(loss)
        for row, expected in enumerate(kept):
            assert sorted(state.losses[row].tolist()) == sorted([*expected, *[0.0] * (3 - len(expected))])
        # The last entry had no loss: times stay uniform, and every factor is 1 exactly.
        assert torch.equal(state.draw(torch.rand(9, dtype=torch.float64))[1], torch.ones(9, dtype=torch.float64))
    state = state.record(torch.tensor([4, 4, 4]), torch.full((3,), 5.0))
    assert probabilities(state)[4] > 0.5


def model(T=6):
    torch.manual_seed(0)
    return ud.NeuralDenoiser(ud.DDPM(T), ud.Eps(), ud.MLP((2,), width=16, depth=1))


RING = ud.data.Ring(count=300).open()


def trained(times, process_length=6, steps=8, accumulate=1, **options):
    plan = ud.Training(
        steps=steps, batch=8, lr=0.01, precision="fp32", accumulate=accumulate, log_every=3, tensorboard=False
    )
    result = ud.train(model(process_length), RING, ud.Denoising(times=times), plan, **options)
    return torch.cat([weight.flatten() for weight in result.backbone.parameters()])


def test_until_the_history_is_full_training_is_that_of_uniform_times_bit_for_bit():
    assert torch.equal(trained(ud.ImportanceSampled(), 50), trained(ud.UniformTimes(), 50))
    assert not torch.equal(trained(ud.ImportanceSampled(history=2)), trained(ud.UniformTimes()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_is_the_same_bit_for_bit(accumulate, tmp_path):
    times = ud.ImportanceSampled(history=2)  # full after step 2 or 3
    whole = Checkpoints(tmp_path / "whole")
    expected = trained(times, accumulate=accumulate, checkpoints=whole)
    state = whole.load(print).objective
    assert state["counts"].sum() == 64
    for stop in (1, 5):
        parts, calls = Checkpoints(tmp_path / str(stop)), iter(range(100))
        with pytest.raises(Interrupted):
            trained(times, accumulate=accumulate, checkpoints=parts, stop=lambda: next(calls) == stop - 1)  # noqa: B023
        assert torch.equal(trained(times, accumulate=accumulate, checkpoints=parts), expected)
        resumed = parts.load(print).objective
        assert all(torch.equal(resumed[name], value) for name, value in state.items())
    assert whole.load(print, to_train=False).objective == {}


def test_the_state_does_not_depend_on_the_parts_of_a_batch(tmp_path):
    states = []
    for accumulate in (1, 4):
        checkpoints = Checkpoints(tmp_path / str(accumulate))
        trained(ud.ImportanceSampled(history=2), accumulate=accumulate, checkpoints=checkpoints)
        states.append(checkpoints.load(print).objective)
    assert torch.equal(states[0]["counts"], states[1]["counts"])  # the same times
    # Gradients are added in another order: about ten roundings of float32 a step, and Adam passes them on.
    torch.testing.assert_close(states[0]["losses"], states[1]["losses"], rtol=1e-4, atol=0)


def test_an_objective_without_a_state_writes_no_file(tmp_path):
    trained(ud.UniformTimes(), checkpoints=Checkpoints(tmp_path))
    assert not [*tmp_path.rglob("objective.safetensors")]


@pytest.mark.parametrize(("wrong", "name"), [({"history": 0}, "history"), ({"uniform": 0.0}, "uniform")])
def test_numbers_without_meaning_are_rejected(wrong, name):
    with pytest.raises(ParameterError, match=f"{name} must be"):
        ud.ImportanceSampled(**wrong)


def test_a_table_is_needed():
    with pytest.raises(ParameterError, match="times: ImportanceSampled keeps"):
        ud.train(
            ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), ud.MLP((2,), width=8, depth=1)),
            RING,
            ud.Denoising(times=ud.ImportanceSampled()),
            ud.Training(steps=1, batch=2),
        )
