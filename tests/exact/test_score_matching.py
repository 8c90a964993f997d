"""Score matching without a target: equal to denoising in expectation, and what it learns.

Expectations over noise are exact: the trapezoidal rule on an analytic integrand that vanishes at both ends errs by
about exp(-2 pi a / h), with h the spacing and a the distance of the nearest pole from the real axis. The density of the
noise has none (its own error is exp(-2 pi^2 / h^2) = e^-493 for h = 0.2); tanh(w eps) has them at pi / (2 |w|), and
|w| <= 0.75 here: e^-65. Beyond 8.6 standard deviations lies 1e-17 of the noise.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pretend_gpu import AVAILABLE, pretend_gpu
from tiny import RING, refused, unidiff, write
from torch import nn

import unidiff as ud
from unidiff import (
    Denoising,
    EpsilonWeighting,
    ExplicitScoreMatching,
    MinSNR,
    SlicedScoreMatching,
    SlicedScoreMatchingVR,
    UniformWeighting,
)
from unidiff.errors import ParameterError
from unidiff.training.batches import BatchPlan
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

F64 = torch.float64
SLICED = [SlicedScoreMatching, SlicedScoreMatchingVR]
WITHOUT_TARGET = [ExplicitScoreMatching, *SLICED]


class Tanh(nn.Module):
    """One hidden layer on (B, size), conditioned on the noise level; analytic in its input."""

    def __init__(self, size: int, width: int = 7, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape, scale):
            return nn.Parameter(scale * torch.rand(shape, generator=generator, dtype=F64) * 2 - scale)

        self.inner, self.bias, self.outer = (
            draw(width, size, scale=0.75),
            draw(width, scale=1.0),
            draw(size, width, scale=1.0),
        )

    def forward(self, x, c):
        return torch.tanh(x @ self.inner.T + self.bias * (c[:, None] / 700)) @ self.outer.T


def batch(process, t, u0):
    return process.level(torch.full((len(u0),), t, dtype=F64), u0)


def gradients(loss, network) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, network.parameters())])


def with_directions(objective, eps, *directions, seed=0):
    """The noise that an objective takes: with the directions given, or drawn, where it has any."""
    if not isinstance(objective, tuple(SLICED)):
        return eps
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(eps.shape, generator=generator, dtype=eps.dtype) for _ in range(objective.projections)]
    return torch.stack([eps, *([v.expand_as(eps) for v in directions] or drawn)], 1)


def losses_of(objective, denoiser, u0, eps, level, *directions, seed=0):
    return objective.losses(denoiser, u0, with_directions(objective, eps, *directions, seed=seed), level)


def every_sign(size: int):
    """All directions of signs, up to the sign of the whole, which no quadratic form sees."""
    return [torch.tensor((1.0, *rest), dtype=F64) for rest in itertools.product((1.0, -1.0), repeat=size - 1)]


# ---------------------------------------------------------------------------------------------- equal to denoising


def noise_grid():
    axis = torch.arange(-43, 44, dtype=F64) * 0.2
    weight = torch.exp(-(axis**2) / 2) * 0.2 / math.sqrt(2 * math.pi)
    return torch.cartesian_prod(axis, axis), torch.outer(weight, weight).flatten()


@pytest.mark.cases(9)
@pytest.mark.parametrize("objective", WITHOUT_TARGET)
@pytest.mark.parametrize("weighting", [EpsilonWeighting(), UniformWeighting(), MinSNR(2.0)], ids=repr)
@pytest.mark.parametrize(
    ("process", "t"),
    [(ud.NCSN(0.3, 1.0, 3), 2 / 3), (ud.DDPM(), 0.4), (ud.FlowMatching(), 0.7)],
    ids=["ncsn", "ddpm", "flow"],
)
def test_loss_and_gradient_are_those_of_denoising(objective, weighting, process, t):
    # E |eps - eps_theta|^2 = E |eps|^2 - 2 E eps . eps_theta + E |eps_theta|^2, and by Stein's identity
    # E eps . eps_theta(alpha u0 + sigma eps) = sigma E div eps_theta = -sigma^2 E div s. So, per pixel, denoising with
    # weight 1 on eps exceeds sigma^2 (2 div s + |s|^2) by E eps^2 = 1, whatever the network; and w on the target is
    # w (determinant / alpha)^2 on eps.
    eps, density = noise_grid()
    points = torch.tensor([[-0.7, 0.2], [0.5, 0.4], [0.1, -0.6]], dtype=F64)
    u0, eps = points.repeat_interleave(len(eps), 0), eps.repeat(3, 1)
    probability = torch.cat([share * density for share in (0.5, 0.3, 0.2)])
    level, number = batch(process, t, u0), process.level(t)
    for parameterization in (ud.Eps(), ud.Score(), ud.X0(), ud.V(), ud.Velocity(), ud.Preconditioned()):
        if parameterization.determinant(process.level(1.0)) == 0:
            continue
        network = Tanh(2)
        denoiser = ud.NeuralDenoiser(process, parameterization, network)
        expected = Denoising(weighting).losses(denoiser, u0, eps, level) @ probability
        gradient = gradients(expected, network)
        losses = []
        for v in every_sign(2) if objective in SLICED else [None]:
            losses.append(losses_of(objective(weighting), denoiser, u0, eps, level, v) @ probability)
        actual = torch.stack(losses).mean()
        on_eps = weighting.weight(parameterization, number) * (parameterization.determinant(number) / number.alpha) ** 2
        # Sums of 2e4 terms of size 1, each good to a few hundred u: 1e-12 of the largest parts.
        size = float(expected) + on_eps
        assert (expected - actual).item() == pytest.approx(on_eps, rel=0, abs=1e-11 * size), parameterization
        assert (gradients(actual, network) - gradient).abs().max() <= 1e-11 * size, parameterization
        assert gradient.abs().max() > 0.01 * on_eps


@pytest.mark.parametrize("objective", WITHOUT_TARGET)
def test_linear_score_of_gaussian_data_in_closed_form(objective):
    # Data N(0, C) and s(u) = M u: E [2 tr M + |M u|^2] = 2 tr M + tr(M S M^T) with S = alpha^2 C + sigma^2 I, least at
    # M = -S^-1, where it is -tr S^-1. Quadratic forms are integrated exactly by the points +-sqrt(D) along the axes.
    size, process, t = 3, ud.DDPM(), 0.35
    mix = torch.tensor([[0.5, 0.2, 0.0], [0.1, 0.7, -0.3], [0.0, 0.2, 0.4]], dtype=F64)
    points = math.sqrt(size) * torch.cat([torch.eye(size, dtype=F64), -torch.eye(size, dtype=F64)])
    u0, eps = (points @ mix.T).repeat_interleave(2 * size, 0), points.repeat(2 * size, 1)
    number = process.level(t)
    total = number.alpha**2 * mix @ mix.T + number.sigma**2 * torch.eye(size, dtype=F64)
    truth = -torch.linalg.inv(total)
    network = nn.Linear(size, size, bias=False, dtype=F64)
    denoiser = ud.NeuralDenoiser(process, ud.Score(), Plain(network))

    def loss(matrix):
        with torch.no_grad():
            network.weight.copy_(number.sigma * matrix)  # alpha^2 + sigma^2 = 1; the answer is multiplied by 1 / sigma
        losses = []
        for v in every_sign(size) if objective in SLICED else [None]:
            losses.append(losses_of(objective(), denoiser, u0, eps, batch(process, t, u0), v).mean())
        return torch.stack(losses).mean()

    for matrix in (torch.zeros(size, size, dtype=F64), truth, truth.T @ truth, mix, -mix.T):
        expected = 2 * matrix.trace() + (matrix @ total @ matrix.T).trace()
        assert loss(matrix).item() == pytest.approx(number.sigma**2 / size * expected.item(), rel=0, abs=1e-12)
    at_truth = loss(truth)
    assert at_truth.item() == pytest.approx(-(number.sigma**2) / size * (-truth).trace().item(), rel=1e-12)
    assert gradients(at_truth, network).abs().max() < 1e-12  # the truth is the minimum


class Plain(nn.Module):
    """A network without a noise condition."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x, c):
        return self.network(x)


