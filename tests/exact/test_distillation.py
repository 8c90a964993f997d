"""Distillation: its minimum is the teacher, and with an exact teacher it is denoising without the target's noise."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
PROCESSES = [ud.DDPM(50), ud.FlowMatching(), ud.VESDE(), ud.Blurring((2,), 2.0)]


def network(shape: tuple[int, ...] = (2,), seed: int = 0) -> ud.MLP:
    """A network whose last layer is not the zero that it begins with."""
    torch.manual_seed(seed)
    mlp = ud.MLP(shape, width=8, depth=1).double()
    for weight in mlp.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return mlp


def gradient(model: ud.NeuralDenoiser) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.backbone.parameters()])


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_a_student_that_is_its_teacher_has_loss_and_gradient_zero(process):
    tried = 0
    for parameterization in (ud.Eps(), ud.X0(), ud.V(), ud.Score(), ud.Velocity(), ud.Preconditioned()):
        try:
            teacher = ud.NeuralDenoiser(process, parameterization, network())
        except ParameterError:  # undefined on this process
            continue
        tried += 1
        generator = torch.Generator().manual_seed(1)
        x, eps = torch.randn(2, 32, 2, generator=generator, dtype=F64)
        uniform = torch.rand(32, generator=generator, dtype=F64)
        for same, student in ((True, copy.deepcopy(teacher)), (False, teacher.with_backbone(network(seed=1)))):
            losses = ud.Distillation().with_teacher(teacher).batch_losses(student, x, uniform, eps)
            losses.mean().backward()
            # Output -> (x0, eps) -> output multiplies a rounding of 2^-53 by 1 / sin of the angle between the rows of
            # the system, at most 1e6 (Parameterization.check), in about ten operations: 1e-9 of a largest output of
            # less than 1e4 (the scale 1 / sigma of Score). The loss is the square of that, the gradient its multiple.
            assert (losses < 1e-10).all() == same
            assert bool((gradient(student).abs() < 1e-5).all()) == same
        assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    assert tried > 2


@pytest.mark.parametrize("t", [0.5, 0.9])
def test_with_an_exact_teacher_it_is_denoising_without_the_noise_of_the_target(t):
    # E|f - y|^2 = E|f - E[y|u]|^2 + E Var(y|u): equal gradients, and losses that differ by the same for any network.
    points = torch.tensor([[-1.0], [0.4], [0.7]], dtype=F64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    eps = torch.as_tensor(nodes, dtype=F64).repeat_interleave(3)[:, None]
    x, weight = points.repeat(100, 1), torch.as_tensor(weights / weights.sum(), dtype=F64).repeat_interleave(3) / 3
    process = ud.VPSDE()
    taught = ud.Distillation().with_teacher(ud.Empirical(process, points))
    constants = []
    for seed in (0, 1):
        model = ud.NeuralDenoiser(process, ud.V(), network((1,), seed))
        losses, gradients = [], []
        for objective in (ud.Denoising(), taught):
            model.zero_grad()
            loss = (weight * objective.losses(model, x, eps, process.level(torch.full((300,), t, dtype=F64), x))).sum()
            loss.backward()
            losses.append(float(loss.detach()))
            gradients.append(gradient(model))
        # The integrand is analytic in a strip around the real line, so the rule converges exponentially in the root of
        # the number of nodes: the gradients differ by 1e-5 with 40 nodes, by 2e-6 with 60, by 8e-8 with these 100.
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)
        assert gradients[0].abs().max() > 0.1
        constants.append(losses[0] - losses[1])
    assert constants[0] > 0.01
    assert abs(constants[0] - constants[1]) < 1e-6


def test_a_guided_teacher_teaches_its_guided_prediction():
    process, means = ud.VPSDE(), [[-0.5, 0.0], [0.5, 0.0]]
    guided = ud.ClassifierFree(ud.GaussianMixture(process, means, 0.04), 3.0)
    model = ud.NeuralDenoiser(process, ud.Eps(), ud.MLP((2,), width=8, depth=1, classes=2).double())  # which returns 0
    x, eps = torch.randn(2, 4, 2, dtype=F64)
    level, label = process.level(torch.full((4,), 0.5, dtype=F64), x), torch.tensor([0, 1, 0, 1])
    losses = ud.Distillation().with_teacher(guided).losses(model, x, eps, level, label=label)
    expected = guided(process.perturb(x, eps, level), level, label=label).eps.square().mean(1)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_what_is_missing_or_not_needed_is_said():
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network())
    x = torch.zeros(2, 2, dtype=F64)
    with pytest.raises(ParameterError, match="Distillation has no teacher"):
        ud.Distillation().losses(model, x, x, model.process.level(0.5))
    with pytest.raises(ParameterError, match="teacher: Denoising needs no teacher"):
        ud.Denoising().with_teacher(model)


def test_a_teacher_must_be_of_the_students_process_samples_and_conditions():
    # The same check in a recipe: tests/end_to_end/test_start.py.
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network())
    labelled = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, classes=3))
    source = ud.TensorSource(torch.zeros(4, 2), "x")
    settings = ud.Training(steps=1, batch=2, tensorboard=False)
    for teacher, what in (
        (ud.GaussianMixture(ud.DDPM(50), [[0.0, 0.0]], 1.0), "process must be the model's"),
        (ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0, 0.0]], 1.0), r"shape must be the model's, \(2,\), got \(3,\)"),
        (labelled, "conditions must be the model's"),
    ):
        objective = ud.Distillation().with_teacher(teacher)
        x = torch.zeros(2, 2, dtype=F64)
        with pytest.raises(ParameterError, match=f"teacher: its {what}"):
            ud.train(model, source, objective, settings)
        with pytest.raises(ParameterError, match=f"teacher: its {what}"):
            objective.losses(model, x, x, model.process.level(torch.tensor([0.5, 0.5]), x))
    ud.Distillation().with_teacher(ud.FromFunction(ud.VPSDE(), ud.Score(), lambda x, t: -x)).check_model(model)


def test_the_order_of_conditions_does_not_matter():
    parts = ud.Label(3), ud.Scalar(name="pitch")
    one, other = (
        ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, conditions=conditions))
        for conditions in (parts, parts[::-1])
    )
    ud.Distillation().with_teacher(one).check_model(other)
    ud.Split(one, other, 0.5)
    ud.AutoGuidance(one, other, 2.0)
    fewer = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, conditions=parts[:1]))
    for make in (lambda: ud.Split(one, fewer, 0.5), lambda: ud.AutoGuidance(one, fewer, 2.0)):
        with pytest.raises(ParameterError, match="its conditions must be the model's"):
            make()


def test_a_teacher_is_a_model():
    with pytest.raises(ParameterError, match="teacher must be a Denoiser, got 3"):
        ud.Distillation().with_teacher(3)
