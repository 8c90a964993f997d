"""The likelihood by the probability flow, against closed forms of Gaussian data.

For data N(m, C) with eigenvalues l_k and an exact denoiser the flow is linear: along eigenvector k, (u_t - alpha m) /
s_k(t) with s_k = sqrt(alpha^2 l_k + sigma^2) stays what it was. So the model's density is known exactly, whatever its
prior is: log p(x) = log prior(u_1) + sum_k log(s_k(1) / s_k(t_min)) + D log alpha(t_min).

Bounds. The solver accepts a step whose estimated error is below tol = atol + rtol |y| in the state (root mean square)
and in the integral. A state error of norm d at t changes the answer by at most sum_k |z_k| d_k / s_k(t) <= d |z / s|,
with z = (u - alpha m) / s constant along the flow and s smallest at t_min. Hence |error| <= steps tol (1 + sqrt(D)
|z / s|), where steps <= nfe / 6, as each takes six evaluations. Dormand and Prince go on with the better of their two
solutions, so the true error of a step is below its estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.basis import Basis
from unidiff.errors import ParameterError
from unidiff.noise import Seeded

F64 = torch.float64
PROCESSES = [ud.VPSDE(), ud.VESDE(), ud.EDM(), ud.FlowMatching()]
EXACT = ud.ExactTrace()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Gaussian:
    """N(m, C) with eigenvalues from 0.09 to 2 along random axes, and what the flow makes of it."""

    def __init__(self, process: ud.Process, size: int = 16) -> None:
        self.process, self.size = process, size
        self.axes, _ = torch.linalg.qr(randn(size, size, seed=1))
        self.variances = torch.logspace(math.log10(0.09), math.log10(2.0), size, dtype=F64)
        self.mean = 0.3 * randn(1, size, seed=2)
        self.covariance = self.axes @ self.variances.diag() @ self.axes.T
        self.model = ud.GaussianMixture(process, self.mean, self.covariance)
        self.start, self.end = process.levels_at([process.t_min, 1.0])

    def scale(self, level: ud.Level) -> torch.Tensor:
        return (level.alpha**2 * self.variances + level.sigma**2).sqrt()

    @property
    def growth(self) -> torch.Tensor:
        return self.scale(self.end) / self.scale(self.start)

    def draw(self, count: int, seed: int = 3) -> torch.Tensor:
        return self.mean + (randn(count, self.size, seed=seed) * self.variances.sqrt()) @ self.axes.T

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Closed form of the model's density in the units of the data."""
        along = self.start.alpha * (x - self.mean) @ self.axes
        u1 = self.end.alpha * self.mean + (along * self.growth) @ self.axes.T
        return self.process.prior_log_density(u1) + self.growth.log().sum() + self.size * math.log(self.start.alpha)

    def tolerance(self, x: torch.Tensor, nfe: int, rtol: float, atol: float) -> float:
        """The bound of the first lines of this file."""
        small, large = self.scale(self.start), self.scale(self.end)
        z = self.start.alpha * ((x - self.mean) @ self.axes) / small
        state = float((z * large).norm(dim=1).max())  # of u, which grows all the way
        integral = float(self.growth.log().abs().sum())
        sensitivity = math.sqrt(self.size) * float((z / small).norm(dim=1).max())
        return nfe / 6 * ((atol + rtol * integral) + (atol + rtol * state) * sensitivity)


# ---------------------------------------------------------------------------------------------- exact trace


@pytest.mark.slow  # 3 s a process
@pytest.mark.cases(1)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_exact_trace_is_the_closed_form_within_1e_5_nats(process):
    truth = Gaussian(process)
    x = truth.draw(4)
    found = ud.log_likelihood(truth.model, x, EXACT, rtol=1e-12, atol=1e-9)
    bound = truth.tolerance(x, found.nfe, 1e-12, 1e-9)
    assert bound < 1e-5
    assert (found.log_prob - truth.log_prob(x)).abs().max() < bound
    assert found.standard_error is None
    assert (found.log_prob.dtype, found.log_prob.shape, found.size) == (F64, (4,), 16)


