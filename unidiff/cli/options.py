"""Options that several commands share: single ones, and groups that a command takes as one dataclass."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unidiff.cli import completion
from unidiff.cli.grouped import AsJson
from unidiff.cli.last_resort import run_directory
from unidiff.cli.output import OutputOptions
from unidiff.cli.pipeline_options import PipelineOptions
from unidiff.cli.solver_options import SolverOptions
from unidiff.errors import ParameterError, RecipeError, RunError, complaint
from unidiff.tasks.sample_conditions import SampleConditions

if TYPE_CHECKING:
    from unidiff.tasks.generation import GenerationRun

__all__ = [
    "AllowImports",
    "AsJson",
    "GuidanceOptions",
    "ImageOptions",
    "ModelOptions",
    "Overrides",
    "RunArgument",
    "Settings",
    "SolverOptions",
    "option_error",
    "option_of",
    "sample_conditions",
    "split_conditions",
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe, training.steps=20. Repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the recipe, sampling.count=9, or a condition: cond.NAME=VALUE (or a list of values), "
        "negative.NAME=VALUE.",
    ),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        help="A run directory, or shipped:NAME, a model that comes with unidiff.", autocompletion=completion.runs
    ),
]
AllowImports = Annotated[
    bool, typer.Option("--allow-imports", help="Accept classes from outside unidiff; this runs their code.")
]


def split_conditions(overrides: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The overrides of a recipe's values, and the conditions of samples among them: by NAME, or as negative.NAME."""
    own = [change for change in overrides or () if change.startswith(("cond.", "negative."))]
    pairs = (change.removeprefix("cond.").partition("=") for change in own)
    return [change for change in overrides or () if change not in own], {name: value for name, _, value in pairs}