def test_a_level_without_data_has_no_loss():
    # alpha = 0: the score is -u whatever the network predicts, so the loss is 0 and so is its gradient.
    process = ud.FlowMatching()
    u0, eps = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    level = process.level(torch.tensor([1.0, 0.5, 1.0], dtype=F64), u0)
    for objective, weighting in itertools.product(WITHOUT_TARGET, [EpsilonWeighting(), UniformWeighting(), MinSNR()]):
        network = Tanh(2)
        losses = losses_of(objective(weighting), ud.NeuralDenoiser(process, ud.V(), network), u0, eps, level)
        assert losses[0] == losses[2] == 0 != losses[1]
        assert gradients(losses[0] + losses[2], network).abs().max() == 0


# ---------------------------------------------------------------------------------------------- the directions


def at_one_state(size=6, count=40_000, seed=1):
    """A model, one state many times over, its level, and there the score and its Jacobian."""
    process = ud.NCSN(0.3, 1.0, 3)
    denoiser = ud.NeuralDenoiser(process, ud.Score(), Tanh(size, width=12, seed=seed))
    u0, eps = torch.randn(2, 1, size, generator=torch.Generator().manual_seed(seed), dtype=F64)
    level = process.level(2 / 3)
    u = process.perturb(u0, eps, level)
    score = denoiser(u, level).score[0].detach()
    jacobian = torch.func.jacrev(lambda u: denoiser(u[None], level).score[0])(u[0]).detach()
    u0, eps = u0.expand(count, size), eps.expand(count, size)
    return denoiser, u0, eps, batch(process, 2 / 3, u0), score, jacobian, level.sigma**2 / size


