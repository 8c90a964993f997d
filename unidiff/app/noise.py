"""An image of the data under noise, and what the model makes of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff import plot
from unidiff.app.samples import Explored
from unidiff.data.base import OpenDataset
from unidiff.errors import DataError, require, require_whole
from unidiff.evaluation.conditional import rms
from unidiff.noise import Seeded
from unidiff.process.level import Level, Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Noised", "noised", "opened"]


@dataclass(frozen=True)
class Noised:
    """A noisy state of one sample, each in pixels, (1, *shape).

    Attributes:
        x0: The sample.
        u: Its noisy state.
        x0_hat: The model's E[x0 | u].
        level: The noise level.
    """

    x0: Tensor
    u: Tensor
    x0_hat: Tensor
    level: Level

    @property
    def error(self) -> float:
        """Root mean square difference between the guess and the sample."""
        return rms(self.x0_hat, self.x0)

    def figures(self) -> list[Figure]:
        """One of each, the noisy one with its values shrunk into [-1, 1]."""
        shrunk = self.u / float(self.u.abs().max().clamp(min=1.0))
        titles = ("data $x_0$", "noisy $u_t$", "guess E[$x_0$ | $u_t$]")
        states = (self.x0, shrunk, self.x0_hat)
        if self.x0.ndim <= 2:
            return [plot.save_table([[(x, "") for x in states]], [""], [*map(plot.Formula, titles)], None)]
        with plot.style():
            panels, axes = zip(*(plot.new_figure(1, (2.4, 2.7)) for _ in states))
            for (ax,), x, title in zip(axes, states, titles):
                ax.imshow(plot.sample_images(x)[0], cmap="gray")
                ax.set(title=title, xticks=[], yticks=[])
                ax.grid(visible=False)
                ax.spines[:].set_visible(False)
        return list(panels)

    def words(self) -> str:
        """The coefficients at this time, and the error of the guess."""
        scales = {"alpha": self.level.alpha, "sigma": self.level.sigma, "log-SNR": self.level.log_snr}
        listed = ", ".join(f"{name} {_said(value)}" for name, value in scales.items())
        return f"t = {self.level.time:.3f}: {listed}. The guess is {self.error:.3f} (rms) from the data."


@lru_cache(maxsize=4)
def opened(explored: Explored) -> OpenDataset:
    """The test split of the model's data, or its training split if it has no other.

    Raises:
        DataError: If the files are not here.
    """
    data = explored.run.recipe.data
    try:
        return data.open("test")
    except DataError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return data.open("train")


@torch.no_grad()
def noised(explored: Explored, index: int, t: float, seed: int = 0) -> Noised:
    """Take a sample of the data to time t, and back by one evaluation of the model.

    u_t = alpha(t) u_0 + sigma(t) eps in the modes of the process; a conditional model is told the sample's own
    conditions.

    Args:
        explored: The model.
        index: Number of the sample in its split.
        t: Time, from 0 to 1; below the process's t_min it is t_min.
        seed: Seed of the noise, at least 0.

    Raises:
        ParameterError: If a number is out of range.
        DataError: If the data are not here.
    """
    require(0 <= t <= 1, "t", t, "a time from 0 to 1")
    require_whole("seed", seed, 0, 2**62)
    source, denoiser = opened(explored), explored.run.denoiser
    require_whole("index", index, 0, len(source) - 1)
    device, rows = next(denoiser.parameters()).device, torch.tensor([index])
    x0 = source.batch(rows, device)
    cond = explored.run.own_conditions(source, rows).cond if explored.run.recipe.conditions() is not None else {}
    process = denoiser.process
    u0 = process.basis.forward(x0)
    level = process.level(max(t, process.t_min), u0)
    u = process.perturb(u0, Seeded([seed])(u0), level)
    guess = denoiser(u, level, **{name: value.to(device) for name, value in cond.items()}).x0
    noisy, x0_hat = (process.basis.inverse(state).to(x0.dtype).cpu() for state in (u, guess))
    return Noised(x0.cpu(), noisy, x0_hat, level)


def _said(value: Scale) -> str:
    """A coefficient, or the range of one that differs between modes."""
    tensor = torch.as_tensor(value, dtype=torch.float64)
    low, high = float(tensor.min()), float(tensor.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g} over the modes"