TABLES = [ud.DDPM(), ud.DDPM(schedule=ud.Cosine()), ud.DDPM(schedule=ud.ZeroTerminalSNR()), ud.NCSN(0.01, 20.0, 20)]


@pytest.mark.cases(2)
@pytest.mark.parametrize("process", [*TABLES, ud.SubVPSDE()], ids=["linear", "cosine", "zero SNR", "ncsn", "sub-VP"])
def test_default_tolerances(process):
    # A curve through a table has jumps in its second derivative, so small tolerances cost many steps there.
    truth = Gaussian(process)
    x = truth.draw(4)
    found = ud.log_likelihood(truth.model, x, EXACT)
    error = (found.log_prob - truth.log_prob(x)).abs().max()
    assert error < truth.tolerance(x, found.nfe, 1e-5, 1e-5)
    assert error < 0.005  # 0.0004 bits per dimension
    assert found.nfe < 200


def test_progress_is_told_at_each_evaluation_and_grows_to_all_batches():
    model, seen = ud.GaussianMixture(ud.DDPM(), torch.zeros(1, 2), 0.25), []
    found = ud.log_likelihood(
        model, randn(3, 2), EXACT, rtol=1e-3, atol=1e-3, batch=2, progress=lambda *at: seen.append(at)
    )
    assert seen[-1] == (2000, 2000)  # two batches
    assert (1000, 2000) in seen
    assert len(seen) > found.nfe  # of the longer batch, those of the other, and an end of each
    assert min(done for done, _ in seen) == 0
    ahead = [max(done for done, _ in seen[: i + 1]) - done for i, (done, _) in enumerate(seen)]
    assert max(ahead) < 1000  # a rejected step goes back, but never to another batch


def test_density_of_a_mixture_and_its_prior_from_nothing_of_the_data():
    # At t = 1 of flow matching nothing is left of the data, so the flow of the exact model ends in the prior exactly
    # and the density is that of the data blurred by sigma / alpha: not linear, and known. In one dimension the
    # state's own sensitivity d log p / dx is below 3 / 0.1 at |z| <= 3; with it the bound reads as above.
    process = ud.FlowMatching()
    model = ud.GaussianMixture(process, [[-0.8], [0.1], [0.9]], torch.tensor([0.02, 0.1, 0.04], dtype=F64), [2, 3, 1])
    start = process.level(process.t_min)
    x = torch.linspace(-1.2, 1.5, 60, dtype=F64)[:, None]
    found = ud.log_likelihood(model, x, EXACT, rtol=1e-8, atol=1e-8)
    expected = model.log_prob(start.alpha * x, start) + math.log(start.alpha)
    assert (found.log_prob - expected).abs().max() < found.nfe / 6 * 1e-8 * 4 * (1 + 30)
    # The density of the data themselves, which x blurred by 1e-3 has not left by more than sigma^2 |p'' / p| / 2.
    clean = sum(
        w / 6 * torch.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        for w, m, v in [(2, -0.8, 0.02), (3, 0.1, 0.1), (1, 0.9, 0.04)]
    )
    # |p'' / p| <= max((x - m)^2 / v^2 + 1 / v) <= (9 + 1) / 0.02 where the point is within 3 deviations of a mean.
    assert (found.log_prob - clean[:, 0].log()).abs().max() < 1.1 * 1e-3**2 * 500


def test_pictures_and_orthonormal_bases():
    # Another basis turns the data and leaves densities alone: the density of x is the modes' density of V^T x.
    turn, _ = torch.linalg.qr(randn(16, 16, seed=8))

    @dataclass(frozen=True)
    class Turned(Basis):
        def forward(self, x):
            return (x.flatten(1) @ turn).reshape(x.shape)

        def inverse(self, u):
            return (u.flatten(1) @ turn.T).reshape(u.shape)

    class Rotated(ud.FlowMatching):
        @property
        def basis(self):
            return Turned()

    truth = Gaussian(ud.FlowMatching())  # of the modes
    pixels = (truth.mean @ turn.T).reshape(1, 1, 4, 4)
    model = ud.GaussianMixture(Rotated(), pixels, turn @ truth.covariance @ turn.T)
    modes = truth.draw(3)
    x = (modes @ turn.T).reshape(3, 1, 4, 4)
    found = ud.log_likelihood(model, x, EXACT, rtol=1e-8, atol=1e-8)
    assert (found.log_prob - truth.log_prob(modes)).abs().max() < truth.tolerance(modes, found.nfe, 1e-8, 1e-8)