def quadratic_form_variance(a: torch.Tensor) -> float:
    """Variance of v^T A v for random signs v: 2 sum of squares off the diagonal of the symmetric part."""
    symmetric = (a + a.T) / 2
    return 2 * (symmetric.square().sum() - symmetric.diagonal().square().sum()).item()


def test_slices_are_unbiased_with_the_variances_of_quadratic_forms():
    denoiser, u0, eps, level, score, jacobian, factor = at_one_state()
    exact = ExplicitScoreMatching().losses(denoiser, u0[:1], eps[:1], level_of(level, 1)).item()
    assert exact == pytest.approx(factor * (2 * jacobian.trace() + score @ score).item(), rel=1e-12)
    forms = {SlicedScoreMatchingVR: 2 * jacobian, SlicedScoreMatching: 2 * jacobian + torch.outer(score, score)}
    variances = {}
    for objective, form in forms.items():
        losses = losses_of(objective(), denoiser, u0, eps, level).detach()
        variances[objective] = factor**2 * quadratic_form_variance(form)
        error = math.sqrt(variances[objective] / len(losses))
        assert losses.mean().item() == pytest.approx(exact, abs=5 * error)
        # The sample variance has standard error sqrt((fourth moment - variance^2) / n).
        centred = losses - exact
        spread = ((centred**4).mean() - (centred**2).mean() ** 2).sqrt().item() / math.sqrt(len(losses))
        assert losses.var().item() == pytest.approx(variances[objective], abs=5 * spread)
    assert variances[SlicedScoreMatchingVR] < variances[SlicedScoreMatching]


def level_of(level, count):
    return level.map(lambda value: value[:count])


def test_variance_reduction_grows_with_the_number_of_pixels():
    # For a score of unit size per pixel, (v^T s)^2 alone has variance 2 (|s|^4 - sum s_i^4), about 2 D^2; the trace of
    # a Jacobian is estimated with a variance of the order of its sum of squares.
    size = 50
    *_, score, jacobian, _ = at_one_state(size, 1)
    alone = 2 * ((score @ score) ** 2 - (score**4).sum()).item()
    assert quadratic_form_variance(torch.outer(score, score)) == pytest.approx(alone, rel=1e-10)
    reduced = quadratic_form_variance(2 * jacobian)
    assert quadratic_form_variance(2 * jacobian + torch.outer(score, score)) > reduced


def test_two_chances_may_cancel():
    # In two dimensions v = (1, r) with a sign r: SSM varies by r (2 m + 2 s_1 s_2), m = J_12 + J_21, and SSM-VR by
    # r 2 m. Where s_1 s_2 = -m the plain form does not vary at all. Linear score s = M u with M_12 = M_21 = 0.3.
    process = ud.NCSN(0.3, 1.0, 3)
    m = torch.tensor([[-1.0, 0.3], [0.3, -1.0]], dtype=F64)
    score = torch.tensor([[0.6, -1.0]], dtype=F64)  # the product is -0.6 = -m
    level = process.level(2 / 3)
    r = math.hypot(1, level.sigma)
    network = nn.Linear(2, 2, bias=False, dtype=F64)
    with torch.no_grad():
        network.weight.copy_(level.sigma * r * m)
    u = torch.linalg.solve(m, score[0])[None].expand(50, 2)
    denoiser = ud.NeuralDenoiser(process, ud.Score(), Plain(network))
    many = batch(process, 2 / 3, u)
    plain = losses_of(SlicedScoreMatching(), denoiser, u, torch.zeros_like(u), many).detach()
    reduced = losses_of(SlicedScoreMatchingVR(), denoiser, u, torch.zeros_like(u), many).detach()
    assert plain.max() - plain.min() < 1e-12
    factor = level.sigma**2 / 2
    assert (reduced.max() - reduced.min()).item() == pytest.approx(2 * factor * 2 * 0.6, rel=1e-12)


