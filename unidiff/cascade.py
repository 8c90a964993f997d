"""Samplers of several models: each stage is conditioned on the samples of the one before.

p(x_1, ..., x_K) = p(x_1) p(x_2 | x_1) ... p(x_K | x_(K-1)): cascaded diffusion (Ho et al. 2022), a prior and its
decoder (Ramesh et al. 2022), both from memory. Each is a model of its own, with any process, solver and grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.batching import Progress
from unidiff.condition.check import check_conditions
from unidiff.conditioning.base import Conditioning
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.grid import Grid
from unidiff.noise import seeds_of
from unidiff.solver.base import Solver
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.gradients import gradients
from unidiff.solver.sample import DEFAULT_SOLVER, Solution, draw_samples
from unidiff.solver.spec import solver_and_grid

__all__ = ["Cascade", "CascadeSolution", "Stage"]

_APART = 2**28  # between the seeds of two stages; below 2^32 a seed is cheap


@dataclass(frozen=True, eq=False)
class Stage(PlainArguments):
    """One model of a `Cascade`, and how it is sampled.

    Args:
        denoiser: The model; guided, or a `Split`, perhaps.
        solver: The method, or its name, as for `unidiff.sample`: "ddim:0.5@karras".
        grid: The times, the name of a grid, or a number of steps; by default those of `unidiff.sample`.
        conditioning: Makes conditions of the samples of the stage before; None for the first stage, which has none.
        cond: Conditions of this stage alone, by name: one row, or (B, ...).
    """

    denoiser: Denoiser
    solver: Solver | str = DEFAULT_SOLVER
    grid: Grid | str | int | None = None
    conditioning: Conditioning | None = None
    cond: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def chosen(self) -> tuple[Solver, Grid]:
        """The solver and the grid; a ParameterError if a name is unknown."""
        return solver_and_grid(self.denoiser.process, self.solver, self.grid)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one sample that the next stage is conditioned on, without the batch axis; None if unknown."""
        return self.denoiser.shape

    def check(self) -> None:
        """Raise a ParameterError if the solver or the grid is not defined on the model's process."""
        for part in self.chosen:
            part.check(self.denoiser.process)

    def draw(self, seeds: Sequence[int], **options: Any) -> Solution:
        """Samples of these seeds; the options are those of `unidiff.sample`, conditions too."""
        return draw_samples(self.denoiser, self.solver, self.grid, seeds=seeds, **options)

    def accepts(self, name: str) -> bool:
        """Whether the model has a condition of this name, or takes any."""
        conditions = self.denoiser.conditions
        return conditions is None or any(condition.name == name for condition in conditions)

    def remedy(self, before: Sequence[int]) -> str:
        """The condition that samples of another shape can be as they are, in a sentence; empty if there is none."""
        for condition in self.denoiser.conditions or ():
            with suppress(ParameterError):
                condition.check(torch.zeros(1, *before), 1)
                use = f"Identity({condition.name!r}), or write `condition: {condition.name}` in a recipe"
                return f". To condition on them as they are, use {use}."
        return ""

    def conditions(self, x: Tensor, hashes: Sequence[np.random.SeedSequence]) -> dict[str, Tensor]:
        """The conditions made of samples of the stage before, (B, ...), with uniform numbers from these hashes.

        Raises:
            ParameterError: If the conditioning cannot be made of such samples.
        """
        assert self.conditioning is not None
        assert self.shape is not None
        uniform = np.ones((len(x), self.conditioning.draws))  # 1 drops no condition
        for row, own in zip(uniform, hashes):
            row[1:] = (own.generate_state(len(row) - 1, np.uint64) >> np.uint64(11)) * 2.0**-53
        uniform[:, list(self.conditioning.dropout_draws)] = 1.0
        return self.conditioning.from_samples(x, tuple(self.shape), torch.from_numpy(uniform))


@dataclass(frozen=True)
class CascadeSolution:
    """The result of a cascade.

    Attributes:
        stages: The result of each stage, first to last.
    """

    stages: tuple[Solution, ...]

    @property
    def x(self) -> Tensor:
        """Samples of the last stage, (B, *shape)."""
        return self.stages[-1].x

    @property
    def nfe(self) -> int:
        """Evaluations per sample, those of all stages together."""
        return sum(solution.nfe for solution in self.stages)


