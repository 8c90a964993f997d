"""Drawing samples from several trained runs, each conditioned on the samples of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from unidiff import plot
from unidiff.arguments import PlainArguments
from unidiff.cascade import Cascade, Stage
from unidiff.conditioning.base import Conditioning, Examples
from unidiff.conditioning.identity import Identity
from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, RunError, require, require_whole
from unidiff.grid import Grid
from unidiff.guidance.base import check_scale
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.run.directory import RunDirectory
from unidiff.run.environment import environment
from unidiff.run.load import LoadOptions, draw
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.task import Reporter
from unidiff.solver.base import Solver
from unidiff.solver.sample import Sampling, Solution
from unidiff.split import Split, check_time
from unidiff.tasks.conditioned import chosen_conditions
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.tasks.sample_conditions import PARAMETERS, SampleConditions
from unidiff.text import count_of

__all__ = ["CascadeSampling", "Refiner", "RunStage", "StageSection"]


@dataclass(frozen=True)
class Refiner:
    """The section of a stage about the model below a time; see `Split`.

    Args:
        run: Directory of its run, of the process and the conditions of the stage's own run.
        t: The time, from 0 to 1.
        digest: Of its recipe and weights, filled in when samples are drawn: the saved recipe accepts no others.
    """

    run: Path
    t: float = 0.2
    digest: str | None = None

    def __post_init__(self) -> None:
        check_time(self.t)


@dataclass(frozen=True)
class StageSection(PlainArguments):
    """One stage in a recipe.

    Args:
        run: Directory of a run that was trained before.
        solver: The method; null for that of the run.
        grid: The times; null for those of the run, or for the default if `solver` is given.
        conditioning: Makes conditions of the samples of the stage before; null for the run's own, as in training.
        condition: The condition that the samples of the stage before become as they are, as a prior's become the
            `embedding` of a decoder; short for `conditioning: {type: Identity, name: embedding}`.
        guidance: Scale of classifier-free guidance; null for none.
        refiner: Another run, for small times; null for none.
        digest: Of its recipe and weights, filled in when samples are drawn: the saved recipe accepts no others.
    """

    run: Path
    solver: Solver | None = None
    grid: Grid | None = None
    conditioning: Conditioning | None = None
    condition: str | None = None
    guidance: float | None = None
    refiner: Refiner | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.condition is not None and self.conditioning is not None:
            raise ParameterError("condition", "`conditioning` makes the condition already. Leave one of them out.")
        if self.condition is not None:
            try:
                Identity(self.condition)
            except ParameterError as error:
                raise ParameterError("condition", error.problem) from error
        if self.guidance is not None:
            try:
                check_scale(self.guidance)
            except ParameterError as error:
                raise ParameterError("guidance", error.problem) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class RunStage(Stage):
    """A stage that is a trained run: its samples are decoded, its arithmetic is that of its training.

    Args:
        data: The training data of the run.
        precision: Number format of the network's arithmetic.
    """

    data: Dataset
    precision: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of decoded samples."""
        return self.data.decoded_shape

    def draw(self, seeds: Sequence[int], **options: Any) -> Solution:
        """See `Stage.draw`; the device is that of the model."""
        del options["dtype"], options["device"]
        sampling = Sampling(*self.chosen, len(seeds), options.pop("batch") or len(seeds))
        return draw(self.denoiser, sampling, self.data, self.precision, seeds=seeds, **options)