class Watched(ud.Counted):
    """Remembers the times it was asked about and the conditions it was given."""

    def __init__(self, denoiser):
        super().__init__(denoiser)
        self.times, self.told = [], []

    def forward(self, u, level, **cond):
        self.times.append(level.time)
        self.told.append(cond["label"])
        return super().forward(u, level)


def test_no_time_beyond_the_interval_and_conditions_go_with_their_samples():
    truth = Gaussian(ud.EDM(), size=2)  # its log sigma is NaN below t = 0
    watched = Watched(truth.model)
    watched.conditions, label = (ud.Label(8),), torch.tensor([5, 6, 7])
    found = ud.log_likelihood(watched, truth.draw(3), EXACT, batch=2, label=label)
    assert min(watched.times) == truth.process.t_min
    assert max(watched.times) == 1.0
    assert {tuple(label.tolist()) for label in watched.told} == {(5, 6), (7,)}
    calls = [sum(len(label) == size for label in watched.told) for size in (2, 1)]
    assert found.nfe == max(calls)


@pytest.mark.slow  # 1 s: a fine tolerance
def test_the_tolerance_holds_for_the_worst_sample_of_a_batch():
    truth = Gaussian(ud.VESDE(), size=4)
    x = truth.mean.repeat(200, 1)  # samples at the mean have a flow without error in the state
    x[77] = truth.mean + 5 * truth.variances.sqrt() @ truth.axes.T
    found = ud.log_likelihood(truth.model, x, EXACT, rtol=1e-6, atol=1e-6, batch=200)
    error = (found.log_prob - truth.log_prob(x)).abs()[77]
    assert error < truth.tolerance(x[77:78], found.nfe, 1e-6, 1e-6)
    alone = ud.log_likelihood(truth.model, x[77:78], EXACT, rtol=1e-6, atol=1e-6)
    assert found.nfe >= alone.nfe  # a mean over the batch would have let its error grow and taken fewer steps


def test_float32_networks():
    # float32 rounds each velocity by 2^-24 relative: over an interval of length 1, with rates below 50 and integrals
    # of 20 nats, that is 1e-4 at worst; the solver's own error comes on top.
    truth = Gaussian(ud.FlowMatching())
    x = truth.draw(4).float()
    found = ud.log_likelihood(truth.model, x, EXACT, rtol=1e-5, atol=1e-5)
    assert found.log_prob.dtype == F64
    bound = truth.tolerance(x.double(), found.nfe, 1e-5, 1e-5) + 1e-4
    assert (found.log_prob - truth.log_prob(x.double())).abs().max() < bound


@pytest.mark.slow  # three likelihoods by an adaptive solver
def test_a_network_under_every_gradient_mode():
    torch.manual_seed(0)
    net = ud.MLP((3,), width=16, depth=1)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    model = ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), net)
    x = randn(3, 3).float()
    coarse = {"rtol": 1e-3, "atol": 1e-3}  # the same steps, whatever they are
    plain = ud.log_likelihood(model, x, EXACT, **coarse)
    with torch.no_grad():
        quiet = ud.log_likelihood(model, x, EXACT, **coarse)
    with torch.inference_mode():
        inference = ud.log_likelihood(model, x * 1, EXACT, **coarse)
    assert torch.equal(plain.log_prob, quiet.log_prob)
    assert torch.equal(plain.log_prob, inference.log_prob)
    assert not plain.log_prob.requires_grad
    assert all(weight.grad is None for weight in net.parameters())
    # The Jacobian by its columns, with forward differentiation: another way to the same number.
    level, u = model.process.level(0.4), randn(1, 3).float()
    assert level.alpha_rate < 0  # rates are differentiated when first read, which no transform of torch.func allows
    jacobian = torch.func.jacfwd(lambda u: model(u, level).velocity[0])(u)[:, 0]
    u.requires_grad_()
    (divergence,) = EXACT.divergence(model(u, level).velocity, u, None)
    torch.testing.assert_close(divergence[0], jacobian.trace(), rtol=1e-5, atol=1e-5)  # float32: 1e-7 times a few terms


