"""What diffusers has saved, in the place of a run directory: a model to sample, compare, edit, evaluate and tune."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unidiff.codec.codec import Autoencoder
from unidiff.codec.folder import codec_folder, load_codec, read_layout
from unidiff.conditioning.base import Examples
from unidiff.data.base import Dataset, OpenDataset
from unidiff.data.unavailable import Unavailable
from unidiff.denoiser import Denoiser
from unidiff.errors import RunError
from unidiff.files import digest, digest_of
from unidiff.grid import Grid
from unidiff.interop.diffusers.control import kept_controls
from unidiff.interop.diffusers.families import family_of
from unidiff.interop.diffusers.load import load, load_grid, network_folder
from unidiff.pretrained import local_folder, read_json
from unidiff.process.base import Process
from unidiff.recipe.read import read_recipe
from unidiff.recipe.save import Record
from unidiff.run.load import draw
from unidiff.run.records import DataFacts, Manifest
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.sample import Sampling, Solution
from unidiff.tasks.generation import Conditioned, GenerationRun
from unidiff.training.device import resolve_device

__all__ = ["PipelineImages", "PipelineLatents", "PipelineRecipe", "PipelineRun", "load_pipeline"]

_FEW = 4  # images of a model of text, unless another number is asked for
_STEPS = 50  # of the scheduler's own times, where these are used


@dataclass(frozen=True)
class PipelineImages(Unavailable):
    """The samples of a model of which nobody here knows what it was trained on.

    Args:
        folder: Where the model was saved, for messages.
    """

    folder: str = field(kw_only=True)

    @property
    def reason(self) -> str:
        """See `Unavailable.reason`."""
        problem = "this model does not tell what data it was trained on"
        return f"{self.folder}: {problem}. Use it from Python, with samples of your own."


@dataclass(frozen=True)
class PipelineLatents(PipelineImages):
    """The same, of a model of latents; the codec lies in the folder."""

    _network: list[Autoencoder] = field(default_factory=list, init=False, repr=False, compare=False)

    coded: ClassVar[bool] = True

    @property
    def decoded_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images."""
        layout = read_layout(codec_folder(self.folder))
        return (layout.channels, *(side * layout.factor for side in self.shape[1:]))

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Images, (B, C, H, W), of latents, (B, c, h, w)."""
        return self._codec(x).decode(x).to(x.dtype)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents, (B, c, h, w), of images, (B, C, H, W)."""
        return self._codec(x).encode(x).to(x.dtype)

    def _codec(self, x: Tensor) -> Autoencoder:
        """The codec, read once, on the device of `x`."""
        if not self._network:
            self._network.append(load_codec(self.folder))
        self._network[0] = self._network[0].to(x.device)
        return self._network[0]


@dataclass(frozen=True, kw_only=True)
class PipelineRecipe(Record):
    """What `--set` can replace of a saved model.

    Args:
        sampling: How samples are drawn.
        scheduler: Entries of the scheduler's config to replace, such as `scheduler.clip_sample=false`.
        size: Height and width of the images of a model of text; null for those it was trained on.
        lora: A LoRA file, whose changes are added to the weights of the network.
        lora_scale: Factor of these changes.
        control: ControlNets, folders or names on the hub, whose images are the conditions `control`, `control_2`, ...
        control_scale: Their scale, one for all or one for each; null for 1.
        refiner: A pipeline whose model takes over near the data; null for none.
        refiner_from: The share of noisy times, from 0 to 1, that is the refiner's; null for 0.2.
    """

    sampling: Sampling = field(default_factory=Sampling)
    scheduler: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    lora: str | None = None
    lora_scale: float = 1.0
    control: tuple[str, ...] = ()
    control_scale: tuple[float, ...] | None = None
    refiner: str | None = None
    refiner_from: float | None = None

    def options(self, folder: Path) -> dict[str, Any]:
        """The arguments of `load`.

        Raises:
            RunError: If a number has nothing to act on.
        """
        for name, there in (("control_scale", self.control or kept_controls(folder)), ("refiner_from", self.refiner)):
            if getattr(self, name) is not None and not there:
                raise RunError(f"{name}: {folder} has no {name.split('_')[0]} to use it for. Leave it out.")
        names = ("size", "lora", "lora_scale", "control", "refiner")
        chosen = {name: getattr(self, name) for name in ("control_scale", "refiner_from")}
        given = {name: value for name, value in chosen.items() if value is not None}
        return {"scheduler": self.scheduler or None, **{name: getattr(self, name) for name in names}, **given}


@dataclass(frozen=True)
class _Parts:
    """What commands ask of the recipe of a run."""

    data: Dataset
    process: Process
    sampling: Sampling
    classes: int | None
    own_grid: Callable[[int], Grid] | None = None
    noun: str = "a model saved by diffusers"

    def conditions(self) -> None:
        """None: how it was trained is not known."""
        return

    def drawn_with(self, solver: str | None, steps: int | None) -> _Parts:
        """See `Task.drawn_with`; the scheduler's own times are asked for anew for another number of steps."""
        sampling = self.sampling
        if steps is not None and self.own_grid is not None:
            sampling = dataclasses.replace(sampling, grid=self.own_grid(steps))
            steps = None if "@" not in (solver or "") else steps
        return dataclasses.replace(self, sampling=sampling.drawn_with(self.process, solver, steps))


