"""InfoNCE: what the training of a contrastive model minimises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unidiff.contrastive import ContrastiveModel
from unidiff.objective.base import Objective
from unidiff.process.level import Level

__all__ = ["InfoNCE"]


@dataclass(frozen=True)
class InfoNCE(Objective[ContrastiveModel]):
    """The cross entropies of finding each pair's condition and each pair's state in the batch, halved and summed.

    With f_ij = f(u_i, y_j) in a batch of B pairs, the loss of pair i is

        -(1/2) log softmax_j(f_ij)[i] - (1/2) log softmax_j(f_ji)[i],

    (van den Oord et al. 2018, eq. 4; both ways: Radford et al. 2021, figure 3). For independent pairs, equal conditions
    among them included, the first term is least where f = log p(u, y) / (p(u) p(y)) + c(u), the second with c(y), and
    both with one number c. With accumulated gradients a batch is one of its parts.
    """

    def losses(self, denoiser: ContrastiveModel, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each pair, (B,); each state has the noise of its own time."""
        f = denoiser.similarities(denoiser.process.perturb(u0, eps, level), level, **cond)
        return -(f.log_softmax(1).diagonal() + f.log_softmax(0).diagonal()) / 2