@dataclass(frozen=True, eq=False)
class Cascade(PlainArguments):
    """Models in a row, each conditioned on the samples of the one before.

    With exact conditional models the last samples are those of p(x_K). With a first stage whose covariance is off by D,
    and an exact linear-Gaussian upsampler of gain K, their covariance is off by K D K': conditioning augmentation
    (`SuperResolution(noise=s)`, `Identity(noise=s)`) makes K smaller, and so the error.

    Args:
        stages: The models, first to last; every one but the first has a conditioning.

    Raises:
        ParameterError: If the stages do not fit each other: shapes, a conditioning that is missing, or one that makes
            conditions which the model does not have.
    """

    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        require(len(self.stages) > 0, "stages", [], "a list of at least one stage")
        for number, stage in enumerate(self.stages):
            where = f"stages[{number}]"
            if stage.shape is None:
                raise ParameterError(where, "this model has no sample shape of its own; set its attribute `shape`.")
            with_conditioning = stage.conditioning is not None
            if with_conditioning != (number > 0):
                problem = "the first stage has none before it; leave `conditioning` out."
                remedy = "it needs a `conditioning` made of the samples before, such as SuperResolution or Identity."
                raise ParameterError(where, problem if with_conditioning else remedy)
            try:
                stage.check()
            except ParameterError as error:
                raise ParameterError(where, str(error)) from error
        self._made(1)

    def _made(self, count: int) -> list[dict[str, Tensor]]:
        """The conditions that each stage will get from the one before, of zeros in place of samples."""
        made: list[dict[str, Tensor]] = [{}]
        for number, (before, stage) in enumerate(zip(self.stages, self.stages[1:]), start=1):
            where = f"stages[{number}]"
            assert before.shape is not None
            try:
                cond = stage.conditions(torch.zeros(1, *before.shape), [np.random.SeedSequence(0)])
            except ParameterError as error:
                raise ParameterError(where, f"{error}{stage.remedy(before.shape)}") from error
            if not cond:
                raise ParameterError(where, f"{stage.conditioning!r} makes no condition of the samples before.")
            if wrong := [name for name in cond if not stage.accepts(name)]:
                names = " and ".join(condition.name for condition in stage.denoiser.conditions or ()) or "none"
                problem = f"{stage.conditioning!r} makes the condition {wrong[0]!r}, and the model's are: {names}."
                raise ParameterError(where, problem)
            made.append({name: value.expand(count, *value.shape[1:]) for name, value in cond.items()})
        return made

    def takers(self, name: str) -> list[int]:
        """The stages, from 0, whose model has a condition of this name that the stage before does not make."""
        pairs = enumerate(zip(self.stages, self._made(1)))
        return [number for number, (stage, made) in pairs if stage.accepts(name) and name not in made]

    def _given(self, cond: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
        """The user's conditions of each stage: those that its model has and the stage before does not make."""
        given = []
        for number, (stage, made) in enumerate(zip(self.stages, self._made(count))):
            given.append({name: cond[name] for name in cond if stage.accepts(name) and name not in made})
            if twice := sorted(stage.cond.keys() & (given[-1].keys() | made.keys())):
                problem = "it is passed to the cascade, or made by the stage before, too. Leave one of them out."
                raise ParameterError(f"stages[{number}].cond.{twice[0]}", problem)
            for name, value in stage.cond.items():
                row = isinstance(value, Tensor) and value.shape[:1] == (1,)
                given[-1][name] = value.expand(count, *value.shape[1:]) if row else value
            try:
                check_conditions({**made, **given[-1]}, stage.denoiser, count, "cpu")
            except ParameterError as error:
                raise ParameterError(error.parameter, f"{error.problem} (stages[{number}])") from error
        if unused := [name for name in cond if not self.takers(name)]:
            raise ParameterError(min(unused), "no stage takes a condition of this name from outside the cascade")
        return given

    def check(self, count: int = 1, **cond: Tensor) -> None:
        """Raise a ParameterError unless every stage has all the conditions that it needs, with these ones given.

        Args:
            count: Number of samples, B.
            **cond: Conditions, each (B, ...), as in `sample`.
        """
        self._given(cond, count)

    @plain_arguments
    def sample(
        self,
        seeds: int | Sequence[int] = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        batch: int | None = None,
        grad: bool = False,
        progress: Progress | bool | None = None,
        **cond: Tensor,
    ) -> CascadeSolution:
        """Draw samples, stage by stage; see `unidiff.sample`.

        Args:
            seeds: One seed per sample; a number n stands for 0, ..., n - 1. The first stage draws the samples that
                `unidiff.sample` draws with them. Each stage has its own random numbers, which depend on the seed and
                the number of the stage alone.
            dtype: Floating type of the states.
            device: Where the states live; the models must be there too.
            batch: Samples drawn together; all of them if not given. It bounds the memory and changes no sample.
            grad: Whether samples can be differentiated, through all stages, in the models' parameters and the
                conditions; see `unidiff.sample`.
            progress: Called with (done, total) after each step, over all stages; True draws a bar.
            **cond: Conditions, each (B, ...), passed to every stage whose model has one of this name.

        Raises:
            ParameterError: Before anything is drawn, if a condition is missing, or no model has it, or gradients are
                asked for that do not exist.
        """
        seeds = seeds_of(seeds)
        given = self._given(cond, len(seeds))
        with gradients(grad, *(stage.denoiser for stage in self.stages)):
            options = {"dtype": dtype, "device": device, "batch": batch, "grad": grad}
            solution = CascadeSolution(tuple(self._drawn(seeds, given, progress, options)))
        warn_if_not_finite(solution.x)
        return solution

    def _drawn(
        self,
        seeds: Sequence[int],
        given: list[dict[str, Tensor]],
        progress: Progress | bool | None,
        options: dict[str, Any],
    ) -> list[Solution]:
        """The result of each stage, given the user's conditions of each."""
        solutions: list[Solution] = []
        for number, stage in enumerate(self.stages):

            def report(done: int, total: int, before: int = number) -> None:
                if callable(progress):
                    progress(before * total + done, len(self.stages) * total)

            made: dict[str, Tensor] = {}
            if number:
                hashes = [np.random.SeedSequence(seed, spawn_key=(number,)) for seed in seeds]
                made = stage.conditions(solutions[-1].x, hashes)
            # One to one in the seed: no two samples of a stage share a stream, and no two stages of a sample.
            own = [(seed + number * _APART) % 2**64 for seed in seeds]
            solutions.append(stage.draw(own, progress=report, **options, **made, **given[number]))
        return solutions
