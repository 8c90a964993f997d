"""The recipe of a run: which parts, and a check that they fit, before any data is read or weight is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidiff.backbone.base import Backbone
from unidiff.conditioning.base import Conditioning
from unidiff.data.base import Dataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import DataError, ParameterError, RecipeError, require_whole
from unidiff.objective.base import Objective
from unidiff.objective.denoising import Denoising
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.build import Builder
from unidiff.recipe.overrides import apply_overrides
from unidiff.recipe.record import Record
from unidiff.recipe.registry import PUBLIC, Registry, is_component
from unidiff.recipe.schema import parameters
from unidiff.recipe.shipped import read_source, recipe_command
from unidiff.recipe.yaml_tree import read_yaml
from unidiff.sampling import Sampling
from unidiff.training.settings import Training

__all__ = ["Recipe", "inside", "load_recipe", "read_recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    """Everything that decides a run. Its parameters are the top-level keys of a recipe file.

    Args:
        data: What to learn from.
        process: How data become noise.
        parameterization: What the network predicts.
        backbone: The network, not built yet; `recipe.backbone.build(shape=recipe.data.shape)` makes it.
        conditioning: What the network is told of the data, such as Labels or SuperResolution; null for an unconditional
            model. It gives the network its `classes` or `image`.
        objective: What training minimises.
        training: How it is trained.
        sampling: How samples are drawn.
        seed: Seed of the weights and of the training noise, at least 0.
        lighter: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    process: Process
    parameterization: Parameterization
    backbone: Blueprint[Backbone]
    conditioning: Conditioning | None = None
    objective: Objective = field(default_factory=Denoising)
    training: Training
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    lighter: str | None = None

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        for part in ("parameterization", "objective", "sampling"):
            check = getattr(getattr(self, part), "check", None)
            if check is not None:
                with inside(part, getattr(self, part)):
                    check(self.process)
        with inside("training", self.training):
            self.training.check(self.objective)
        try:
            _ = self.data.shape  # an array file is looked at here, and may not be what it should
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        modes, shape = self.process.basis.shape, self.data.shape
        if modes and modes != shape[-len(modes) :]:
            problem = f"{list(modes)} was given; the samples of {self.data} have shape {list(shape)}."
            raise ParameterError("process.shape", f"{problem} Write {list(shape[-len(modes) :])}.")
        self._condition()
        self._check_variance()
        with inside("backbone", self.backbone):
            try:
                self.count_weights()
            except ParameterError as error:
                if error.parameter != "shape":
                    raise
                raise ParameterError("backbone", f"it cannot take the samples of {self.data}: {error}") from error
            except (ValueError, TypeError, RuntimeError) as error:
                raise ParameterError("backbone", f"{self.backbone} cannot be made: {error}") from error

    def _condition(self) -> None:
        """Give the network the arguments by which it knows its conditions, so that the saved recipe has them."""
        given = self.backbone.arguments
        needed = {} if self.conditioning is None else self.conditioning.network(self.data, given)
        if given.get("classes") is not None and "classes" not in needed:
            problem = "nothing would tell the network which class a sample has. Add `conditioning: labels`."
            raise ParameterError("backbone.classes", problem)
        if given.get("image") is not None and "image" not in needed:
            problem = "nothing would show the network an image. Add a `conditioning` that does, or leave it out."
            raise ParameterError("backbone.image", problem)
        object.__setattr__(self, "backbone", Blueprint(self.backbone.kind, {**given, **needed}))

    def _check_variance(self) -> None:
        """Refuse a variance that the network predicts and nothing trains, or the other way round."""
        learned = bool(self.backbone.arguments.get("learned_variance"))
        if learned and not self.objective.learns_variance:
            problem = f"{type(self.objective).__name__} would not train it. Write `objective: hybrid`, or leave it out."
            raise ParameterError("backbone.learned_variance", problem)
        if self.objective.learns_variance and not learned:
            problem = "it trains a variance, which the network does not predict. Write `learned_variance: true` there."
            raise ParameterError("objective", problem)

    @property
    def classes(self) -> int | None:
        """Number of classes that the model can be asked for; None for an unconditional one."""
        found: int | None = self.backbone.arguments.get("classes")
        return found

    def model(self, process: Process) -> NeuralDenoiser:
        """The model with fresh weights, of the process as fitted to the data."""
        return NeuralDenoiser(process, self.parameterization, self.backbone.build(shape=self.data.shape))

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return self.backbone.count(shape=self.data.shape)


@contextmanager
def inside(part: str, value: Any) -> Iterator[None]:
    """Put the path of a part in front of the parameter that it complains about."""
    try:
        yield
    except ParameterError as error:
        if path := _path_to(error.parameter, value):
            raise ParameterError(f"{part}.{path}", error.problem) from error
        problem = error.problem if error.parameter == part else str(error)
        raise ParameterError(part, problem) from error


def _path_to(parameter: str, value: Any) -> str:
    """The path from a part to the one below it that has this parameter: `solver.step_size`; empty if none has."""
    known = parameters(value.kind if isinstance(value, Blueprint) else type(value))
    if parameter.split(".")[0] in known:
        return parameter
    for name in known:
        below = getattr(value, name, None)
        if is_component(type(below)) and (path := _path_to(parameter, below)):
            return f"{name}.{path}"
    return ""


def load_recipe(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Recipe:
    """Read a recipe and check all of it; no data is read and no weight is made.

    Args:
        source: A path, or the name of a shipped recipe such as "ncsn_digits".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML: "training.steps=20",
            "sampling.solver={type: DDIM, eta: 0}". Later ones win.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Returns:
        The recipe.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    command = recipe_command(source)
    if command == "compare":
        raise RecipeError(f"{source}: this recipe compares solvers and trains nothing: `unidiff compare {source}`.")
    if command == "classify":
        problem = "this recipe trains a classifier, which draws nothing"
        raise RecipeError(f"{source}: {problem}: `unidiff run {source}`, or unidiff.load_classifying.")
    if command == "code":
        problem = "this recipe trains a codec, which draws nothing"
        raise RecipeError(f"{source}: {problem}: `unidiff run {source}`, or unidiff.load_coding.")
    if command == "evolve":
        problem = "this recipe solves the renormalised heat equation and trains nothing"
        raise RecipeError(f"{source}: {problem}: `unidiff run {source}`, or unidiff.load_evolving.")
    recipe: Recipe = read_recipe(Recipe, source, overrides, allow_imports=allow_imports)
    return recipe


def read_recipe(
    cls: type,
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    registry: Registry = PUBLIC,
    allow_imports: bool = False,
) -> Any:
    """Read any record from a file, as `load_recipe` reads a Recipe."""
    overrides = [overrides] if isinstance(overrides, str) else overrides
    name, text = read_source(source)
    written = read_yaml(text, name)
    if written.value is None and not overrides:
        raise written.at.error("", "the recipe is empty.", parameters(cls))
    return Builder(registry, allow_imports, _home(Path(source))).record(cls, apply_overrides(written, overrides))


def _home(path: Path) -> Path | None:
    """The run directory that a recipe lies in; None for any other recipe."""
    run = path.parent
    beside = (run / "manifest.json").is_file() or (run / "checkpoints").is_dir()
    return run if path.name == "recipe.yaml" and path.is_file() and beside else None
