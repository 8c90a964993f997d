"""The renormalised heat process with a rescaling for each image, held against its own mathematics."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from mixtures import started
from torch import nn

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError
from unidiff.process.per_sample import PerSampleHeat
from unidiff.velocity import PerSamplePosterior, VelocityNetwork

F64 = torch.float64
SOURCE = ud.data.Digits().open()
X = SOURCE.batch(torch.arange(len(SOURCE))).to(F64)
TIMES = (1e-3, 0.1, 0.35, 0.7, 0.97, 1.0)


def measured(x: torch.Tensor = X, blur_max: float = 1.5, **options) -> PerSampleHeat:
    return PerSampleHeat(ud.RenormalizedHeat(x.shape[-2:], blur_max, **options)).fit([x])


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(0))


def kept(process: PerSampleHeat, t: float) -> float:
    """1 - eta."""
    return float(torch.sigmoid(-process.linear.noise_odds(torch.tensor(t, dtype=F64).reshape(1, 1))))


CASES = [
    (measured(), X[:50]),
    (measured(blur_max=3.0, noise=ud.DataSpectrum()), X[:50]),
    (measured(floor=1e-3, blur_max=6.0), X[:50]),
    (PerSampleHeat(ud.RenormalizedHeat((12, 20), 20.0)), images(5, 3, 12, 20)),
    (PerSampleHeat(ud.RenormalizedHeat((32, 32), 128.0)), images(5, 1, 32, 32)),
]
each = pytest.mark.parametrize(("process", "x"), CASES, ids=lambda v: repr(v) if isinstance(v, PerSampleHeat) else "")


# ---------------------------------------------------------------------------------------------- the mean


@each
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_every_image_keeps_its_own_gradient_energy(process, x, dtype):
    # |grad m|^2 = (1 - eta) R(u_0). In float64 some 1e3 terms with a few roundings each, and rho to 1e-13 of its size
    # (some 100); in float32 the result is rounded once, mode by mode.
    u0 = process.basis.forward(x).to(dtype)
    for t in TIMES:
        found = process.gradient_energy(process.mean(u0, t).double())
        expected = kept(process, t) * process.gradient_energy(u0.double())
        assert ((found / expected - 1).abs() < (1e-12 if dtype == F64 else 3e-7)).all()


def test_the_mean_is_the_exact_solution_of_the_equation():
    # m / sqrt(1 - eta) is `pde.evolve` to the dissipation time, but for the mean of an image, which the equation has
    # none of. Cells of side 1.
    process = measured()
    domain = pde.Rectangle((8, 8), (8.0, 8.0))
    x = X[:20, 0] - X[:20, 0].mean((1, 2), keepdim=True)
    for t in TIMES[1:]:
        tau = float(process.linear.dissipation(torch.tensor(t, dtype=F64)))
        expected = torch.stack([pde.evolve(domain, image, tau).values for image in x])
        m = process.basis.inverse(process.mean(process.basis.forward(x), t)) / math.sqrt(kept(process, t))
        torch.testing.assert_close(m, expected.reshape(m.shape), rtol=1e-11, atol=1e-11)


@each
def test_the_mean_of_an_image_is_not_renormalised(process, x):
    u0 = process.basis.forward(x)
    for t in TIMES:
        torch.testing.assert_close(
            process.mean(u0, t)[..., 0, 0], math.sqrt(kept(process, t)) * u0[..., 0, 0], rtol=1e-13, atol=0
        )


@each
def test_velocities_are_differences_of_states(process, x):
    u0 = process.basis.forward(x)
    eps = torch.randn(u0.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    for t in (0.05, 0.3, 0.6, 0.95):
        # Fourth order: the error is h^4 / 30 times a fifth derivative, of some (1e2)^5 at blur 20 and beyond, beside
        # rounding of 1e-15 / h.
        h = 1e-5
        at = [process.perturb(u0, eps, t + i * h) for i in (-2, -1, 1, 2)]
        slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
        found = process.velocity(u0, eps, t)
        assert (found - slope).abs().amax() < 1e-7 * slope.abs().amax() + 1e-15 / h * at[0].abs().amax()
        zero = torch.zeros_like(eps)
        torch.testing.assert_close(process.velocity(u0, zero, t), process.mean_rate(u0, t), rtol=1e-14, atol=0)


def test_one_time_for_each_sample_and_one_for_all_agree():
    process, u0 = CASES[0][0], CASES[0][0].basis.forward(X[:3])
    together = process.mean(u0, torch.tensor([0.1, 0.5, 0.9]))
    for i, t in enumerate((0.1, 0.5, 0.9)):
        torch.testing.assert_close(
            together[i], process.mean(u0, torch.tensor(t, dtype=torch.float32))[i], rtol=1e-15, atol=0
        )
    with pytest.raises(ValueError, match="one for each of 3 samples, got 2"):
        process.mean(u0, torch.tensor([0.1, 0.5]))
    with pytest.raises(ValueError, match="the last axes of the state must be"):
        process.mean(torch.zeros(3, 8), 0.5)


def test_an_image_without_a_gradient_only_fades():
    process = measured(blur_max=20.0)
    x = torch.full((1, 1, 8, 8), 0.7, dtype=F64)
    u0 = process.basis.forward(x) * (process.linear.eigenvalues == 0)  # without the rounding of the transform
    for t in TIMES:
        torch.testing.assert_close(process.mean(u0, t), math.sqrt(kept(process, t)) * u0, rtol=1e-13, atol=0)
        assert process.mean_rate(u0, t).isfinite().all()


def test_an_image_of_one_fine_mode_survives_any_blur():
    # Its heat would be e^-8000. It keeps its amplitude: a steady state of the equation.
    process = PerSampleHeat(ud.RenormalizedHeat((16, 16), 40.0))
    u0 = torch.zeros(1, 1, 16, 16, dtype=F64)
    u0[..., 15, 9] = -2.0
    for t in TIMES:
        torch.testing.assert_close(process.mean(u0, t), math.sqrt(kept(process, t)) * u0, rtol=1e-11, atol=0)


def test_the_mean_can_be_differentiated_in_the_image():
    process = PerSampleHeat(ud.RenormalizedHeat((3, 3), 2.0))
    u0 = images(2, 1, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: process.mean(u, 0.4), (u0,))


def test_one_image_is_the_linear_process_of_its_spectrum():
    # With S_k = u_0k^2 the common rescaling is the image's own: alpha_k u_0k is the mean, to the rounding of rho.
    x = X[3:4]
    process = measured(x)
    u0, eps = process.basis.forward(x), images(1, 1, 8, 8)
    exact, posterior = ud.Empirical(process.linear, x), PerSamplePosterior(process, x)
    for t in TIMES:
        level = process.linear.level(t)
        torch.testing.assert_close(process.mean(u0, t), level.alpha * u0, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(process.sigma(t, u0).expand(1, 1, 8, 8)[0, 0], level.sigma, rtol=1e-13, atol=0)
        u = process.linear.perturb(u0, eps, level)
        torch.testing.assert_close(process.perturb(u0, eps, t), u, rtol=1e-12, atol=1e-14)
        velocity = level.alpha_rate * u0 + level.sigma_rate * eps
        torch.testing.assert_close(process.velocity(u0, eps, t), velocity, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(posterior(u, t), exact(u, level).velocity, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- the posterior


def test_the_posterior_is_bayes_rule():
    process = measured(blur_max=3.0)
    data = X[:6]
    u0 = process.basis.forward(data)
    model = PerSamplePosterior(process, data)
    for t, s in ((0.9, 0.7), (0.4, 0.1)):
        sigma = process.sigma(t, u0)
        u = process.perturb(u0[:4], images(4, 1, 8, 8), t)
        normal = torch.distributions.Normal(process.mean(u0, t)[None], sigma[None])
        weights = normal.log_prob(u[:, None]).sum((2, 3, 4)).softmax(1)
        torch.testing.assert_close(model.weights(u, t), weights, rtol=1e-9, atol=1e-12)

        def expected(values, weights=weights):
            return torch.einsum("bn,nchw->bchw", weights, values)

        torch.testing.assert_close(model.x0(u, t), expected(u0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.mean(u, t, s), expected(process.mean(u0, s)), rtol=1e-9, atol=1e-9)
        # The expected velocity: of each image, with the noise that would explain the state, by its probability.
        each_eps = (u[:, None] - process.mean(u0, t)) / sigma
        velocities = torch.stack([process.velocity(u0, eps, t) for eps in each_eps])
        torch.testing.assert_close(
            model(u, t), (weights[..., None, None, None] * velocities).sum(1), rtol=1e-8, atol=1e-8
        )


def test_the_flow_has_the_distribution_of_the_process():
    # The continuity equation d log p / dt + div v + v . grad log p = 0, p the mixture of Gaussians about the means.
    data = images(3, 2, 2)
    process = PerSampleHeat(ud.RenormalizedHeat((2, 2), 1.0)).fit([data])
    model = PerSamplePosterior(process, data)
    u0 = process.basis.forward(data)

    def log_p(u, t):
        normal = torch.distributions.Normal(process.mean(u0, t), process.sigma(t, u0))
        return normal.log_prob(u).sum((1, 2)).logsumexp(0)

    for t in (0.3, 0.6, 0.9):
        for row in (0, 1):
            u = process.perturb(u0, images(3, 2, 2), t)[row].requires_grad_()
            (gradient,) = torch.autograd.grad(log_p(u, t), u)
            jacobian = torch.autograd.functional.jacobian(lambda u, t=t: model(u[None], t)[0], u)
            divergence = torch.einsum("ijij->", jacobian)
            h = 1e-5  # rounding of some 1e-15 / h, and h^4 times a derivative
            rise = [log_p(u, t + i * h).item() for i in (-2, -1, 1, 2)]
            change = (rise[0] - 8 * rise[1] + 8 * rise[2] - rise[3]) / (12 * h)
            moved = (model(u[None], t)[0] * gradient).sum().detach()
            assert abs(float(change + divergence + moved)) < 1e-8 * (1 + abs(change) + abs(float(divergence)))


# ---------------------------------------------------------------------------------------------- samplers


@pytest.mark.slow  # many steps: the order is read from a limit
def test_samplers_agree_in_the_limit_with_their_orders():
    # One flow, two ways to walk it, on steps equal in t to where the images are half decided.
    process = measured(X[:20])
    model = PerSamplePosterior(process, X[:20])
    start = started(process.linear, images(10, 1, 8, 8))

    def end(solver, steps):
        u = start
        times = torch.linspace(1, 0.3, steps + 1, dtype=F64).tolist()
        for t, s in pairwise(times):
            u = solver.step(model, u, t, s)
        return u

    truth = end(ud.VelocityFlow(), 400)

    def error(solver, steps):
        # The median path: one that runs along a watershed falls to another side with few steps, and has no order yet.
        return float((end(solver, steps) - truth).flatten(1).norm(dim=1).median())

    for solver, order, steps in ((ud.VelocityFlow(), 2, 50), (ud.PosteriorDDIM(), 1, 100)):
        errors = [error(solver, n) for n in (steps, 2 * steps)]
        # `truth` errs by 1/16 of the error at 100 steps: 0.1 in the slope.
        assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25, (solver, errors)
    assert error(ud.PlugIn(), 200) > 10 * errors[1]  # and the plug-in goes elsewhere


COUNT = 400


@pytest.fixture(scope="module")
def few():
    """The first 200 digits, and the exact posterior at a blur of 3 pixels."""
    return PerSamplePosterior(measured(X[:200], 3.0), X[:200])


def nearest(model, x):
    distances = torch.cdist(x.flatten(1).double(), X[:200].flatten(1))
    return distances.min(1)


def chi_square(model, x):
    """Of the frequencies of the ten classes: 9 degrees of freedom."""
    labels = SOURCE.labels[:200]
    found = torch.bincount(labels[nearest(model, x).indices], minlength=10)
    expected = torch.bincount(labels, minlength=10) / 200 * len(x)
    return float(((found - expected).square() / expected).sum())


# Mean 9 and standard deviation sqrt(18): above 9 + 5 sqrt(18) = 30 with a probability of 4e-4.
@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("solver", [ud.PosteriorDDIM(), ud.VelocityFlow()], ids=repr)
def test_exact_samplers_draw_the_data_with_their_frequencies(solver, few):
    x = solver.sample(few, ud.ArcLength(40), seeds=COUNT)
    assert x.dtype == torch.float32
    assert nearest(few, x).values.max() < 1e-3  # the flow ends at the data
    assert chi_square(few, x) < 30


@pytest.mark.slow  # 2 s
@pytest.mark.parametrize("steps", [40, 160])
def test_the_plug_in_is_biased_at_any_number_of_steps(steps, few):
    x = ud.PlugIn().sample(few, ud.ArcLength(steps), seeds=COUNT)
    assert nearest(few, x).values.max() < 1e-3
    assert chi_square(few, x) > 60


def test_a_sample_depends_on_its_seed_alone(few):
    together = ud.VelocityFlow().sample(few, ud.ArcLength(10), seeds=[4, 7, 9])
    alone = ud.VelocityFlow().sample(few, ud.ArcLength(10), seeds=[7])
    torch.testing.assert_close(alone[0], together[1], rtol=1e-6, atol=1e-6)


def test_mean_gradient_energy_along_the_run_is_R(few):
    # E |grad u_t|^2 = (1 - eta) E R(u_0) + eta R = R, at every time of the exact flow; 300 paths.
    process = few.process
    start = process.linear.start(ud.Seeded(range(300)), torch.empty(300, 1, 8, 8, dtype=F64))
    for state in ud.VelocityFlow().trajectory(few, start, ud.ArcLength(40).times(process.linear)):
        energy = process.gradient_energy(state.u) / process.linear.energy
        assert abs(float(energy.mean()) - 1) < 5 * float(energy.std()) / math.sqrt(300) + 0.01, state.t


# ---------------------------------------------------------------------------------------------- the network


class Exact(nn.Module):
    """A network that knows the velocity, and errs by a factor."""

    shape = (1, 8, 8)

    def __init__(self, posterior, factor):
        super().__init__()
        self.posterior, self.factor = posterior, factor

    def forward(self, x, c):
        process = self.posterior.process
        u, v = process.basis.forward(x), torch.empty_like(x)
        for t in c.unique().tolist():
            same = c == t
            v[same] = self.posterior(u[same], t / 1000) / VelocityNetwork(process, self).scale(t / 1000, x)
        return self.factor * process.basis.inverse(v)


@pytest.mark.slow  # a second or more
def test_the_loss_is_least_for_the_expected_velocity():
    # E |f v - target|^2 - E |v - target|^2 = (f - 1)^2 E |v|^2 where v is the conditional expectation: the cross term,
    # 2 (f - 1) E v (v - target), has mean 0. Five standard errors of it.
    posterior = PerSamplePosterior(measured(X[:20]), X[:20])
    index = torch.arange(600) % 20
    generator = torch.Generator().manual_seed(3)
    eps = torch.randn(600, 1, 8, 8, dtype=F64, generator=generator)
    t = torch.linspace(0.05, 0.95, 12, dtype=F64).repeat_interleave(50)

    def losses(factor):
        return VelocityNetwork(posterior.process, Exact(posterior, factor)).losses(X[index], eps, t)

    best, still = losses(1.0), losses(0.0)
    for factor in (0.8, 1.2):
        cross = losses(factor) - best
        # |v|^2 from the three: still = |target|^2, so cross is known but for E v (v - target).
        square = (cross - (factor - 1) * (best - still)) / (factor * (factor - 1))
        residual = cross - (factor - 1) ** 2 * square
        assert abs(float(residual.mean())) < 5 * float(residual.std()) / math.sqrt(600)
        assert cross.mean() > 0


def test_the_velocity_tells_the_data_where_heat_stands_still():
    posterior = PerSamplePosterior(measured(), X[:50])
    process, t = posterior.process, posterior.process.t_min
    u = process.perturb(process.basis.forward(X[:50]), images(50, 1, 8, 8), t)
    found = process.still(u, posterior(u, t), t)
    # Of what is left out, 2 |m'_heat| / (sigma' / sigma) = 2 lambda tau' / 17 |m|: 2 pi^2 tau' = 1e-8 times a few.
    torch.testing.assert_close(found, posterior.x0(u, t), rtol=1e-6, atol=1e-6)


@pytest.mark.slow  # trains for 4 s
def test_a_network_learns_by_velocity_matching():
    torch.manual_seed(0)
    process = measured(X[:100])
    model = VelocityNetwork(process, ud.MLP((1, 8, 8), width=64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(120):
        x = X[torch.randint(100, (64,))].float()
        t = ud.UniformTimes().draw(process.linear, torch.rand(64, dtype=F64))
        loss = model.losses(x, torch.randn_like(x), t).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The target has about unit size: nothing learnt costs 1.
    assert 0.7 < losses[0] < 1.4
    assert sum(losses[-20:]) / 20 < 0.5
    x = ud.VelocityFlow().sample(model, ud.ArcLength(10), seeds=4)
    assert x.shape == (4, 1, 8, 8)
    assert x.isfinite().all()


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("solver", [ud.PosteriorDDIM(), ud.PlugIn()], ids=repr)
def test_a_network_knows_its_velocity_only(solver):
    model = VelocityNetwork(PerSampleHeat(ud.RenormalizedHeat((8, 8), 1.5)), ud.MLP((1, 8, 8), width=8))
    with pytest.raises(ParameterError, match="Use VelocityFlow"):
        solver.sample(model, ud.ArcLength(3))


def test_bad_arguments():
    process = measured()
    with pytest.raises(ParameterError, match="data"):
        PerSamplePosterior(process, torch.zeros(0, 1, 8, 8))
    with pytest.raises(ParameterError, match="no sample shape of its own"):
        ud.VelocityFlow().sample(VelocityNetwork(process, nn.Identity()))
    with pytest.raises(ParameterError, match="seeds"):
        ud.VelocityFlow().sample(PerSamplePosterior(process, X[:2]), seeds=[])


def test_it_is_a_value():
    process = measured()
    assert process == measured()
    assert hash(process) == hash(measured())
    assert process != PerSampleHeat(ud.RenormalizedHeat((8, 8), 1.5))
    assert repr(process).startswith("PerSampleHeat(linear=RenormalizedHeat(shape=(8, 8), blur_max=1.5")
    assert process.t_min == process.linear.t_min
