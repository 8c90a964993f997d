"""Rules by which weights move against their gradients, as PyTorch optimisers: those that PyTorch has not, or waits in.

Their state is kept by weight, its counts as Python numbers, so no step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FactoredMoments", "OrthogonalMomentum", "ScheduleFreeSteps", "orthogonalized"]

# Jordan et al. 2024: an odd polynomial of degree five that takes singular values in (0, 1] to about 1 in five steps.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2  # of an update of AdamW, about (Liu et al. 2025, section 2.2)
_TINY = 1e-30  # Shazeer & Stern 2018, section 9: added to squared gradients
_LEAST_SCALE = 1e-3  # there: what a weight of zeros is taken for


class _Rule(torch.optim.Optimizer):
    """An optimiser of one group of weights, whose steps need no second evaluation of the loss."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        for group in self.param_groups:
            if moving := [weight for weight in group["params"] if weight.grad is not None]:
                self._move(moving, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError


class OrthogonalMomentum(_Rule):
    """Muon (Jordan et al. 2024) for weights of two axes or more, AdamW for the others.

    A weight W of a axes by b, the kernel of a convolution with all axes but the first as one, moves by

        M <- mu M + (1 - mu) G,   W <- (1 - lr decay) W - lr 0.2 sqrt(max(a, b)) orthogonalized((1 - mu) G + mu M)

    whose factor (Liu et al. 2025, eq. (4)) gives its entries the size of AdamW's: one learning rate serves both.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(weights, settings)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        for weight in (weight for weight in weights if weight.ndim > 1):
            state, gradient = self.state[weight], _gradient(weight)
            average = state.setdefault("momentum_buffer", torch.zeros_like(weight))
            average.lerp_(gradient, 1 - momentum)
            update = orthogonalized(gradient.lerp(average, momentum).flatten(1))
            weight.add_(update.reshape(weight.shape), alpha=-lr * _RMS * math.sqrt(max(update.shape)))
        if vectors := [weight for weight in weights if weight.ndim < 2]:
            self._adam(vectors, group)

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Adam (Kingma & Ba 2015, algorithm 1)."""
        states, gradients = [self.state[weight] for weight in weights], [*map(_gradient, weights)]
        means = [state.setdefault("exp_avg", torch.zeros_like(w)) for state, w in zip(states, weights)]
        count = _counted(states)
        scales = _root_mean_squares(states, gradients, group["betas"][1], group["eps"], count)
        torch._foreach_lerp_(means, gradients, 1 - group["betas"][0])
        torch._foreach_addcdiv_(weights, means, scales, -group["lr"] / (1 - group["betas"][0] ** count))


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T, by Newton and Schulz's iteration; its singular values are from 0.7 to 1.2.

    Jordan et al. 2024. In the number format of the matrix: bfloat16, which Muon was published with, is emulated on many
    processors.

    Args:
        matrix: Any, (a, b).
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if wide is not matrix else x


class FactoredMoments(_Rule):
    """Adafactor (Shazeer & Stern 2018, algorithms 4 and 5), without momentum.

    Of a weight of two axes or more, taken as a matrix as in `OrthogonalMomentum`, the mean squared gradients of rows
    and columns are kept alone. The learning rate is the largest relative step: weights move by at most
    min(lr, 1 / sqrt(t)) of their root mean square, which no device is waited for.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float, decay_power: float, threshold: float
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "decay_power": decay_power, "threshold": threshold}
        super().__init__(weights, settings)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        lr = group["lr"]
        count = _counted([self.state[weight] for weight in weights])
        fresh = count ** -group["decay_power"]  # 1 - beta_2 of step t: the first has no past
        for weight in weights:
            gradient = _gradient(weight)
            update = gradient * self._variance(weight, gradient, fresh).rsqrt()
            update /= (_rms(update) / group["threshold"]).clamp(min=1)
            step = _rms(weight).clamp(min=_LEAST_SCALE) * min(lr, 1 / math.sqrt(count))
            weight.mul_(1 - lr * group["weight_decay"]).sub_(update * step)

    def _variance(self, weight: Tensor, gradient: Tensor, fresh: float) -> Tensor:
        """The mean squared gradient of each entry, from those of its row and its column."""
        state, squares = self.state[weight], gradient.square() + _TINY
        if weight.ndim < 2:
            variance: Tensor = state.setdefault("variance", torch.zeros_like(weight))
            return variance.lerp_(squares, fresh)
        matrix = squares.flatten(1)
        means = {"row_var": matrix.mean(1, keepdim=True), "col_var": matrix.mean(0, keepdim=True)}
        rows, columns = (state.setdefault(name, torch.zeros_like(x)).lerp_(x, fresh) for name, x in means.items())
        # A row and a column without gradients would have a product below the smallest number of float32.
        return (rows / rows.mean() * columns).clamp(min=_TINY).view(weight.shape)


class ScheduleFreeSteps(_Rule):
    """Schedule-free AdamW (Defazio et al. 2024): the learning rate need not decay, because the average does it.

    With the gradient g at y, the weight in training, and its squares averaged as by Adam in v,

        z <- z - lr (g / (sqrt(v / (1 - beta_2^t)) + eps) + decay y)
        x <- (1 - c) x + c z,   c = lr_t^2 / (lr_1^2 + ... + lr_t^2)
        y <- (1 - beta_1) z + beta_1 x

    x is therefore the average of all z, in proportion to the squares of their learning rates.

    Args:
        weights: The weights, y.
        averages: x of each weight, which is changed in place; at first the weight itself.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        betas: Share of the average in y, and decay of the squared gradients.
        eps: What is added to their roots.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        averages: Sequence[Tensor],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})
        self._averages = dict(zip(self.param_groups[0]["params"], averages))

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        lr, (share, decay) = group["lr"], group["betas"]
        states, gradients = [self.state[weight] for weight in weights], [*map(_gradient, weights)]
        moving = [state.setdefault("z", weight.detach().clone()) for state, weight in zip(states, weights)]
        averages = [self._averages[weight] for weight in weights]
        scales = _root_mean_squares(states, gradients, decay, group["eps"], _counted(states))
        torch._foreach_addcdiv_(moving, gradients, scales, -lr)
        torch._foreach_add_(moving, weights, alpha=-lr * group["weight_decay"])
        total = max(state.get("weight_sum", 0.0) for state in states) + lr**2
        for state in states:
            state["weight_sum"] = total
        torch._foreach_lerp_(averages, moving, lr**2 / total)
        torch._foreach_copy_(weights, moving)
        torch._foreach_lerp_(weights, averages, share)


def _gradient(weight: Tensor) -> Tensor:
    """The gradient of a weight that has one."""
    assert weight.grad is not None
    return weight.grad


def _rms(x: Tensor) -> Tensor:
    return x.norm() / math.sqrt(max(1, x.numel()))


def _counted(states: Sequence[dict[str, Any]]) -> int:
    """The number of this step, from 1, in the states of all that move."""
    count: int = max(state.get("step", 0) for state in states) + 1
    for state in states:
        state["step"] = count
    return count


def _root_mean_squares(
    states: Sequence[dict[str, Any]], gradients: list[Tensor], decay: float, eps: float, count: int
) -> tuple[Tensor, ...]:
    """sqrt(v / (1 - decay^t)) + eps of each gradient, its averaged squares v brought up to date."""
    squares = [state.setdefault("exp_avg_sq", torch.zeros_like(g)) for state, g in zip(states, gradients)]
    torch._foreach_mul_(squares, decay)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - decay)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, math.sqrt(1 - decay**count))
    torch._foreach_add_(roots, eps)
    return roots
