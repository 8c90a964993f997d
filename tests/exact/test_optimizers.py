"""Optimisers against their formulas in float64: first steps on a quadratic, and the identities of their papers."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.training.update_rules import orthogonalized

LR, DECAY = 0.01, 0.1
CURVATURE = torch.linspace(0.5, 3.0, 12, dtype=torch.float64)


def weights():
    """A matrix, a kernel and a vector, of which a loss is minimised that is quadratic in each entry."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (2, 3, 2), (12,), ())]


def gradient(w):
    return (CURVATURE[: w.numel()] * (w.flatten() - 0.3)).view(w.shape)


def stepped(settings, steps=4, lrs=None):
    """Weights and averages after some steps of an optimiser."""
    mine = [torch.nn.Parameter(w) for w in weights()]
    averages = [w.detach().clone() for w in mine]
    optimizer = settings.make(mine, LR, settings.decay(DECAY), averages)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lrs[step] if lrs else LR
        for w in mine:
            w.grad = gradient(w.detach())
        optimizer.step()
    return [w.detach() for w in mine], averages


def adamw(w, steps, betas=(0.9, 0.999), eps=1e-8):
    m = v = torch.zeros_like(w)
    for t in range(1, steps + 1):
        g = gradient(w)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = (1 - LR * DECAY) * w
        w = w - LR * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w


def close(found, expected):
    """Equal but for rounding: a few dozen operations on numbers of about 1, each within 1.1e-16 of it."""
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_adamw():
    close(stepped(ud.AdamW(betas=(0.8, 0.95)))[0], [adamw(w, 4, (0.8, 0.95)) for w in weights()])


def newton_schulz(x):
    """The iteration on singular values: s -> a s + b s^3 + c s^5, from s / |x|."""
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    s = s / x.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


def test_muon():
    expected = []
    for w in weights():
        if w.ndim < 2:
            expected.append(adamw(w, 4))
            continue
        m = torch.zeros_like(w)
        for _ in range(4):
            g = gradient(w)
            m = 0.95 * m + 0.05 * g
            matrix = (0.05 * g + 0.95 * m).reshape(w.shape[0], -1)
            update = newton_schulz(matrix) * 0.2 * math.sqrt(max(matrix.shape))
            w = (1 - LR * DECAY) * w - LR * update.view(w.shape)
        expected.append(w)
    # The polynomial multiplies an error in a small singular value by up to 3.4445^5 = 485.
    for found, formula in zip(stepped(ud.Muon())[0], expected):
        torch.testing.assert_close(found, formula, rtol=0, atol=1e-13 * 485)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (4, 4)])
def test_orthogonalized_singular_values_are_near_1(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalized(matrix))
    # From s / |x| > 0.05 on, five steps of the polynomial lead into [0.68, 1.13] (Jordan et al. 2024).
    assert torch.linalg.svdvals(matrix).min() / matrix.norm() > 0.05
    assert ((values > 0.67) & (values < 1.14)).all()
    torch.testing.assert_close(orthogonalized(matrix), newton_schulz(matrix), rtol=0, atol=1e-13 * 485)