@dataclass(frozen=True)
class PipelineRun(GenerationRun):
    """A model that diffusers has saved; see `GenerationRun`. What it was trained on, and for how long, is not known."""

    recipe: Any
    model: Any
    step: Any
    others: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """The digest of its network, of its scheduler's config, and of what is used with it."""
        folder, part = self.directory, network_folder(self.directory)
        files = sorted({*part.glob("*.json"), *part.glob("*.safetensors"), *folder.glob("scheduler/*.json")})
        files += [
            file
            for other in self.others
            for kind in ("json", "safetensors")
            for file in sorted(other.glob(f"*.{kind}"))
        ]
        return digest_of(digest(path).encode() for path in files)

    def sample(self, sampling: Sampling | None = None, **options: Any) -> Solution:
        """Draw samples, decoded; see `Run.sample`."""
        solution = draw(self.model, sampling or self.recipe.sampling, self.recipe.data, self.precision, **options)
        warn_if_not_finite(solution.x)
        return solution

    def own_conditions(self, source: OpenDataset, rows: Tensor) -> Examples:
        """The labels of the samples, of a model of classes."""
        _, label = source.examples(rows)
        if label is None or self.model.classes is None:
            raise RunError(f"{self.directory}: the data do not have the conditions of this model. Leave them out.")
        return Examples({"label": label})

    def conditioned(self, count: int) -> Conditioned:
        """With its classes in turn, if it has any."""
        classes = self.model.classes
        return Conditioned(self.model, Examples({} if classes is None else {"label": torch.arange(classes)[:count]}))


def load_pipeline(
    name: str | Path,
    overrides: Sequence[str],
    *,
    device: str,
    allow_imports: bool,
    report: Callable[[str], None],
) -> PipelineRun:
    """Read what diffusers has saved in place of a run; see `unidiff.load`.

    Raises:
        RunError: If it cannot be read.
        RecipeError: If an override cannot be used.
    """
    folder = local_folder(name, False)
    text = "sampling: {}\n" if family_of(folder) is None else f"sampling: {{count: {_FEW}, batch: {_FEW}}}\n"
    recipe = read_recipe(PipelineRecipe, Path(name), overrides, allow_imports=allow_imports, text=text)
    options: dict[str, Any] = {"allow_imports": allow_imports, "device": resolve_device(device)}
    model = load(folder, **options, **recipe.options(folder))
    if model.shape is None:
        raise RunError(f"{folder}: the model does not tell the shape of its samples.")
    data = _data(folder, tuple(model.shape))
    sampling = recipe.sampling
    own_grid = None if sampling.grid is not None else _own_grid(folder, model, recipe)
    if own_grid is not None:
        sampling = dataclasses.replace(sampling, grid=own_grid(_STEPS))
    sampling.check(model.process)
    names = _class_names(folder, model)
    manifest = Manifest(data=DataFacts(f"what {name} was trained on", 0, list(data.shape), "", None, names))
    parts = _Parts(data, model.process, sampling, model.classes, own_grid)
    others = [local_folder(each, False) for each in recipe.control] or kept_controls(folder)
    others += [network_folder(local_folder(recipe.refiner, False))] if recipe.refiner else []
    return PipelineRun(folder, parts, manifest, model, None, torch.float32, tuple(others))


def _data(folder: Path, shape: tuple[int, ...]) -> Dataset:
    """The samples of a model, latents where the pipeline has a codec."""
    coded = any(os.path.isfile(folder / part / "config.json") for part in ("vae", "vqvae"))
    if coded and read_layout(codec_folder(str(folder))).latent_channels != shape[0]:
        coded = False  # of an export, whose codec only unfolds what its network folds
    return (PipelineLatents if coded else PipelineImages)(shape, folder=str(folder))


def _own_grid(folder: Path, model: Denoiser, recipe: PipelineRecipe) -> Callable[[int], Grid] | None:
    """The scheduler's own times of a flow, which it shifts to where its model needs them; None for the default grid."""
    if model.process.native_times() is not None or not os.path.isfile(folder / "scheduler" / "scheduler_config.json"):
        return None
    return lambda steps: load_grid(folder, steps, scheduler=recipe.scheduler or None, size=recipe.size)


def _class_names(folder: Path, model: Denoiser) -> list[str] | None:
    """The names of the classes, of a DiTPipeline; None if it has none."""
    index = folder / "model_index.json"
    named = read_json(index).get("id2label") if os.path.isfile(index) else None
    if not isinstance(named, dict) or model.classes is None:
        return None
    try:
        return [str(named[str(number)]) for number in range(model.classes)]
    except KeyError:
        return None
