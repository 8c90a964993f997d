"""What the processes of the heat equation share: the cosine basis, fading modes, and the measured power of the data."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from unidiff.basis import DCT, set_shape
from unidiff.errors import require
from unidiff.files import digest_of
from unidiff.process.base import Process

__all__ = ["SpectralProcess"]


class _Tensors:
    """Tensors as part of a frozen value: equal if their contents are, and hashable."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.by_name = {name: tensor.detach().cpu() for name, tensor in sorted(tensors.items())}
        self._digest = digest_of(
            name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in self.by_name.items()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tensors) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


@dataclass(frozen=True)
class SpectralProcess(Process):
    """A process in which mode k of an image fades by d_k = exp(-lambda_k tau(t)), possibly with a floor.

    lambda_k = pi^2 sum_a (k_a / n_a)^2 are the eigenvalues of minus the Laplacian, no flux at the border, pixels of
    side 1. tau is the dissipation time: heat run for tau is a Gaussian blur of standard deviation sqrt(2 tau) pixels
    (Rissanen et al. 2023, eq. 7).

    Args:
        shape: Numbers of pixels along the last axes, (H, W).
        blur_max: Blur at t = 1, in pixels; at least 0.
    """

    shape: tuple[int, ...] = (28, 28)
    blur_max: float = 20.0
    _measured: _Tensors | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        set_shape(self, 2, 4096)
        require(0 <= self.blur_max < math.inf, "blur_max", self.blur_max, "a number >= 0, in pixels")

    @cached_property
    def basis(self) -> DCT:
        """The cosines: the heat equation is diagonal in them."""
        return DCT(self.shape)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """lambda_k, (*shape), float64."""
        return self.basis.eigenvalues()

    @property
    def lowest_eigenvalue(self) -> float:
        """The smallest lambda_k above 0."""
        return float(self.eigenvalues[self.eigenvalues > 0].min())

    @abstractmethod
    def blur(self, t: Tensor) -> Tensor:
        """Standard deviation of the Gaussian blur at t, in pixels."""

    def dissipation(self, t: Tensor) -> Tensor:
        """Dissipation time tau(t), in pixels squared: half the square of the blur."""
        return self.blur(t) ** 2 / 2

    def log_fading(self, t: Tensor) -> Tensor:
        """Log d_k = -lambda_k tau(t) at times (*t, 1, ..., 1): (*t, *shape)."""
        return -self.eigenvalues * self.dissipation(t)

    @property
    def measures(self) -> bool:
        return True

    def measured(self) -> dict[str, Tensor]:
        return {} if self._measured is None else self._measured.by_name

    def with_measured(self, tensors: Mapping[str, Tensor]) -> Process:
        """The same process with these measurements; see `Process.with_measured`.

        Raises:
            ParameterError: If they are not the power of data with a gradient, on this process's shape.
        """
        power = tensors.get("power", torch.empty(0))
        require(power.shape == self.shape, "power", tuple(power.shape), f"one number for each mode, {self.shape}")
        finite = bool(power.isfinite().all()) and bool((power >= 0).all())
        require(finite, "power", "numbers that are negative or not finite", "finite numbers >= 0")
        # 1e-12: squares of rounding are not a gradient.
        varies = float((self.eigenvalues * power).sum()) > 1e-12 * self.lowest_eigenvalue * float(power.sum())
        require(varies, "power", "only constant images", "data with a gradient, which the heat equation needs")
        twin = replace(self)
        object.__setattr__(twin, "_measured", _Tensors(tensors))
        return twin

    def mode_weights(self) -> Tensor:
        """Gradient energy of each mode of the data, lambda_k S_k: (*shape)."""
        return self.eigenvalues * self.power()

    def power(self) -> Tensor:
        """Mean square of each mode, (*shape): measured by `fit`, or proportional to 1 / lambda and of mean 1.

        The second is the law of natural images (Field 1987); the constant mode has the power of the lowest other.
        """
        if (known := self.measured().get("power")) is not None:
            return known
        law = 1 / self.eigenvalues.clamp(min=self.lowest_eigenvalue)
        return law / law.mean()

    def fit(self, batches: Iterable[Tensor]) -> Process:
        """The process with the power of each mode measured over all batches (B, ..., *shape) and their channels."""
        total, count = torch.zeros(self.shape, dtype=torch.float64), 0
        for batch in batches:
            modes = self.basis.forward(batch.to(torch.float64)).reshape(-1, *self.shape)
            total, count = total + modes.square().sum(0).cpu(), count + len(modes)
        require(count > 0, "data", count, "at least one sample to measure")
        return self.with_measured({"power": total / count})
