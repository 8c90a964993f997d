"""A mixture whose classes are its components: densities and the scores that guidance asks for, in closed form."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch.distributions import Categorical, MultivariateNormal

import unidiff as ud
from unidiff.process.level import Level

D = torch.float64
MEANS = torch.tensor([[-0.6, 0.3], [0.5, -0.2], [0.1, 0.7]], dtype=D)
COVARIANCES = torch.tensor(
    [[[0.05, 0.02], [0.02, 0.04]], [[0.1, -0.03], [-0.03, 0.02]], [[0.03, 0.0], [0.0, 0.06]]]
).to(D)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=D)
PROCESSES = [ud.DDPM(T=50), ud.NCSN(levels=6), ud.VPSDE(), ud.FlowMatching(), ud.EDM()]
LABEL = torch.tensor([0, 1, 2, 2])
U = torch.randn(4, 2, dtype=D, generator=torch.Generator().manual_seed(0))


def started(process: ud.Process, noise: torch.Tensor) -> torch.Tensor:
    """The states from which sampling starts, made of this noise."""
    return process.start(lambda _: noise, noise)


def mixture(process: ud.Process) -> ud.GaussianMixture:
    return ud.GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS)


def every(name: str, values: Iterable[object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=repr)


def densities(u: torch.Tensor, level: Level) -> tuple[torch.Tensor, torch.Tensor]:
    """Log p(u) and log p(u | each class) of the noisy mixture, written with torch.distributions."""
    alpha, sigma = level.alpha, level.sigma
    noisy = MultivariateNormal(alpha * MEANS, alpha**2 * COVARIANCES + sigma**2 * torch.eye(2, dtype=D))
    each = noisy.log_prob(u[:, None])
    return (each + Categorical(WEIGHTS).logits).logsumexp(1), each


def tilted_score(u: torch.Tensor, level: Level, label: torch.Tensor, scale: float) -> torch.Tensor:
    """The gradient of log [p(u) p(y | u)^scale] by automatic differentiation."""
    u = u.clone().requires_grad_()
    whole, each = densities(u, level)
    wanted = each.gather(1, label[:, None])[:, 0] + Categorical(WEIGHTS).logits[label]  # log p(u, y)
    return torch.autograd.grad((whole + scale * (wanted - whole)).sum(), u)[0]
