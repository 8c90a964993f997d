"""The model of a run under the conditions of its samples, which a recipe or the command line chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from unidiff.condition.base import Condition, named
from unidiff.condition.check import condition_of
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.user_image import read_image, read_mask
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.guidance.autoguidance import AutoGuidance
from unidiff.guidance.base import Guided
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.guidance.stabilizers import DynamicThreshold, GuidanceInterval, RescaledGuidance
from unidiff.run.load import LoadOptions
from unidiff.tasks.generation import Conditioned, GenerationRun, load_generation
from unidiff.tasks.generation_report import examples as test_examples
from unidiff.tasks.guide import GuideRun, load_guide
from unidiff.tasks.sample_conditions import SampleConditions

__all__ = ["chosen_conditions", "conditioned"]

_TEST_IMAGES = 6  # used where no image is named
_MOST_NAMES = 20  # of classes, in a message


def conditioned(
    run: GenerationRun,
    chosen: SampleConditions,
    examples: Examples | None = None,
    own: bool = False,
    **loading: Unpack[LoadOptions],
) -> Conditioned:
    """The model of a run, guided perhaps, and the conditions of its samples.

    Args:
        run: The run.
        chosen: The conditions.
        examples: The conditions where none are chosen; a few test images, or no class, by default.
        own: Whether `examples` are made of the samples themselves, so that chosen classes join their images.
        **loading: How a classifier, a contrastive encoder or a weaker model is loaded.

    Raises:
        ParameterError: If the run has no use for a condition, or needs one that is missing.
        DataError: If an image cannot be used.
    """
    classifier = None
    if chosen.classifier is not None:
        if named(run.denoiser.conditions, "image") is not None:
            problem = f"{run.directory} is conditioned on images and cannot be guided by a classifier. Leave it out."
            raise ParameterError("classifier", problem)
        classifier = load_guide(chosen.classifier, **loading)
    taken = (None if classifier is None else classifier.classes) or run.denoiser.classes
    measured, by_name = _measured(run, chosen), "image" in chosen.cond  # the measurement itself, such as drawn edges
    labels = torch.tensor(_labels(run, chosen, taken, loading.get("report", print)))
    if own and chosen.classes and examples is not None:
        in_turn = labels[torch.arange(max(map(len, examples.cond.values()), default=1)) % len(labels)]
        examples = examples._replace(cond={**examples.cond, "label": in_turn})
    elif measured is not None and chosen.classes and not chosen.images and not by_name:
        raise ParameterError("classes", "choose the image of this class too, with `images`.")
    elif measured is not None and (chosen.images or (examples is None and not by_name)):
        examples = _image_examples(measured, run, chosen)
        if chosen.classes:  # each class with each image
            image = examples.cond["image"]
            images = image.repeat(len(labels), *[1] * (image.ndim - 1))
            examples = Examples({"image": images, "label": labels.repeat_interleave(len(image))})
    elif chosen.classes:
        examples = Examples({"label": labels})
    examples = examples or Examples({})
    chosen.require_once()
    more = () if classifier is None else classifier.asked
    values = {name: _values(run.denoiser, f"cond.{name}", value, more) for name, value in chosen.cond.items()}
    truth = None if by_name else examples.truth
    examples = Examples({**examples.cond, **values}, truth).in_turn()
    weaker = None if chosen.weaker is None else load_generation(chosen.weaker, **loading).denoiser
    return Conditioned(_guided(run, bool(examples.cond), chosen, classifier, weaker), examples, measured)


def chosen_conditions(run: GenerationRun, chosen: SampleConditions, report: Callable[[str], None]) -> dict[str, Tensor]:
    """The conditions that are chosen, each with a row for each value, without defaults and guidance.

    Raises:
        ParameterError: If the run has no use for a condition.
        DataError: If an image cannot be used.
    """
    cond: dict[str, Tensor] = {}
    if chosen.classes:
        any_label = run.denoiser.conditions is None and not any(isinstance(name, str) for name in chosen.classes)
        labels = chosen.classes if any_label else _labels(run, chosen, run.denoiser.classes, report)
        cond["label"] = torch.tensor(labels)
    if chosen.images:
        if (measured := _measured(run, chosen)) is None:
            raise ParameterError("images", f"{run.directory} was not trained on measurements of images. Leave it out.")
        cond |= _image_examples(measured, run, chosen).cond
    return cond | {name: _values(run.denoiser, f"cond.{name}", value) for name, value in chosen.cond.items()}


def _values(model: Denoiser, parameter: str, value: Any, more: Sequence[Condition] = ()) -> Tensor:
    """The values of a condition of the model, one (1, ...) or a list of them (B, ...); `parameter` ends in its name.

    It may also be one of `more`, those of what guides the model.
    """
    try:
        name, negative = parameter.partition(".")[2], parameter.startswith("negative.")
        own = None if named(model.conditions, name) is not None else named(more, name)
        condition = own or condition_of(model, name)
        return torch.cat(
            [condition.check(_value(condition, one, negative)[None], 1) for one in condition.several(value)]
        )
    except ParameterError as error:
        raise ParameterError(parameter, error.problem) from error
    except (ValueError, TypeError, RuntimeError) as error:  # not numbers
        problem = "write a number or a list of numbers, such as [0.5,1]."
        raise ParameterError(parameter, problem) from error


def _value(condition: Condition, value: Any, negative: bool) -> Tensor:
    """One value of a condition, without the batch axis, of numbers, words or the file of an image."""
    if condition.file_shape is not None and isinstance(value, str):
        return read_image(Path(value), condition.file_shape)
    return condition.parse_negative(value) if negative else condition.parse(value)


def _labels(
    run: GenerationRun, chosen: SampleConditions, count: int | None, report: Callable[[str], None]
) -> list[int]:
    """The chosen classes of a model, or of its classifier, which has this many."""
    if not chosen.classes:
        return []
    if count is None and run.denoiser.image is not None:
        raise ParameterError("classes", f"{run.directory} is conditioned on images, not on classes. Leave it out.")
    if count is None:
        remedy = "Train a recipe with `conditioning: Labels`"
        raise ParameterError("classes", f"{run.directory} is not conditioned on classes. {remedy}.")
    known = (run.manifest.data and run.manifest.data.class_names) or []
    numbers = {name: number for number, name in enumerate(known)}
    # Names first: folders 0, 1, 2, 10 are numbered as texts, so that class 2 is the folder 2, which has number 3.
    labels = [numbers.get(str(name), -1 if isinstance(name, str) else name) for name in chosen.classes]
    for name, label in zip(chosen.classes, labels):
        if isinstance(name, int) and label != name:
            report(f"class {name} is the name of class number {label} of {run.directory}; it is taken as the name.")
        if not 0 <= label < count:
            some = [f'"{name}"' if "," in name else name for name in known[:_MOST_NAMES]]
            some += ["..."] if len(known) > _MOST_NAMES else []
            called = f", called {', '.join(some)}" if known and known != [*map(str, range(count))] else ""
            problem = f"the classes of {run.directory} are 0 to {count - 1}{called}, got {name!r}."
            raise ParameterError("classes", problem)
    return labels


def _measured(run: GenerationRun, chosen: SampleConditions) -> ImageConditioning | None:
    """What made the images that the model was conditioned on in training; None if it was trained without images."""
    conditioning = run.recipe.conditions()
    if conditioning is None or conditioning.measured is None:
        for parameter in ("images", "mask"):
            if getattr(chosen, parameter):
                remedy = "Train a recipe such as superresolution_mnist_cpu"
                raise ParameterError(parameter, f"{run.directory} is not conditioned on images. {remedy}.")
        return None
    if chosen.mask is not None and not chosen.images:
        raise ParameterError("mask", "a mask needs an image. Pass the image with `images`.")
    return conditioning.measured


def _image_examples(conditioning: ImageConditioning, run: GenerationRun, chosen: SampleConditions) -> Examples:
    """The conditions that the user's images make; of a few test images, with their truth, if there are none."""
    shape = run.recipe.data.shape
    if not chosen.images:
        return test_examples(run.recipe, _TEST_IMAGES)
    conditions = []
    for path in chosen.images:
        image = read_image(path, shape, conditioning.measurement_shape(shape))
        known = None if chosen.mask is None else ~read_mask(chosen.mask, path, shape)
        conditions.append(conditioning.from_user(image, shape, known))
    return Examples({"image": torch.stack(conditions)})


