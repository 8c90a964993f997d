"""The recipe of a classifier of noisy states, for classifier guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unidiff.backbone.encoder import Encoder
from unidiff.classifier import NeuralClassifier
from unidiff.conditioning.labels import Labels
from unidiff.data.base import Dataset
from unidiff.errors import DataError, ParameterError, RecipeError, require_whole
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.recipe import inside, read_recipe
from unidiff.recipe.record import Record
from unidiff.recipe.shipped import recipe_command
from unidiff.training.settings import Training

__all__ = ["Classifying", "load_classifying"]


@dataclass(frozen=True, kw_only=True)
class Classifying(Record):
    """What classifier to train. Its parameters are the top-level keys of the recipe of a classifier.

    Args:
        data: What to learn from; data with labels.
        process: How data become noise: that of the model which is to be guided.
        classifier: The network, not built yet. It gets its `classes`, as many as the data have.
        training: How it is trained.
        seed: Seed of the weights and of the training noise, at least 0.
        lighter: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    process: Process
    classifier: Blueprint[Encoder]
    training: Training
    seed: int = 0
    lighter: str | None = None

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        try:
            modes, shape = self.process.basis.shape, self.data.shape
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        if modes and modes != shape[-len(modes) :]:
            problem = f"{list(modes)} was given; the samples of {self.data} have shape {list(shape)}."
            raise ParameterError("process.shape", f"{problem} Write {list(shape[-len(modes) :])}.")
        try:
            given = self.classifier.arguments
            needed = self.conditioning.network(self.data, given)
        except ParameterError as error:
            raise ParameterError(error.parameter.replace("backbone", "classifier"), error.problem) from error
        object.__setattr__(self, "classifier", Blueprint(self.classifier.kind, {**given, **needed}))
        with inside("classifier", self.classifier):
            try:
                self.count_weights()
            except ParameterError as error:
                if error.parameter != "shape":
                    raise
                raise ParameterError("classifier", f"it cannot take the samples of {self.data}: {error}") from error

    @property
    def conditioning(self) -> Labels:
        """The labels, all of them: they are what is to be found out."""
        return Labels(dropout=0.0)

    @property
    def objective(self) -> CrossEntropy:
        """What training minimises."""
        return CrossEntropy()

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        found: int | None = self.classifier.arguments.get("classes")
        return found

    def model(self, process: Process) -> NeuralClassifier:
        """The classifier with fresh weights, of the process as fitted to the data."""
        return NeuralClassifier(process, self.classifier.build(shape=self.data.shape))

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return self.classifier.count(shape=self.data.shape)


def load_classifying(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Classifying:
    """Read the recipe of a classifier and check all of it; no data is read and no weight is made.

    Args:
        source: A path, or the name of a shipped recipe such as "classifier_digits_noisy".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    if recipe_command(source) != "classify":
        raise RecipeError(f"{source}: this recipe has no `classifier`, so it trains none.")
    classifying: Classifying = read_recipe(Classifying, source, overrides, allow_imports=allow_imports)
    return classifying