@dataclass(frozen=True, kw_only=True, repr=False)
class CascadeSampling(ResultsTask):
    """Draw samples from a cascade of runs. Its parameters are the top-level keys of the recipe.

    Args:
        stages: The runs, first to last.
        classes: Classes, by number or by name, which samples take in turn, for the stages with labels; empty for none.
        images: Images to condition on, which samples take in turn, for a stage that is conditioned on images and does
            not get them from the stage before; empty for none.
        mask: The pixels that an inpainting model fills in, white; with `images`.
        cond: Conditions of other names, each for the stages that have it: a number or a list, or the words of a
            caption; or a list of such values, which samples take in turn.
        count: Number of samples, at least 1.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
    """

    stages: tuple[StageSection, ...]
    classes: tuple[int | str, ...] = ()
    images: tuple[Path, ...] = ()
    mask: Path | None = None
    cond: dict[str, Any] = field(default_factory=dict)
    count: int = 64
    batch: int = 256
    seed: int = 0

    key: ClassVar[str] = "stages"
    noun: ClassVar[str] = "the sampling of a cascade"
    results: ClassVar[str] = "cascade"
    files: ClassVar[tuple[str, ...]] = "recipe.yaml", "samples.npy", "samples.png", "stages.png", "manifest.json"

    def __post_init__(self) -> None:
        require(len(self.stages) > 0, "stages", [], "a list of at least one stage")
        for name in self.classes:
            if not isinstance(name, str):
                require_whole("classes", name, 0, 1_000_000)
        self._chosen.require_once()
        if self.mask is not None and not self.images:
            raise ParameterError("mask", "a mask needs an image. Pass the image with `images`.")
        Sampling(count=self.count, batch=self.batch, seed=self.seed)

    def compute(self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool) -> ResultsOutcome:
        """Read the runs, draw and write; see `ResultsTask.compute`.

        Raises:
            RunError: If a run is missing, or not the one that a digest names.
            ParameterError: If the stages do not fit each other.
        """
        chain, pinned = self._read(reporter, device, allow_imports)

        def progress(done: int, total: int) -> None:
            reporter.progress("sample", done, total)

        seeds = range(self.seed, self.seed + self.count)
        solution = chain.sample(seeds, progress=progress, device=device, batch=self.batch)
        stages = [stage.x.cpu() for stage in solution.stages]
        nfe = [stage.nfe for stage in solution.stages]
        content = {"recipe": pinned.to_dict(), "nfe": nfe, "device": str(device), "environment": environment()}
        names = [RunDirectory(section.run).name for section in self.stages]
        caption = f"{directory.absolute().name}: {', then '.join(names)}. Seeds from {self.seed}."
        recipe, array, samples, table, _ = self.files
        with self.written(directory, content) as folder:
            (folder / recipe).write_text(pinned.to_yaml())
            np.save(folder / array, stages[-1].numpy())
            plot.save_samples(stages[-1], folder / samples, caption)
            plot.save_table([[(x, "") for x in stages]], [""], names, folder / table, caption)
        rows = [
            f"{name:>20}  {count_of(n, 'evaluation')}, samples {tuple(x.shape[1:])}"
            for name, n, x in zip(names, nfe, stages)
        ]
        return ResultsOutcome(directory, content, self.files, "\n".join(rows))

    def check_named(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
        """The runs, and whether they fit each other; see `Task.check_named`."""
        self._read(reporter, device, allow_imports)

    @property
    def builds_on(self) -> tuple[Path, ...]:
        """The runs of the stages and their refiners; see `Task.builds_on`."""
        refiners = (section.refiner.run for section in self.stages if section.refiner is not None)
        return (*(section.run for section in self.stages), *refiners)

    def _read(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> tuple[Cascade, CascadeSampling]:
        """The models with the conditions of their samples, all checked, and this recipe with their digests."""
        loading = LoadOptions(device=str(device), allow_imports=allow_imports, report=reporter.notice)
        made = [self._stage(number, loading) for number in range(len(self.stages))]
        pinned = replace(self, stages=tuple(section for _, section, _ in made))
        chain = Cascade([stage for stage, _, _ in made])
        keys = {name: key for name, key in PARAMETERS.items() if getattr(self, key)}
        keys |= {name: f"cond.{name}" for name in self.cond}
        takers = {name: chain.takers(name) for name in keys}
        for name, key in keys.items():
            if not takers[name]:
                problem = f"no stage takes a condition {name!r} from outside the cascade. Leave it out."
                raise ParameterError(key, problem)
        stages = []
        for number, (stage, _, run) in enumerate(made):
            others = [key for name, key in keys.items() if number not in takers[name]]
            cond = {name: value for name, value in self.cond.items() if f"cond.{name}" not in others}
            part = replace(self._chosen, cond=cond)
            part = replace(part, classes=()) if "classes" in others else part
            part = replace(part, images=()) if "images" in others else part
            rows = Examples(chosen_conditions(run, part, reporter.notice)).in_turn(self.count)
            stages.append(replace(stage, cond=rows.cond))
        chain = Cascade(stages)
        try:
            chain.check(self.count)
        except ParameterError as error:  # about a condition, which goes by the name of its key
            known = {own.name: f"cond.{own.name}" for stage in stages for own in stage.denoiser.conditions or ()}
            key = {**known, **PARAMETERS, **keys}.get(error.parameter, error.parameter)
            raise ParameterError(key, error.problem) from error
        return chain, pinned

    @property
    def _chosen(self) -> SampleConditions:
        return SampleConditions(classes=self.classes, images=self.images, mask=self.mask, cond=self.cond)

    def _stage(self, number: int, loading: LoadOptions) -> tuple[RunStage, StageSection, GenerationRun]:
        """A stage, its section with the digests of what was loaded, and its run."""
        section, where = self.stages[number], f"stages[{number}]"
        run, digest = _loaded(section.run, section.digest, loading)
        model: Denoiser = run.denoiser
        if (part := section.refiner) is not None:
            refiner, theirs = _loaded(part.run, part.digest, loading)
            section = replace(section, refiner=replace(part, digest=theirs))
            try:
                model = Split(model, refiner.denoiser, part.t)
            except ParameterError as error:
                raise RunError(f"{where}.refiner: {part.run}: {error.problem}") from error
        own = run.recipe.conditions()
        if section.guidance is not None:
            if own is not None and own.dropout == 0:
                problem = f"{section.run} was trained with dropout 0, so it has no unconditional prediction"
                raise RunError(f"{where}.guidance: {problem}. Leave it out.")
            try:
                model = ClassifierFree(model, section.guidance)
            except ParameterError as error:
                raise RunError(f"{where}.guidance: {error.problem}. Leave it out.") from error
        sampling = run.recipe.sampling
        conditioning = section.conditioning if section.condition is None else Identity(section.condition)
        stage = RunStage(
            sampling.accelerated(model),
            section.solver or sampling.solver,
            section.grid or (sampling.grid if section.solver is None else None),
            conditioning or (own if number else None),
            data=run.recipe.data,
            precision=run.precision,
        )
        return stage, replace(section, digest=digest), run


def _loaded(directory: Path, expected: str | None, loading: LoadOptions) -> tuple[GenerationRun, str]:
    """A run, and the digest of its recipe and its weights.

    Raises:
        RunError: If the digest is another one than expected.
    """
    run = load_generation(directory, **loading)
    found = run.digest
    if expected not in (None, found):
        problem = f"the run has changed since the cascade was drawn ({expected}, now {found})"
        raise RunError(f"{directory}: {problem}. Restore it, or remove `digest` from the recipe.")
    return run, found
