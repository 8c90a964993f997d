"""Models of few steps: the targets of distillation, consistency, and what their stages keep."""

from __future__ import annotations

import copy
import dataclasses
import math
from itertools import pairwise

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.objective.trailing import Interval, two_steps
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

F64 = torch.float64
MEANS = [[-0.6, 0.3], [0.5, -0.2]]
PROCESSES = [ud.DDPM(50), ud.CosineVP(), ud.FlowMatching(), ud.VESDE(), ud.Blurring((2,), 2.0), ud.SubVPSDE()]
ids = {"ids": lambda process: type(process).__name__}


def network(seed: int = 0) -> ud.MLP:
    """A network whose last layer is not the zero that it begins with."""
    torch.manual_seed(seed)
    mlp = ud.MLP((2,), width=8, depth=1).double()
    for weight in mlp.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return mlp


def batch(process: ud.Process, count: int = 8) -> tuple[torch.Tensor, torch.Tensor, ud.Level]:
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(2, count, 2, generator=generator, dtype=F64)
    return x, eps, process.level(torch.linspace(process.t_min, 1, count, dtype=F64), x)


@pytest.mark.parametrize("process", PROCESSES, **ids)
@pytest.mark.parametrize("steps", [1, 4])
def test_one_step_with_the_target_is_two_of_the_teacher(process, steps):
    teacher = ud.GaussianMixture(process, MEANS, 0.04)
    x, eps, level = batch(process)
    interval = Interval(process, steps, level, x)
    u = process.perturb(x, eps, interval.t)
    x0 = two_steps(teacher, u, interval)
    for row in range(len(x)):
        i = max(1, math.ceil(float(torch.as_tensor(level.time).flatten()[row]) * steps - 1e-4))
        t, middle = (process.level(time) for time in (i / steps, (i - 0.5) / steps))
        state = ud.DDIM().step(teacher, u[row : row + 1], t, middle, ud.Seeded([0]))
        if i == 1:  # the last step of a run is its denoise
            expected, found = teacher(state, middle).x0, x0[row]
        else:
            s = process.level((i - 1) / steps)
            expected = ud.DDIM().step(teacher, state, middle, s, ud.Seeded([0]))
            found = s.alpha * x0[row] + s.sigma * (u[row] - t.alpha * x0[row]) / t.sigma
        # About ten operations on numbers of the size of the state or below, each with a rounding of 2^-53: the
        # weights are quotients of numbers without cancellation. 1 - q_s / q_t has a relative error of 2^-53 over it,
        # and is above 0.01 on these grids but in modes that stand still, which have no weight.
        scale = float(u[row].abs().max() + x0[row].abs().max())
        assert float((expected - found).abs().max()) <= 1000 * 2**-53 * scale


def test_a_student_of_progressive_distillation_that_takes_both_steps_has_loss_zero():
    # Where the data are one point, x0 is that point: a step of any length is exact, for teacher and student.
    process = ud.CosineVP()
    point = torch.tensor([[0.3, -0.7]], dtype=F64)
    teacher = ud.Empirical(process, point)
    teacher.conditions = ()

    class Exact(torch.nn.Module):
        shape = (2,)

        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return point.expand_as(x)

    model = ud.NeuralDenoiser(process, ud.X0(), Exact())
    _, eps, level = batch(process)
    for objective in (ud.ProgressiveDistillation(steps=4), ud.ConsistencyDistillation(steps=4)):
        losses = objective.with_teacher(teacher).losses(model, point.expand(8, 2), eps, level)
        assert losses.max() < 1e-28  # (2^-53)^2 times some hundreds of operations


def gaussian(process: ud.Process, variance: float) -> ud.Denoiser:
    model = ud.GaussianMixture(process, [[0.4, -0.2]], variance)
    model.conditions = ()
    return model


@pytest.mark.parametrize("process", [ud.CosineVP(), ud.FlowMatching(), ud.VESDE(), ud.Blurring((2,), 2.0)], **ids)
def test_the_consistency_map_of_a_gaussian_has_loss_zero_as_the_steps_shrink(process):
    """f(u, t) = m + sqrt(C / (alpha^2 C + sigma^2)) (u - alpha m): the loss is that of the teacher's step alone."""
    mean, variance = process.basis.forward(torch.tensor([[0.4, -0.2]], dtype=F64)), 0.09

    class Map(ud.NeuralDenoiser):
        def output(self, u, level, **cond):
            return self(u, level).x0

        def forward(self, u, level, **cond):
            x0 = mean + (variance / (level.alpha**2 * variance + level.sigma**2)) ** 0.5 * (u - level.alpha * mean)
            return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)

    model = Map(process, ud.X0(), network())
    x, eps, level = batch(process, 64)
    roots = []
    for steps in (16, 32, 64):
        if 2 * steps * process.t_min > 1:
            break
        objective = ud.ConsistencyDistillation(steps=steps).with_teacher(gaussian(process, variance))
        roots.append(float(objective.losses(model, x, eps, level)[32:].mean().sqrt()))
    # The error of one step of a method of first order falls with the square of its length: by 4, in the limit.
    ratios = [a / b for a, b in pairwise(roots)]
    assert len(ratios) == 2
    assert all(2.8 < ratio < 5.5 for ratio in ratios), ratios