def test_signs_are_signs():
    noise = torch.randn(30_000, 2, 4, generator=torch.Generator().manual_seed(0))
    noise[0, 1] = 0.0  # which float32 draws now and then
    eps, (v,) = SlicedScoreMatching()._directions(noise)
    assert torch.equal(eps, noise[:, 0])
    assert v.dtype == torch.float32
    assert set(v.unique().tolist()) == {-1.0, 1.0}
    # Mean 0 and covariance I, each entry with standard error 1 / sqrt(n) at most; 14 entries, five of these.
    bound = 5 / math.sqrt(len(v))
    assert v.mean(0).abs().max() < bound
    assert (v.T @ v / len(v) - torch.eye(4)).abs().max() < bound


@pytest.mark.parametrize("objective", SLICED)
def test_projections_are_averaged(objective):
    denoiser, u0, eps, level, *_ = at_one_state(count=5)
    directions = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(3), dtype=F64)
    three = losses_of(objective(projections=3), denoiser, u0, eps, level, *directions)
    alone = [losses_of(objective(), denoiser, u0, eps, level, v) for v in directions]
    torch.testing.assert_close(three, torch.stack(alone).mean(0), rtol=1e-13, atol=1e-13)
    assert not torch.equal(alone[0], alone[1])
    for wrong in (0, -1, 1.5):
        with pytest.raises(ParameterError, match="projections"):
            objective(projections=wrong)
    with pytest.raises(ParameterError, match=r"noise must have shape \(5, 2, 6\), got \(5, 6\)"):
        objective().losses(denoiser, u0, eps, level)


@pytest.mark.skipif(not AVAILABLE, reason="torch < 2.9 has no Python backend")
@pytest.mark.parametrize("objective", WITHOUT_TARGET)
def test_the_losses_of_a_seed_do_not_depend_on_the_device(objective):
    # A device has a generator of its own: here the one that the pretended device shares with the CPU has another state.
    objective = objective(**({"projections": 2} if objective in SLICED else {}))
    process, plan = ud.DDPM(50), BatchPlan(seed=4, batch=6, count=100)
    x = torch.linspace(-1, 1, 18, dtype=F64).reshape(6, 3)

    def losses(device):
        denoiser = ud.NeuralDenoiser(process, ud.V(), Tanh(3)).to(device)
        uniform, noise = plan.uniform(7), plan.noise(7, objective.noise_shape(denoiser, (3,)))
        return objective.batch_losses(denoiser, x.to(device), uniform, noise.to(device, F64)).detach().cpu()

    torch.manual_seed(0)
    on_cpu = losses("cpu")
    torch.manual_seed(1)
    with pretend_gpu() as gpu:
        on_device = losses(gpu.device)
    # The same operations in float64 on the same processor.
    torch.testing.assert_close(on_device, on_cpu, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", WITHOUT_TARGET)
def test_losses_are_per_sample_and_need_no_gradient_mode(objective):
    denoiser, u0, eps, _, *_ = at_one_state(count=4)
    u0 = u0 + torch.arange(4, dtype=F64)[:, None] / 4
    t = torch.tensor([1 / 3, 2 / 3, 1.0, 2 / 3], dtype=F64)
    noise = with_directions(objective(), eps)
    together = objective().losses(denoiser, u0, noise, denoiser.process.level(t, u0))
    with torch.no_grad():
        again = objective().losses(denoiser, u0, noise, denoiser.process.level(t, u0))
    assert torch.equal(together, again)
    first = objective().losses(denoiser, u0[:1], noise[:1], denoiser.process.level(t[:1], u0[:1]))
    torch.testing.assert_close(first, together[:1], rtol=1e-13, atol=1e-13)


# ---------------------------------------------------------------------------------------------- networks, training


@pytest.mark.cases(1)
@pytest.mark.parametrize("objective", WITHOUT_TARGET)
def test_gradients_through_a_unet_are_derivatives(objective):
    # Attention, group norms, up- and downsampling, differentiated twice: a central difference of the loss along one
    # direction of all weights errs by h^2 times its third derivative and by u |loss| / h. For h = 1e-4 and derivatives
    # of up to a hundred times the first that is 1e-6 of the slope.
    torch.manual_seed(0)
    network = ud.UNet((1, 4, 4), width=4, multipliers=(1, 2), blocks=1, attention=(2,)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # some branches start at zero
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=F64))
    denoiser = ud.NeuralDenoiser(ud.DDPM(), ud.V(), network)
    u0, eps = torch.randn(2, 2, 1, 4, 4, generator=generator, dtype=F64)
    level = denoiser.process.level(torch.tensor([0.3, 0.6], dtype=F64), u0)

    def loss():
        return losses_of(objective(), denoiser, u0, eps, level, seed=5).mean()

    gradient = gradients(loss(), network)
    direction = gradient / gradient.norm()
    start, h = nn.utils.parameters_to_vector(network.parameters()).detach(), 1e-4
    values = []
    for side in (1, -1):
        nn.utils.vector_to_parameters(start + side * h * direction, network.parameters())
        values.append(loss().item())
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(gradient.norm().item(), rel=1e-5)