# ---------------------------------------------------------------------------------------------- estimated trace


def estimates(truth: Gaussian, x: torch.Tensor, probes: torch.Tensor) -> torch.Tensor:
    """What each probe e must give in closed form, (K, B): e^T M e in place of tr M, M = V diag(log growth) V^T."""
    matrix = truth.axes @ truth.growth.log().diag() @ truth.axes.T
    quadratic = torch.einsum("kbi,ij,kbj->kb", probes, matrix, probes)
    return truth.log_prob(x) - matrix.trace() + quadratic


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("cls", [ud.Hutchinson, ud.GaussianHutchinson])
def test_every_probe_gives_its_closed_form(cls):
    truth = Gaussian(ud.FlowMatching())
    x, seeds = truth.draw(3), [11, 12, 13]
    noise = Seeded(seeds)
    probes = torch.stack([noise(x) for _ in range(5)])
    if cls is ud.Hutchinson:
        probes = torch.where(probes < 0, -1.0, 1.0).to(F64)
    expected = estimates(truth, x, probes)
    found = ud.log_likelihood(truth.model, x, cls(5), seeds=seeds, rtol=1e-8, atol=1e-8)
    # The integral is now up to |e|^2 times the largest growth, 16 * 3^2 * log growth: replace it in the bound.
    bound = truth.tolerance(x, found.nfe, 1e-8, 1e-8) * float(probes.square().sum(2).max())
    assert (found.log_prob - expected.mean(0)).abs().max() < bound
    assert found.standard_error is not None
    assert (found.standard_error - expected.std(0) / math.sqrt(5)).abs().max() < bound
    single = ud.log_likelihood(truth.model, x, cls(), seeds=seeds, rtol=1e-8, atol=1e-8)
    assert single.standard_error is None
    assert (single.log_prob - expected[0]).abs().max() < bound  # the first of five is the one alone


@pytest.mark.slow  # 4 s a probe
@pytest.mark.cases(1)
@pytest.mark.parametrize("cls", [ud.Hutchinson, ud.GaussianHutchinson])
def test_hutchinsons_mean_is_within_3_standard_errors(cls):
    truth = Gaussian(ud.FlowMatching())
    x = truth.draw(8)
    found = ud.log_likelihood(truth.model, x, cls(64), rtol=1e-6, atol=1e-6)
    exact = truth.log_prob(x)
    assert found.standard_error is not None
    # Of eight samples one in 47 would have an outlier, were the seeds not fixed; the solver adds less than 0.001.
    assert ((found.log_prob - exact).abs() < 3 * found.standard_error + 0.001).all()
    pooled = float(found.standard_error.square().sum().sqrt()) / 8
    assert abs(float((found.log_prob - exact).mean())) < 3 * pooled + 0.001
    # The variance of one probe: 2 sum_{i != j} M_ij^2 for signs, 2 sum_ij M_ij^2 for normal entries.
    matrix = truth.axes @ truth.growth.log().diag() @ truth.axes.T
    off = matrix if cls is ud.GaussianHutchinson else matrix - matrix.diagonal().diag()
    variance = 2 * float(off.square().sum()) / 64
    # 512 estimates know it to sqrt((kurtosis - 1) / 512), kurtosis at most 9 (one direction alone): five of these.
    assert abs(float(found.standard_error.square().mean()) / variance - 1) < 5 * math.sqrt(8 / 512)


def test_signs_know_the_trace_of_a_diagonal_matrix():
    truth = Gaussian(ud.FlowMatching(), size=5)
    truth.axes = torch.eye(5, dtype=F64)
    truth.model = ud.GaussianMixture(truth.process, truth.mean, truth.variances.diag())
    x = truth.draw(3)
    found = ud.log_likelihood(truth.model, x, ud.Hutchinson(2), rtol=1e-8, atol=1e-8)
    assert found.standard_error is not None
    assert found.standard_error.max() < 1e-12  # e_i^2 = 1
    assert (found.log_prob - truth.log_prob(x)).abs().max() < truth.tolerance(x, found.nfe, 1e-8, 1e-8)


