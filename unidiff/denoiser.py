"""Denoisers, the interface between models and solvers: a guided, averaged or counted model is a denoiser too."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.condition.base import Condition, named
from unidiff.condition.image import Image
from unidiff.condition.network import check_network, conditions_of
from unidiff.condition.vector import Label
from unidiff.display import Displayed
from unidiff.errors import ParameterError, require_shape
from unidiff.noise_condition import NoiseCondition, apply_network
from unidiff.parameterization import Parameterization
from unidiff.prediction import Inverse, Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level, Levels, Scale, is_one, is_own, scale_by
from unidiff.tensors import CalledAtLevels, require_own_shape

__all__ = ["Counted", "Denoiser", "NeuralDenoiser"]


class Denoiser(Displayed, PlainArguments, CalledAtLevels, nn.Module, ABC):
    """Predicts E[x0 | u_t] and E[eps | u_t] from a noisy state u_t and its noise level.

    Attributes:
        process: The process that generates the noisy states.
        shape: Shape of one sample, without the batch axis; None if unknown.
        conditions: The conditions that it takes; None if it takes any, as a foreign network may.
        required: Names of the required conditions, and what requires them ("classifier-free guidance").
        closed_form: Whether it is exact at every alpha and sigma, also below t_min, and has `draw`.
        learned_variance: Whether its predictions have a `variance_interpolation`, the variance of a reverse step.
        differentiable: Whether gradients pass through its predictions, to its parameters and its state.
    """

    process: Process
    shape: tuple[int, ...] | None = None
    conditions: tuple[Condition, ...] | None = None
    required: Mapping[str, str] = MappingProxyType({})
    closed_form: bool = False
    learned_variance: bool = False
    differentiable: bool = True

    @classmethod
    def _instead_of(cls, value: object) -> str:
        if isinstance(getattr(value, "model", None), cls):
            return "Pass the model in it, its attribute `model`"
        if isinstance(value, nn.Module):
            return "Make a model of a network: NeuralDenoiser(process, parameterization, network)"
        if callable(value):
            return "Make a model of a function: FromFunction(process, Score(), function)"
        run = f"load({value!r})" if isinstance(value, str) else "run" * hasattr(value, "denoiser")
        return f"Pass the model of a run: {run}.denoiser" if run else ""

    def _copy_interface(self, denoiser: Denoiser, *others: Denoiser) -> None:
        """Copy process, shape and conditions of the denoiser that this one wraps; it may also evaluate others."""
        for name in ("process", "shape", "conditions", "learned_variance"):
            setattr(self, name, getattr(denoiser, name))
        self.differentiable = all(model.differentiable for model in (denoiser, *others))
        self.required = {name: who for model in (denoiser, *others) for name, who in model.required.items()}

    @property
    def classes(self) -> int | None:
        """Number of classes of the condition `label`; None without one. To be set in `conditions`."""
        return getattr(named(self.conditions, "label"), "classes", None)

    @classes.setter
    def classes(self, classes: int) -> None:
        self._replace(Label(classes))

    @property
    def image(self) -> tuple[int, ...] | None:
        """Shape (C', H, W) of the condition `image`; None without one. To be set in `conditions`."""
        image: Any = named(self.conditions, "image")
        return None if image is None else (image.channels, *image.size)

    @image.setter
    def image(self, image: tuple[int, ...]) -> None:
        self._replace(Image(image[0], tuple(image[1:])))

    def _replace(self, condition: Condition) -> None:
        notice = f"set `conditions` of a Denoiser, as in self.conditions = ({condition!r},), and not the old attribute"
        warnings.warn(notice, DeprecationWarning, stacklevel=4)
        others = (other for other in self.conditions or () if other.name != condition.name)
        self.conditions = (*others, condition)

    def with_networks(self, wrap: Callable[[nn.Module], nn.Module]) -> Denoiser:
        """The same model with what `wrap` makes of its network, and of those of the models that it wraps."""
        twin = copy.copy(self)
        own: dict[str, Any] = self._modules
        wrapped = {name: m.with_networks(wrap) if hasattr(m, "with_networks") else m for name, m in own.items()}
        twin.__dict__["_modules"] = wrapped
        return twin

    def draw(self, noise: Tensor, uniform: Tensor, **cond: Tensor) -> Tensor:
        """Exact samples of the data, (B, *shape), of a closed-form denoiser.

        Args:
            noise: Standard normal, (B, *shape).
            uniform: Draws of the uniform distribution on [0, 1), (B,).
            **cond: Conditions, each (B, ...).
        """
        raise NotImplementedError(f"{type(self).__name__} is not a closed-form denoiser")

    @abstractmethod
    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state.

        Args:
            u: State in mode coordinates, (B, *modes).
            level: Its noise level, from `process.level(t)` (or `process.level(t, u)` with one time per sample).
            **cond: Conditions, each (B, ...); see `unidiff.condition`.
        """


# What surrounds a network at one level: its noise condition, (B,), the factors of input and output, None for 1, and
# `Parameterization.inverse`, None where it is made anew.
_Factors = tuple[Tensor, Scale | None, Scale | None, Inverse | None]
_TOGETHER = 2**15  # noise conditions of a grid that are made together; where there are more the network takes longer


class NeuralDenoiser(Denoiser):
    """A network that predicts one parameterization of one process.

    Input and output of the network have about unit variance: the input is the state in pixels divided by
    sqrt(alpha^2 + sigma^2), the output is multiplied by sqrt(a^2 + b^2). For DDPM with Eps, X0 or V both factors are 1
    and the network is the paper's. For NCSN with Score the second is 1 / sigma: technique 3 of Song & Ermon 2020. With
    Preconditioned, for its own standard deviation, c_in and 1 of Karras et al. 2022. A score by hand: `FromFunction`.

    Args:
        process: The process of the noisy states.
        parameterization: What the network predicts.
        backbone: The network: maps pixels (B, *shape) and the noise condition (B,) to (B, *shape). With a learned
            variance the output has twice the channels, and its second half v gives
            `Prediction.variance_interpolation` = (1 + v) / 2 (Nichol & Dhariwal 2021, eq. 15, and code).
        noise_condition: How the noise level is passed to the network; None for the parameterization's own: LogSigma
            with Preconditioned, Timestep with the others.

    Raises:
        ParameterError: If the parameterization is undefined on the process, or the network learns a variance and the
            modes of the process differ in SNR.
    """

    takes_level: bool = False  # whether its network keeps features from level to level; see `FeatureCache`

    def __init__(
        self,
        process: Process,
        parameterization: Parameterization,
        backbone: nn.Module,
        noise_condition: NoiseCondition | None = None,
    ) -> None:
        super().__init__()
        parameterization.check(process)
        self.noise_condition = noise_condition or parameterization.noise_condition(process)
        self.noise_condition.check(process)
        self.learned_variance = getattr(backbone, "learned_variance", False)
        if self.learned_variance and process.basis.shape:
            problem = f"learned_variance is a variance of pixels, and the modes of {process!r} differ in noise level."
            raise ParameterError("backbone", f"{problem} Leave learned_variance out.")
        self.process, self.parameterization, self.backbone = process, parameterization, backbone
        self.shape = getattr(backbone, "shape", None)
        if type(self) is NeuralDenoiser:  # a subclass need not call it
            check_network(backbone)
        self.conditions = conditions_of(backbone)
        self.required = {condition.name: "this model" for condition in self.conditions or () if condition.required}

    def with_backbone(self, backbone: nn.Module) -> NeuralDenoiser:
        """The same model with another network."""
        twin = type(self)(self.process, self.parameterization, backbone, self.noise_condition)
        twin._copy_interface(self)  # a wrapper for several processes has no such attributes
        return twin

    def with_networks(self, wrap: Callable[[nn.Module], nn.Module]) -> NeuralDenoiser:
        """See `Denoiser.with_networks`."""
        twin = copy.copy(self)
        network = wrap(self.backbone)
        twin.__dict__["_modules"] = {**self._modules, "backbone": network}
        twin.takes_level = getattr(network, "takes_level", False)
        return twin

    def output(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The quantity a x0 + b eps as the network predicts it, (B, *modes), in the dtype of u."""
        return self.network_output(u, level, **cond)[0]

    def network_output(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same quantity, and `Prediction.variance_interpolation`, (B, *modes), or None, from one evaluation."""
        return self._evaluate(self._factors(level, u), u, level, cond)

    def _evaluate(
        self, factors: _Factors, u: Tensor, level: Level, cond: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        basis, variance, (c, input_scale, output_scale, _) = self.process.basis, None, factors
        try:
            state = u if input_scale is None else scale_by(input_scale, u)
            if self.takes_level:
                cond = {**cond, "_level": level}
            output = apply_network(self._modules["backbone"], basis, state, c, **cond)  # type: ignore[arg-type]
        except RuntimeError as error:
            if self.shape is not None and not isinstance(error, torch.OutOfMemoryError):
                # A convolutional network may take other sizes than its own; this one could not.
                require_own_shape(u.shape[1:], self.shape)
            raise
        if self.learned_variance or output.shape != u.shape:
            channels = [2 * count if self.learned_variance else count for count in u.shape[1:2]]
            require_shape("backbone", "predictions", output.shape, (len(u), *channels, *u.shape[2:]))
        if self.learned_variance:
            output, v = output.chunk(2, dim=1)
            variance = (1 + v) / 2
        output = basis.forward(output)
        return output if output_scale is None else scale_by(output_scale, output), variance

    def _factors(self, level: Level, u: Tensor) -> _Factors:
        """The factors at a level; those of a grid are made together, as long as the states are of one kind."""
        if (place := level.place) is not None:
            grid, number = place
            kind, rows, _ = grid.made.get(id(self)) or self._on_grid(grid, u)
            if kind == self._kind(u) and grid.levels[number] is level:
                factors: _Factors = rows[number]
                if factors[0]._version == 0:  # else the network has written into it
                    return factors
        return self.noise_condition.batch(level, u), *self._around(level), None

    def _on_grid(self, grid: Levels, u: Tensor) -> tuple[Any, ...]:
        """For states of one kind the factors at all levels; of none where they would be too many."""
        if u.shape[0] * len(grid.levels) > _TOGETHER:
            return None, (), self
        kind = self._kind(u)
        # They last longer than the run unless a part is not of this package, and may change in between.
        own = is_own(self, self.process, self.parameterization, self.noise_condition) and "scales" not in vars(self)
        lasting = grid.lasting if own else {}
        found = lasting.get(self)
        if found is None or found[0] != kind:
            levels, plain = grid.levels, type(self.parameterization).solve is Parameterization.solve
            inverse = map(self.parameterization.inverse, levels) if plain else repeat(None)
            conditions = self.noise_condition.batches(levels, u)
            with torch.inference_mode(False):
                found = lasting[self] = kind, torch.stack([*conditions]), [*zip(map(self._around, levels), inverse)]
        with torch.inference_mode(False):  # which has no versions
            conditions = found[1].clone().unbind()  # a network may write into them, so that each run has its own
        rows = [(c, *around, last) for c, (around, last) in zip(conditions, found[2])]
        made = grid.made[id(self)] = (kind, rows, self)  # whose id is the key: it must live as long
        return made

    def _kind(self, u: Tensor) -> tuple[Any, ...]:
        return u.shape[0], u.dtype, u.device, self.parameterization, self.noise_condition

    def _around(self, level: Level) -> tuple[Scale | None, Scale | None]:
        return tuple(None if is_one(factor) else factor for factor in self.scales(level))  # type: ignore[return-value]

    def scales(self, level: Level) -> tuple[Scale, Scale]:
        """The factors of the network's input and output; both 1 of a network that is `unscaled`."""
        unscaled, parameterization = getattr(self.backbone, "unscaled", False), self.parameterization
        input_scale = 1.0 if unscaled or self.process.basis.shape else 1 / parameterization.input_scale(level)
        return input_scale, 1.0 if unscaled else parameterization.scale(level)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state; see `Denoiser.forward`."""
        if type(self).network_output is not NeuralDenoiser.network_output:
            output, variance = self.network_output(u, level, **cond)
            return self.parameterization.solve(output, u, level, variance)
        factors = self._factors(level, u)
        output, variance = self._evaluate(factors, u, level, cond)
        if (inverse := factors[-1]) is not None:
            return Prediction.from_inverse(output, u, level, inverse, variance)
        return self.parameterization.solve(output, u, level, variance)


class Counted(Denoiser):
    """A denoiser that counts its evaluations: the number of function evaluations of a solver.

    Args:
        denoiser: The denoiser to count.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self._calls = [0]  # in a list, because setting an attribute of an nn.Module costs as much as a sampling step

    @property
    def nfe(self) -> int:
        """Calls so far."""
        return self._calls[0]

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        self._calls[0] += 1
        prediction: Prediction = self.denoiser(u, level, **cond)
        return prediction
