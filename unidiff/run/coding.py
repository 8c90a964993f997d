"""The recipe of a codec, for diffusion in its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unidiff.codec.autoencoders import AutoencoderConfig
from unidiff.codec.codec import TrainableAutoencoder
from unidiff.codec.objective import CodecObjective
from unidiff.data.base import Dataset
from unidiff.errors import DataError, ParameterError, RecipeError, require_whole
from unidiff.recipe.recipe import inside, read_recipe
from unidiff.recipe.record import Record
from unidiff.recipe.shipped import recipe_command
from unidiff.training.settings import Training

__all__ = ["Coding", "load_coding"]


@dataclass(frozen=True, kw_only=True)
class Coding(Record):
    """What codec to train. Its parameters are the top-level keys of the recipe of a codec.

    Args:
        data: Pictures to learn from.
        codec: The network.
        objective: What training minimises; null is what the codec's own kind is trained with.
        training: How it is trained.
        seed: Seed of the weights and of the training noise, at least 0.
        lighter: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    codec: AutoencoderConfig
    objective: CodecObjective | None = None
    training: Training
    seed: int = 0
    lighter: str | None = None

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        try:
            shape = self.data.shape
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        if len(shape) != 3 or self.data.coded:
            what = f"{self.data} was given, whose samples have shape {list(shape)}"
            raise ParameterError("data", f"{what}; a codec is trained on pictures, (C, H, W).")
        if self.objective is None:
            object.__setattr__(self, "objective", self.codec.objective)
        assert self.objective is not None
        self.objective.check(type(self.codec).__name__)
        with inside("training", self.training):
            self.training.check(self.objective)
        try:
            _ = self.latent_shape
        except (DataError, ValueError, TypeError) as error:
            problem = error.problem if isinstance(error, ParameterError) else str(error)
            raise ParameterError("codec", problem) from error

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of a latent, (c, h, w)."""
        return self.codec.sketch(self.data.shape[0]).layout.latent_shape(self.data.shape)

    @property
    def conditioning(self) -> None:
        """None: a codec is told nothing."""
        return

    @property
    def classes(self) -> None:
        """None: a codec knows no classes."""
        return

    def model(self) -> TrainableAutoencoder:
        """The codec with fresh weights."""
        return TrainableAutoencoder(self.codec.build(self.data.shape[0]), self.latent_shape)

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return sum(parameter.numel() for parameter in self.codec.sketch(self.data.shape[0]).parameters())


def load_coding(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Coding:
    """Read the recipe of a codec and check all of it; no data is read and no weight is made.

    Args:
        source: A path, or the name of a shipped recipe such as "vae_digits".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    if recipe_command(source) != "code":
        raise RecipeError(f"{source}: this recipe has no `codec` at its top, so it trains none.")
    coding: Coding = read_recipe(Coding, source, overrides, allow_imports=allow_imports)
    return coding