@pytest.mark.slow  # trains a network; losses and gradients of the others are those of denoising, above
def test_sliced_score_matching_finds_the_score_of_a_mixture():
    # The truth is in closed form at every level. Least squares with k weights on n targets with noise of variance q
    # errs by about k q / n: with k = 5634, n = 256000 and q = 0.56 against a signal of 0.44 per pixel at the lowest
    # level, by 0.03 of the signal. Score matching has no target, and noisier gradients. Required is 0.05; the best
    # linear score is off by more than 0.4 there.
    ring, process = ud.data.Ring(components=4, std=0.15, count=100_000), ud.NCSN(0.3, 1.0, 3)
    torch.manual_seed(0)
    model = ud.NeuralDenoiser(process, ud.Score(), ud.MLP((2,), width=32, depth=1))
    settings = ud.Training(steps=500, batch=512, lr=1e-2, ema=0.98, precision="fp32", log_every=500)
    model = ud.train(model, ring.open(), SlicedScoreMatching(), settings)
    exact = ud.GaussianMixture(process, ring.means, ring.std**2)
    generator = torch.Generator().manual_seed(5)
    noise, eps = torch.randn(2, 20_000, 2, generator=generator, dtype=F64)
    data = exact.draw(noise, torch.rand(20_000, generator=generator, dtype=F64))
    for i, level in enumerate(process.levels_at(process.native_times())):
        u = process.perturb(data, eps, level)
        truth = exact(u, level).score
        signal = truth.square().mean()
        with torch.no_grad():
            error = (model(u.float(), level).score - truth).square().mean() / signal
        assert error < 0.05
        if i == 0:
            linear = u @ torch.linalg.lstsq(u, truth).solution
            assert (linear - truth).square().mean() / signal > 8 * 0.05


@pytest.mark.parametrize("objective", [cls() for cls in WITHOUT_TARGET], ids=repr)
def test_a_resumed_run_is_the_same_run(objective, tmp_path):
    source = ud.data.Ring(count=300).open()

    def model():
        torch.manual_seed(0)
        return ud.NeuralDenoiser(ud.DDPM(50), ud.V(), ud.MLP((2,), width=16, depth=1))

    settings = ud.Training(steps=6, batch=8, lr=0.01, precision="fp32", accumulate=2)
    whole = ud.train(model(), source, objective, settings, seed=4)
    count = itertools.count(1)
    with pytest.raises(Interrupted):
        ud.train(
            model(),
            source,
            objective,
            settings,
            seed=4,
            checkpoints=Checkpoints(tmp_path),
            stop=lambda: next(count) == 3,
        )
    resumed = ud.train(model(), source, objective, settings, seed=4, checkpoints=Checkpoints(tmp_path))
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


@pytest.mark.cases(1)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.slow  # whole runs
def test_recipes_name_them(tmp_path, precision):
    for number, objective in enumerate(
        [{"type": "ExplicitScoreMatching"}, {"type": "SlicedScoreMatchingVR", "projections": 2, "weighting": "sigma2"}]
    ):
        recipe = write(tmp_path, {**RING, "objective": objective})
        assert (
            unidiff("run", recipe, "--out", tmp_path / str(number), "--set", f"training.precision={precision}").code
            == 0
        )


def test_recipes_that_cannot_run_are_refused(tmp_path):
    wrong = write(tmp_path, {**RING, "objective": {"type": "SlicedScoreMatching", "projections": 0}})
    assert "projections" in refused("check", wrong)
    # torch.compile has no second derivative; without this the first step would end in its words.
    compiled = {**RING, "objective": {"type": "SlicedScoreMatching"}, "training": {**RING["training"], "compile": True}}
    message = refused("check", write(tmp_path, compiled))
    assert "training.compile: SlicedScoreMatching differentiates the network twice" in message
    assert "compile: false" in message
    with pytest.raises(ParameterError, match="compile"):
        ud.train(
            ud.NeuralDenoiser(ud.DDPM(50), ud.V(), ud.MLP((2,), width=16, depth=1)),
            ud.data.Ring(count=300).open(),
            ExplicitScoreMatching(),
            ud.Training(steps=1, compile=True),
        )