def _separated(option: str, text: str) -> list[str]:
    """The words of `option`, which are separated by commas; a word in double quotes may have commas itself.

    Raises:
        RunError: If a quote has no end.
    """
    try:
        (words,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error:
        problem = "quotes go around a whole name, as in --class '\"black, small\",white', and are doubled within"
        raise RunError(f"{option} {text}: {problem}.") from None
    return [word.strip() for word in words or [""]]


@dataclass(frozen=True)
class ModelOptions:
    """Where a trained model is loaded, and whether its recipe may name classes from outside unidiff."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    allow_imports: AllowImports = False

    def load(
        self,
        directory: Path,
        overrides: Sequence[str] | None,
        report: Callable[[str], None],
        drawn: SolverOptions | None = None,
        chosen: SampleConditions | None = None,
    ) -> GenerationRun:
        """The run of a generative model, whose samples are `drawn` with other solvers; see `load_with_parts`."""
        from unidiff.tasks.parts import load_with_parts

        run_directory.set(directory)
        try:
            run = load_with_parts(directory, chosen, overrides or (), report=report, **vars(self))
        except ParameterError as error:
            if chosen is None or error.parameter not in chosen.parts:
                raise
            raise option_error(error, GuidanceOptions(), parts=chosen.parts) from error
        return run if drawn is None else dataclasses.replace(run, recipe=drawn.apply(run.recipe, overrides))


@dataclass(frozen=True)
class GuidanceOptions:
    """The classes to sample from, and what guides the model to them.

    Raises:
        RunError: If an option needs another one, excludes another one, or cannot be read.
    """

    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="K,...", help="Classes, by number or name; a name with a comma in quotes."),
    ] = None
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What to sample, of a model of text; repeatable.")
    ] = None
    negative: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What guidance leads away from, of a model of text.")
    ] = None
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is the plain conditional model.")] = None
    classifier: Annotated[
        Path | None, typer.Option(help="Run of a classifier or contrastive encoder, for guidance.")
    ] = None
    weaker: Annotated[Path | None, typer.Option(help="Run directory of a weaker model, for autoguidance.")] = None
    interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Times, from 0 to 1, between which guidance is on.")
    ] = None
    rescale: Annotated[
        float | None, typer.Option(help="Give guided predictions this share, 0 to 1, of the unguided contrast.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(help="Clip predictions at this quantile of their pixels (dynamic thresholding).")
    ] = None

    def __post_init__(self) -> None:
        _ = sample_conditions(self)

    @property
    def names(self) -> list[int | str]:
        """The classes as they are written, numbers or names; empty if none are chosen."""
        words = [word for text in self.classes or () for word in _separated("--class", text)]
        # 007 is no number: it may be the name of a class.
        return [int(word) if word.isdecimal() and len(word) < 20 and word == str(int(word)) else word for word in words]

    @property
    def times(self) -> tuple[float, float] | None:
        """The interval of time in which guidance is on; None for all times."""
        if self.interval is None:
            return None
        try:
            low, high = map(float, self.interval.split(","))
        except ValueError:
            problem = "write two times from 0 to 1, as in --interval 0.2,0.8"
            raise RunError(f"--interval {self.interval}: {problem}.") from None
        return low, high


@dataclass(frozen=True)
class ImageOptions:
    """Images to condition on, test images if there are none, and the pixels that the model fills in."""

    images: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Image to condition on, repeatable [default: test images]."),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --image, for an inpainting model: white is sampled."),
    ] = None

    @property
    def files(self) -> list[Path | None]:
        """The images and the mask."""
        return [*(self.images or ()), self.mask]


_OPTIONS = {"cond.prompt": "--prompt", "negative.prompt": "--negative", "cond.control": "--control-image"}


def option_of(parameter: str) -> str:
    """The option that sets a parameter of `SampleConditions`."""
    if parameter in (known := _OPTIONS):
        return known[parameter]
    if parameter.partition(".")[0] in ("cond", "negative"):
        return f"--set {parameter if '.' in parameter else f'{parameter}.NAME'}=VALUE"
    return "--" + {"classes": "class", "images": "image"}.get(parameter, parameter.replace("_", "-"))


def sample_conditions(
    guidance: GuidanceOptions, images: ImageOptions | None = None, values: Mapping[str, str] = MappingProxyType({})
) -> SampleConditions:
    """The conditions of samples that these options choose; `values` are those that `split_conditions` found.

    Raises:
        RunError: If an option needs another one, excludes another one, or cannot be read.
    """
    names = ("guidance", "classifier", "weaker", "rescale", "threshold")
    plain: dict[str, Any] = {name: getattr(guidance, name) for name in names}
    if images is not None:
        plain |= {"images": tuple(images.images or ()), "mask": images.mask}
    plain |= {"cond": {}, "negative": {}}
    for name, text in values.items():
        plain["negative" if name.startswith("negative.") else "cond"][name.removeprefix("negative.")] = _read_value(
            text
        )
    plain["cond"] |= {} if not guidance.prompt else {"prompt": list(guidance.prompt)}
    plain["negative"] |= {} if guidance.negative is None else {"prompt": guidance.negative}
    try:
        return SampleConditions(classes=tuple(guidance.names), interval=guidance.times, **plain)
    except ParameterError as error:
        raise option_error(error, guidance, images, values) from error


def option_error(
    error: ParameterError,
    guidance: GuidanceOptions,
    images: ImageOptions | None = None,
    values: Mapping[str, str] = MappingProxyType({}),
    parts: Mapping[str, Any] = MappingProxyType({}),
) -> RunError:
    """The error about a parameter of `SampleConditions`, as one about the option that set it."""
    name = error.parameter.removeprefix("conditions.")
    written: dict[str, Any] = {**vars(guidance), **vars(images or ImageOptions()), **parts}
    written |= {key if key.startswith("negative.") else f"cond.{key}": text for key, text in values.items()}
    written |= {"cond.prompt": guidance.prompt, "negative.prompt": guidance.negative}
    if (value := written.get(name)) is None:  # set by the recipe
        return RunError(str(error))
    option = option_of(name)
    value = value[0] if isinstance(value, (list, tuple)) else value
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    option = option.replace("VALUE", shown) if "VALUE" in option else f"{option} {shown}"
    fields = "|".join(field.name for field in dataclasses.fields(SampleConditions))
    problem = re.sub(rf"`((?:cond|negative)\.\w+|{fields})`", lambda match: option_of(match[1]), error.problem)
    return RunError(complaint(option, problem))


def _read_value(text: str) -> Any:
    """A number or a list, in JSON or as in a recipe; anything else is text, such as a caption."""
    from unidiff.recipe.yaml_tree import read_yaml

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        with suppress(RecipeError):
            return read_yaml(text, "").plain() if text.lstrip().startswith("[") else text
        return text


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """What `unidiff edit` and `unidiff inpaint` share: a run, an image, and how and where samples are drawn."""

    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory of images, signals or volumes, or shipped:NAME.", autocompletion=completion.runs
        ),
    ]
    image: Annotated[Path, typer.Argument(help="An image, or an array .npy (C, *sizes) in [-1, 1].")]
    count: Annotated[int | None, typer.Option(help="Number of samples [default: 8].")] = None
    drawn: SolverOptions
    guidance: GuidanceOptions
    images: ImageOptions
    pipeline: PipelineOptions
    overrides: Settings = None
    output: OutputOptions
    model: ModelOptions
    as_json: AsJson = False

    def __post_init__(self) -> None:
        self.output.keep(self.image, *self.images.files, *self.pipeline.files)

    @property
    def split(self) -> tuple[list[str], dict[str, str]]:
        """See `split_conditions`; with the images of control branches."""
        changes, named = split_conditions(self.overrides)
        return changes, {**named, **self.pipeline.values}

    @property
    def chosen(self) -> SampleConditions:
        """The conditions of the samples."""
        return self.pipeline.joined(sample_conditions(self.guidance, self.images, self.split[1]))