@pytest.mark.parametrize("parameterization", [ud.V(), ud.Preconditioned(), ud.Velocity(), ud.Eps()], **ids)
def test_boundary_identity(parameterization):
    # sigma = 0 at t = 0, so that u = x0 and x0 = (b u - sigma F) / (alpha b - sigma a) = u whatever the network says.
    process = ud.FlowMatching()
    u, output = torch.randn(2, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    level = process.level(0.0)
    if isinstance(parameterization, ud.Velocity):
        level = ud.Level(0.0, 1.0, 0.0, math.inf, lambda: (-1.0, 1.0))
    a, b = parameterization.coefficients(level)
    x0 = (b * u - level.sigma * output) / (level.alpha * b - level.sigma * a)
    torch.testing.assert_close(x0, u, rtol=2**-52, atol=0)


@pytest.mark.parametrize(
    ("objective", "steps"),
    [
        (ud.ProgressiveDistillation(steps=4, halvings=2), [4, 2, 1]),
        (ud.ConsistencyDistillation(steps=2, doublings=2), [2, 4, 8]),
        (ud.ConsistencyTraining(steps=2, doublings=2), [2, 4, 8]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_stages_follow_each_other_and_a_resumed_training_is_whole(objective, steps, tmp_path, monkeypatch):
    process = ud.CosineVP()
    teacher = ud.NeuralDenoiser(process, ud.V(), network(1).float())
    if objective.needs_teacher:
        objective = objective.with_teacher(teacher)
    source = ud.TensorSource(torch.randn(32, 2, generator=torch.Generator().manual_seed(0)), "x")
    seen: list[tuple[int, torch.Tensor]] = []
    cls = type(objective)
    original = cls.losses

    def watched(self, denoiser, u0, eps, level, **cond):
        own = next(iter(self._teacher.parameters())).clone() if objective.needs_teacher else torch.zeros(())
        seen.append((self.steps, own))
        return original(self, denoiser, u0, eps, level, **cond)

    monkeypatch.setattr(cls, "losses", watched)
    settings = ud.Training(steps=12, batch=4, lr=1e-2, precision="fp32", tensorboard=False, ema=0.5)

    def run(folder=None, stop=lambda: False):
        student = ud.NeuralDenoiser(process, ud.V(), network(2).float())
        checkpoints = None if folder is None else Checkpoints(folder)
        return ud.train(student, source, objective, settings, checkpoints=checkpoints, stop=stop, seed=3)

    whole = run()
    last = 6  # the last stage is twice as long
    assert [number for number, _ in seen] == [steps[0]] * 3 + [steps[1]] * 3 + [steps[2]] * last
    teachers = [own for _, own in seen]
    first = next(iter(teacher.parameters())) if objective.needs_teacher else torch.zeros(())
    assert all(torch.equal(own, first) for own in teachers[:3])
    changes = cls is ud.ProgressiveDistillation
    assert torch.equal(teachers[3], first) != changes
    assert torch.equal(teachers[6], teachers[3]) != changes
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", lambda: next(count) == 7)
    resumed = run(tmp_path / "run")
    for one, other in zip(whole.backbone.parameters(), resumed.backbone.parameters()):
        assert torch.equal(one, other)


def test_the_next_teacher_is_the_averaged_student():
    from unidiff.training.losses import LossInTraining

    process = ud.CosineVP()
    model = ud.NeuralDenoiser(process, ud.V(), network())
    source = ud.TensorSource(torch.randn(32, 2, dtype=F64), "x")
    objective = ud.ProgressiveDistillation(steps=2, halvings=1).with_teacher(gaussian(process, 0.1))
    loss = LossInTraining(objective, model, source, torch.device("cpu"))
    average = copy.deepcopy(network(5)).requires_grad_(False)
    x, eps, _ = batch(process)
    uniform = torch.rand(8, dtype=F64)
    loss.end_step(None, average, 0.5)
    expected = ud.ProgressiveDistillation(steps=1).with_teacher(model.with_backbone(average))
    torch.testing.assert_close(
        loss.losses(model, x, uniform, eps), expected.batch_losses(model, x, uniform, eps), rtol=0, atol=0
    )


def test_trailing_grids_are_nested_and_end_one_step_above_zero():
    process = ud.DDPM(1000)
    coarse, fine = ud.Trailing(4).times(process), ud.Trailing(8).times(process)
    assert coarse.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert torch.equal(coarse, fine[::2])
    with pytest.raises(ParameterError, match=r"is below t_min = 0.125 of DDPM.*Take at most 8 steps"):
        ud.Trailing(9).check(ud.DDPM(8))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ud.ProgressiveDistillation(steps=6, halvings=2), "steps must be a number that 2.halvings divides, 4"),
        (lambda: ud.ProgressiveDistillation(steps=64).check(ud.DDPM(100)), "steps must be at most 50 on DDPM"),
        (lambda: ud.ConsistencyTraining(steps=4, doublings=6).check(ud.DDPM(100)), "must be at most 50 .* got 256"),
        (lambda: ud.ConsistencyDistillation(steps=0), "steps must be an integer >= 1, got 0"),
        (
            lambda: ud.Training(steps=4, sharded=True).check(ud.ConsistencyTraining(doublings=1)),
            "begins a stage with the whole average. Use sharded: false",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


def test_a_stage_changes_nothing_but_the_steps_and_the_teacher():
    weighting = ud.MinSNR(3.0)
    objective = ud.ProgressiveDistillation(weighting, steps=4, halvings=1).with_teacher(gaussian(ud.CosineVP(), 0.1))
    following = objective.next_stage(gaussian(ud.CosineVP(), 0.2))
    assert dataclasses.replace(objective, steps=2, halvings=0) == following
