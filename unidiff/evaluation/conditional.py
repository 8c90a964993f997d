"""How near the samples of a conditional model are to the truth, beside the best single guess."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.batching import batches
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import require_whole
from unidiff.noise import Seeded
from unidiff.solver.sample import check_request

__all__ = ["mean_prediction", "rms", "tells_mean"]

_GAIN = 10.0


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
    """The mean of all samples that fit the conditions, E[x0 | y]: what the denoiser expects of pure noise.

    At t = 1 the state u says next to nothing of x0: E[x0 | u, y] is E[x0 | y] to order alpha / sigma. The mean over
    several u is nearer, for the mean of E[x0 | u, y] over all u is E[x0 | y]; a network, which heeds its noise more
    than it should, gains more.

    Among all single guesses E[x0 | y] has the least expected square error, V = E|x0 - E[x0 | y]|^2. A sample x of an
    exact model errs by E|x - x0|^2 = 2 V: given y, x and x0 are independent draws of one distribution, whose variance
    is V. Its root mean square error is larger by sqrt(2), and that is right.

    Args:
        denoiser: The model.
        shape: Shape of one sample; the model's own if not given.
        seeds: Seeds of the noise, one for each row; a number n stands for 0, ..., n - 1.
        draws: States u to take the mean over, at least 1: as many evaluations.
        dtype: Floating type of the state.
        device: Where the state lives.
        batch: Samples evaluated together; all if not given.
        **cond: Conditions, each (B, ...).

    Returns:
        The means in pixels, (B, *shape).

    Raises:
        ParameterError: If the model does not know the conditions, or needs one that is missing.
    """
    shape, seeds, cond = check_request(denoiser, shape, seeds, cond, device)
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
    """Whether `mean_prediction` of a network means anything: an error of its output is not blown up in x0 at t = 1.

    The error of x0 is |sigma / (alpha b - sigma a)| times that of a x0 + b eps: as large as that of the output for X0
    and V, and sigma / alpha = 150 times for Eps under a usual DDPM table.
    """
    level, network = model.process.level(1.0), model.parameterization
    gain = torch.as_tensor(network.scale(level) * level.sigma / network.determinant(level)).abs().max()
    return bool(gain <= _GAIN)


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square difference over all values of two tensors of one shape."""
    return float((a.double() - b.double()).square().mean().sqrt())
