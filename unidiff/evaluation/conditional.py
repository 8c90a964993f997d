"""The conditional mean E[x0 | y], the estimate of least square error, beside which samples are judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.batching import batches
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import require_whole
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Seeded
from unidiff.solver.request import check_request

__all__ = ["mean_prediction", "rms", "tells_mean"]


@plain_arguments
@enough_memory(LOWER_BATCH)
@torch.no_grad()
def mean_prediction(
    denoiser: Denoiser,
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    draws: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    **cond: Tensor,
) -> Tensor:
    """The conditional mean E[x0 | y] in pixels, (B, *shape): the denoiser's prediction at t = 1.

    There the state u is almost independent of x0: E[x0 | u, y] is E[x0 | y] to order alpha / sigma, and its mean over
    all u is exactly E[x0 | y]. So a mean over several u is more accurate, above all for a network, which overfits u.

    Of all estimates E[x0 | y] has the least expected square error, V = E|x0 - E[x0 | y]|^2. A sample x of an exact
    model has E|x - x0|^2 = 2 V, as x and x0 are independent draws of one distribution given y: its root mean square
    error is larger by sqrt(2).

    Args:
        denoiser: The model.
        shape: Shape of one sample; the model's own by default.
        seeds: Seeds of the noise, one for each row; a number n stands for 0, ..., n - 1.
        draws: States u to average over, at least 1: as many evaluations.
        dtype: Floating type of the state.
        device: Device of the state.
        batch: Samples evaluated together; all by default.
        **cond: Conditions, each (B, ...).

    Raises:
        ParameterError: If a condition is not the model's, or one that it requires is missing.
    """
    shape, seeds, cond = check_request(denoiser, shape, seeds, cond, device, dtype, batch)
    require_whole("draws", draws)
    process, means = denoiser.process, []
    for part in batches(seeds, batch, cond):
        noise, x0 = Seeded(part.seeds), torch.zeros(len(part.seeds), *shape, dtype=dtype, device=device)
        level = process.level(1.0, x0)
        for _ in range(draws):
            u = process.start(noise, x0)
            x0 = x0 + process.basis.inverse(denoiser(u, level, **part.cond).x0).to(dtype) / draws
        means.append(x0)
    return torch.cat(means)


def tells_mean(model: NeuralDenoiser) -> bool:
    """Whether `mean_prediction` of a network is meaningful: whether errors of its output are not amplified at t = 1.

    The error of x0 is |sigma / (alpha b - sigma a)| times that of a x0 + b eps: a factor of 1 for X0 and V, and of
    sigma / alpha = 150 for Eps under a usual DDPM table.
    """
    level, network = model.process.level(1.0), model.parameterization
    gain = torch.as_tensor(network.scale(level) * level.sigma / network.determinant(level)).abs().max()
    return bool(gain <= 10)


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square difference over all values of two tensors of one shape."""
    return float((a.double() - b.double()).square().mean().sqrt())