def _guided(
    run: GenerationRun,
    has_condition: bool,
    chosen: SampleConditions,
    classifier: GuideRun | None,
    weaker: Denoiser | None,
) -> Denoiser:
    """The run's model under what guides it."""
    model: Denoiser = run.denoiser
    try:
        if chosen.guidance is not None:
            model = guided = _at_scale(run, has_condition, chosen, classifier, weaker)
            if chosen.interval is not None:
                model = guided = GuidanceInterval(guided, *chosen.interval)
            if chosen.rescale is not None:
                model = RescaledGuidance(guided, chosen.rescale)
        return model if chosen.threshold is None else DynamicThreshold(model, chosen.threshold)
    except ParameterError as error:
        names = {"low": "interval", "high": "interval", "share": "rescale", "quantile": "threshold"}
        names |= {"classifier": "classifier", "encoder": "classifier", "weaker_model": "weaker"}
        known = error.parameter if error.parameter.startswith("negative.") else "guidance"
        raise ParameterError(names.get(error.parameter, known), error.problem) from error


def _at_scale(
    run: GenerationRun,
    has_condition: bool,
    chosen: SampleConditions,
    classifier: GuideRun | None,
    weaker: Denoiser | None,
) -> Guided:
    """The run's model, guided by itself without its condition, by a weaker model or by a classifier."""
    model, conditioning, scale = run.denoiser, run.recipe.conditions(), chosen.guidance
    assert scale is not None
    if weaker is not None:
        return AutoGuidance(model, weaker, scale)
    if not has_condition:
        raise ParameterError("guidance", f"guidance requires a condition. {_remedy(run, classifier)}")
    if classifier is not None:
        return classifier.guide(model, scale)
    if conditioning is not None and conditioning.dropout == 0:
        problem = f"{run.directory} was trained with dropout 0, so it has no unconditional prediction"
        raise ParameterError("guidance", f"{problem}. Leave it out.")
    negative = {name: _values(model, f"negative.{name}", value) for name, value in chosen.negative.items()}
    for name, value in negative.items():
        require(len(value) == 1, f"negative.{name}", chosen.negative[name], "one value, for all samples")
    return ClassifierFree(model, scale, negative)


def _remedy(run: GenerationRun, classifier: GuideRun | None) -> str:
    """How to choose a condition that guidance has a use for."""
    asked = (run.denoiser.conditions or ()) if classifier is None else classifier.asked
    names = [condition.name for condition in asked]
    words = {"label": "Choose classes with `classes`.", "image": "Pass one with `images`."}
    if not names:
        return f"{run.directory} is unconditional: leave it out, or guide by `classifier`."
    return words.get(names[0], f"Set one with `cond.{names[0]}`.")