@pytest.mark.slow  # 3 s: the flow of each batch
def test_a_sample_is_the_same_in_any_batch():
    truth = Gaussian(ud.FlowMatching(), size=4)
    x = truth.draw(6)
    options = {"rtol": 1e-8, "atol": 1e-8}
    together = ud.log_likelihood(truth.model, x, ud.Hutchinson(3), **options)
    parts = ud.log_likelihood(truth.model, x, ud.Hutchinson(3), batch=4, **options)
    alone = ud.log_likelihood(truth.model, x[5:], ud.Hutchinson(3), seeds=[5], **options)
    bound = 2 * 4 * truth.tolerance(x, together.nfe, 1e-8, 1e-8)  # two runs; integrals up to |e|^2 = 4 times as large
    assert (together.log_prob - parts.log_prob).abs().max() < bound
    assert (together.log_prob - alone.log_prob).abs()[5] < bound
    other = ud.log_likelihood(truth.model, x[5:], ud.Hutchinson(3), seeds=[6], **options)
    assert (other.log_prob - alone.log_prob).abs() > bound


# ---------------------------------------------------------------------------------------------- data in bins


def grey(values: list[int], levels: int) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)[:, None] * 2 / (levels - 1) - 1


def test_dequantisation_in_closed_form():
    # One wide Gaussian N(m, v) per pixel and x + w (U - 1/2): E log p = log p(x) - w^2 / (24 s^2), since U has variance
    # 1 / 12. The flow's density is a Gaussian as well, of standard deviation s = prior scale / growth / alpha.
    truth, levels, width = Gaussian(ud.FlowMatching(), size=2), 4, 2 / 3
    n = 2000
    x = torch.tensor([[-1.0, 1 / 3]], dtype=F64).repeat(n, 1)
    found = ud.log_likelihood(truth.model, x, EXACT, levels=levels, batch=n)
    precision = (truth.axes * (truth.growth * truth.start.alpha / truth.process.prior_scale()) ** 2) @ truth.axes.T
    expected = truth.log_prob(x[:1]) - width**2 / 24 * precision.trace() + 2 * math.log(width)
    # n draws: five standard errors, and the solver's bound.
    error = float(found.log_prob.std()) / math.sqrt(n)
    assert abs(float(found.log_prob.mean() - expected)) < 5 * error + truth.tolerance(x, found.nfe, 1e-5, 1e-5)
    assert found.nats.mean == pytest.approx(float(found.log_prob.mean()))
    assert found.nats.standard_error == pytest.approx(error)
    # Bits: the same log probability over D log 2, whatever the scale of the data.
    assert found.bits.mean == pytest.approx(-found.nats.mean / (2 * math.log(2)))
    # Another seed, other noise.
    assert len(found.log_prob.unique()) == n


@pytest.mark.slow  # a second or more
def test_probabilities_of_bins_sum_to_at_most_one():
    levels, n = 9, 300
    process = ud.FlowMatching()
    model = ud.GaussianMixture(process, [[-0.4], [0.5]], 0.02)
    x = grey(list(range(levels)), levels).repeat_interleave(n, 0)
    options = {"rtol": 1e-7, "atol": 1e-7}  # below 1e-3, as in the mixture above
    found = ud.log_likelihood(model, x, EXACT, levels=levels, batch=len(x), **options).log_prob.reshape(levels, n)
    bound = found.mean(1)
    total = float(bound.exp().sum())
    # The standard error of exp(mean) is exp(mean) times that of the mean.
    error = float((bound.exp() * found.std(1) / math.sqrt(n)).square().sum().sqrt())
    assert total < 1 + 5 * error
    # And each bound is below the log probability of its bin: the normal distribution function, prior exact.
    edges = torch.arange(levels + 1, dtype=F64) * 0.25 - 1.125
    start = process.level(process.t_min)
    scale = math.sqrt(0.02 + (start.sigma / start.alpha) ** 2)
    cumulative = sum(torch.special.ndtr((edges - mean) / scale) for mean in (-0.4, 0.5)) / 2
    assert (bound < cumulative.diff().log() + 5 * found.std(1) / math.sqrt(n) + 0.001).all()
    # An average over U of p itself, not of its logarithm, is that probability: no more, no less.
    mean_density = found.exp().mean(1)
    slack = 5 * found.exp().std(1) / math.sqrt(n) + 0.001
    assert ((mean_density - cumulative.diff()).abs() < slack).all()