def test_muon_is_that_of_torch():
    """In bfloat16, which torch's iteration is computed in: bit for bit, for its adjustment to the size of AdamW."""
    theirs = getattr(torch.optim, "Muon", None)
    if theirs is None:
        pytest.skip("torch has had it since 2.9")
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(2)).bfloat16()
    mine, other = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [
        ud.Muon().make([mine], LR, DECAY, ()),
        theirs([other], LR, DECAY, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in range(3):
        for w in (mine, other):
            w.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(step)).bfloat16()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(mine, other)


def test_adafactor():
    expected = []
    for w in weights():
        v = rows = columns = 0.0
        for t in range(1, 5):
            g, beta = gradient(w), 1 - t**-0.8
            if w.ndim < 2:
                v = beta * v + (1 - beta) * g**2
                estimate = v
            else:  # algorithm 4, in sums
                square = (g**2).reshape(w.shape[0], -1)
                rows, columns = beta * rows + (1 - beta) * square.sum(1), beta * columns + (1 - beta) * square.sum(0)
                estimate = (torch.outer(rows, columns) / rows.sum()).view(w.shape)
            u = g / estimate.sqrt()
            u = u / max(1.0, u.square().mean().sqrt().item())
            scale = max(1e-3, w.square().mean().sqrt().item()) * min(LR, t**-0.5)
            w = (1 - LR * DECAY) * w - scale * u
        expected.append(w)
    close(stepped(ud.Adafactor())[0], expected)


def test_adafactor_is_that_of_torch():
    """For vectors and matrices; it takes the kernels of a convolution one by one."""
    mine, theirs = ([torch.nn.Parameter(w) for w in weights() if w.ndim in (1, 2)] for _ in range(2))
    optimizers = ud.Adafactor().make(mine, LR, DECAY, ()), torch.optim.Adafactor(theirs, LR, weight_decay=DECAY)
    for _ in range(4):
        for both in (mine, theirs):
            for w in both:
                w.grad = gradient(w.detach())
        for optimizer in optimizers:
            optimizer.step()
    close([w.detach() for w in mine], [w.detach() for w in theirs])


def test_adafactor_takes_rows_without_gradients():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.zeros(3, 2)
    weight.grad[0, 0] = 1e-3
    optimizer = ud.Adafactor().make([weight], LR, 0.0, ())
    optimizer.step()
    assert weight.isfinite().all()
    assert torch.equal(weight[1:], torch.ones(2, 2))


LRS = [0.002, 0.004, 0.006, 0.008, 0.008]  # with warm-up


def test_schedule_free():
    betas = 0.9, 0.95
    expected, averages = [], []
    for start in weights():
        x = y = z = start
        v, total = torch.zeros_like(z), 0.0
        for t, lr in enumerate(LRS, 1):
            g = gradient(y)
            v = betas[1] * v + (1 - betas[1]) * g**2
            z = z - lr * g / ((v / (1 - betas[1] ** t)).sqrt() + 1e-8) - lr * DECAY * y
            total += lr**2
            x = (1 - lr**2 / total) * x + lr**2 / total * z
            y = (1 - betas[0]) * z + betas[0] * x
        expected.append(y)
        averages.append(x)
    found, own = stepped(ud.ScheduleFree(betas=betas), 5, LRS)
    close(found, expected)
    close(own, averages)


def test_the_average_of_schedule_free_is_that_of_all_its_steps():
    # x_{t+1} = (lr_1^2 z_2 + ... + lr_t^2 z_{t+1}) / (lr_1^2 + ... + lr_t^2): the start has no share.
    weight = torch.nn.Parameter(weights()[0])
    average = weight.detach().clone()
    optimizer = ud.ScheduleFree().make([weight], LR, DECAY, [average])
    states = []
    for lr in LRS:
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = gradient(weight.detach())
        optimizer.step()
        states.append(optimizer.state[weight]["z"].clone())
    mean = sum(lr**2 * z for lr, z in zip(LRS, states)) / sum(lr**2 for lr in LRS)
    close([average], [mean])
    close([weight.detach()], [0.1 * states[-1] + 0.9 * mean])


def test_another_optimiser_of_torch_is_itself():
    mine = [torch.nn.Parameter(w) for w in weights()]
    theirs = torch.optim.RAdam(mine, lr=LR, betas=(0.8, 0.9), weight_decay=DECAY)
    for _ in range(4):
        for w in mine:
            w.grad = gradient(w.detach())
        theirs.step()
    settings = ud.TorchOptimizer("RAdam", {"betas": [0.8, 0.9], "weight_decay": DECAY})
    found = [torch.nn.Parameter(w) for w in weights()]
    optimizer = settings.make(found, LR, 0.0, ())
    for _ in range(4):
        for w in found:
            w.grad = gradient(w.detach())
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(found, mine))
