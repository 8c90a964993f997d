"""What a denoiser predicts: a point of the plane that the state and the output of a network span."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from unidiff.process.level import Level, Scale, axpby, scale_by, sum_of_two

__all__ = ["Inverse", "Prediction", "inverse"]


# Alpha, sigma, a and b over the determinant alpha b - sigma a.
Inverse = tuple[Scale, Scale, Scale, Scale]


def inverse(level: Level, a: Scale, b: Scale) -> Inverse:
    """What inverts [u; output] = [[alpha, sigma], [a, b]] [x0; eps]: [[b, -sigma], [-a, alpha]] is the inverse."""
    alpha, sigma = level.alpha, level.sigma
    det = alpha * b - sigma * a
    return alpha / det, sigma / det, a / det, b / det


class Prediction:
    """The expected data and the expected noise of a state u = alpha x0 + sigma eps.

    A network predicts one combination of the two, so each of them is a combination of two tensors, the state and the
    network's output. Neither is computed before it is asked for, and `mix` goes from these tensors to what a solver
    needs in one step. It unpacks as (x0, eps, level, variance_interpolation).

    Args:
        x0: Expected clean state E[u_0 | u_t], (B, *modes).
        eps: Expected noise E[eps | u_t], (B, *modes).
        level: The time of the state and its coefficients.
        variance_interpolation: Where the variance of a reverse step lies between the small one, beta-tilde (0), and
            the large one, beta (1), on a logarithmic scale, (B, *modes), not bounded: v of Nichol & Dhariwal 2021, eq.
            15. None if the model has not learned one.
    """

    level: Level
    variance_interpolation: Tensor | None
    # State and output, and the `inverse` of `solved`, of numbers; else x0 and eps are there.
    _plane: tuple[Tensor, Tensor, tuple[float, float, float, float]] | None = None
    _x0: Tensor | None = None
    _eps: Tensor | None = None

    def __init__(self, x0: Tensor, eps: Tensor, level: Level, variance_interpolation: Tensor | None = None) -> None:
        vars(self).update(_x0=x0, _eps=eps, level=level, variance_interpolation=variance_interpolation)

    @classmethod
    def solved(
        cls, output: Tensor, u: Tensor, level: Level, a: Scale, b: Scale, variance: Tensor | None = None
    ) -> Prediction:
        """The prediction that explains state and output: [u; output] = [[alpha, sigma], [a, b]] [x0; eps].

        Args:
            output: The quantity a x0 + b eps, (B, *modes).
            u: The state, (B, *modes).
            level: Time and coefficients of the state.
            a: The quantity's coefficient of the data.
            b: That of the noise.
            variance: The `variance_interpolation`.
        """
        return cls.from_inverse(output, u, level, inverse(level, a, b), variance)

    @classmethod
    def from_inverse(
        cls, output: Tensor, u: Tensor, level: Level, inverse: Inverse, variance: Tensor | None = None
    ) -> Prediction:
        """The same, from `Parameterization.inverse` at the level, which is then made once for a grid."""
        alpha, sigma, a, b = inverse
        if (tracked := u.requires_grad or output.requires_grad) and not torch.is_grad_enabled():
            u, output, tracked = _free(u), _free(output), False
        if tracked or not isinstance(alpha, float):  # the others are of its kind
            # Now: coefficients of modes or samples would be combined for each use, and a graph is that of the moment.
            return cls(axpby(b, u, -sigma, output), axpby(alpha, output, -a, u), level, variance)
        prediction = cls.__new__(cls)
        own = prediction.__dict__
        own["level"], own["variance_interpolation"], own["_plane"] = level, variance, (u, output, inverse)
        return prediction

    @property
    def x0(self) -> Tensor:
        """Expected clean state E[u_0 | u_t], (B, *modes)."""
        if self._x0 is None and self._plane is not None:
            u, output, (_, sigma, _, b) = self._plane
            self.__dict__["_x0"] = sum_of_two(b, u, -sigma, output)
        return self._x0  # type: ignore[return-value]

    @property
    def eps(self) -> Tensor:
        """Expected noise E[eps | u_t], (B, *modes)."""
        if self._eps is None and self._plane is not None:
            u, output, (alpha, _, a, _) = self._plane
            self.__dict__["_eps"] = sum_of_two(alpha, output, -a, u)
        return self._eps  # type: ignore[return-value]

    def mix(self, a: Scale, b: Scale, c: Scale = 0.0, u: Tensor | None = None) -> Tensor:
        """The combination a x0 + b eps + c u, (B, *modes).

        Args:
            a: The coefficient of the expected data.
            b: That of the expected noise.
            c: That of the state.
            u: The state itself; needed for its coefficient only.
        """
        if self._plane is not None:
            state, output, (alpha, sigma, own_a, own_b) = self._plane
            of_state, of_output = a * own_b - b * own_a + c, b * alpha - a * sigma  # Cramer's rule
            if (u is None or u is state) and isinstance(of_state, float) and isinstance(of_output, float):
                return sum_of_two(of_state, state, of_output, output)
        if not isinstance(a, Tensor) and a == 0:
            both = scale_by(b, self.eps)
        elif not isinstance(b, Tensor) and b == 0:
            both = scale_by(a, self.x0)
        else:
            both = axpby(a, self.x0, b, self.eps)
        return both if u is None else axpby(c, u, 1.0, both)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a prediction is not to be changed; use _replace({name}=...)")

    def __iter__(self) -> Iterator[Any]:
        return iter((self.x0, self.eps, self.level, self.variance_interpolation))

    def __getitem__(self, index: int) -> Any:
        return tuple(self)[index]

    def __repr__(self) -> str:
        names = "x0", "eps", "level", "variance_interpolation"
        return f"Prediction({', '.join(f'{name}={value!r}' for name, value in zip(names, self))})"

    def _replace(self, **values: Any) -> Prediction:
        """A prediction with other values of these names."""
        names = "x0", "eps", "level", "variance_interpolation"
        return Prediction(**dict(zip(names, self)) | values)

    @property
    def variance(self) -> Tensor | None:
        """The old name of `variance_interpolation`."""
        warnings.warn("Prediction.variance is now called variance_interpolation.", DeprecationWarning, stacklevel=2)
        return self.variance_interpolation

    @property
    def score(self) -> Tensor:
        """Gradient of the log density of u_t: -eps / sigma (Tweedie's formula; thesis eq. 3.29)."""
        return -self.eps / self.level.sigma

    @property
    def v(self) -> Tensor:
        """The v of Salimans & Ho 2022: alpha eps - sigma x0."""
        return self.mix(-self.level.sigma, self.level.alpha)

    @property
    def velocity(self) -> Tensor:
        """Velocity du/dt of the probability flow: alpha' x0 + sigma' eps.

        It is f u - g^2 score / 2 (Song et al. 2021, eq. 13), but finite where alpha = 0.
        """
        return self.mix(self.level.alpha_rate, self.level.sigma_rate)


def _free(x: Tensor) -> Tensor:
    """The tensor outside of the graph of its moment, which is without gradients."""
    return x.detach() if x.requires_grad else x