def test_256_levels_are_grey_values():
    source = ud.data.Digits().open("test")
    x = source.batch(torch.arange(2))
    model = ud.NeuralDenoiser(ud.FlowMatching(), ud.V(), ud.MLP((1, 8, 8), width=8, depth=1))
    found = ud.log_likelihood(model, x, ud.Hutchinson(), levels=256)
    again = ud.log_likelihood(model, x, ud.Hutchinson(), levels=256)
    assert torch.equal(found.log_prob, again.log_prob)
    assert found.size == 64


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.tensor([[0.0, 1.0], [math.nan, 0.0]])},
            "x must be finite numbers, got NaN or infinity in sample 1",
        ),
        ({"x": torch.tensor([[0.0, math.inf]])}, "x must be finite numbers, got NaN or infinity in sample 0"),
        ({"x": torch.zeros(3)}, "x must be floats of shape"),
        ({"x": torch.zeros(0, 2)}, r"x must be floats of shape \(B, 2\)"),
        ({"x": torch.zeros(2, 2, dtype=torch.uint8)}, "x must be floats"),
        ({"x": torch.full((1, 2), 1.5), "levels": 256}, r"\[-1, 1\]"),
        ({"x": torch.full((1, 2), 0.3), "levels": 3}, "other than these 3 levels"),
        ({"levels": 1}, "levels must be .* got 1"),
        ({"levels": 2.5}, "levels must be .* got 2.5"),
        ({"seeds": [1]}, "one for each of 2 samples, got 1"),
        ({"seeds": [1, -2]}, "seeds"),
        ({"rtol": 0.0}, "rtol"),
        ({"atol": math.nan}, "atol"),
        ({"batch": 0}, "batch"),
    ],
    ids=str,
)
def test_mistakes_are_refused(changes, message):
    truth = Gaussian(ud.FlowMatching(), size=2)
    arguments = {"x": torch.zeros(2, 2), **changes}
    with pytest.raises(ParameterError, match=message):
        ud.log_likelihood(truth.model, arguments.pop("x"), EXACT, **arguments)


@pytest.mark.parametrize("cls", [ud.Hutchinson, ud.GaussianHutchinson])
def test_probes_are_at_least_one(cls):
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ParameterError, match="probes"):
            cls(wrong)


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c):
        return self.answer(x)


def test_flows_that_cannot_be_followed_are_refused():
    process, x = ud.FlowMatching(), torch.zeros(2, 2)
    broken = ud.NeuralDenoiser(process, ud.V(), Answers(lambda x: x * math.nan))
    with pytest.raises(ParameterError, match="cannot be solved"):
        ud.log_likelihood(broken, x, EXACT)

    class Detached(ud.Denoiser):
        def __init__(self):
            super().__init__()
            self.process = process

        def forward(self, u, level, **cond):
            return ud.Prediction(u.detach(), u.detach(), level)

    with pytest.raises(ParameterError, match="cannot be differentiated"):
        ud.log_likelihood(Detached(), x, EXACT)


def test_results_say_how_sure_they_are():
    result = ud.Likelihood(torch.tensor([-3.0, -5.0], dtype=F64), None, 2, 10)
    assert result.nats == (-4.0, 1.0)  # standard deviation sqrt(2), over sqrt(2)
    assert result.bits == pytest.approx((2 / math.log(2), 0.5 / math.log(2)))
    assert result.bits_per_dim.tolist() == pytest.approx([1.5 / math.log(2), 2.5 / math.log(2)])
    assert math.isnan(replace(result, log_prob=result.log_prob[:1]).nats.standard_error)
