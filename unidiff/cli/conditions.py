"""The model and the conditions of its samples that options of the command line choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from unidiff.classifier import Classifier
from unidiff.cli.images import read_image, read_mask
from unidiff.cli.options import GuidanceOptions, ImageOptions, ModelOptions
from unidiff.condition.base import named
from unidiff.condition.check import condition_of
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, RunError, complaint
from unidiff.guidance.autoguidance import AutoGuidance
from unidiff.guidance.base import Guided
from unidiff.guidance.classifier import ClassifierGuidance
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.guidance.stabilizers import DynamicThreshold, GuidanceInterval, RescaledGuidance
from unidiff.tasks.classification import load_classifier
from unidiff.tasks.generation import Conditioned, GenerationRun, load_generation
from unidiff.tasks.generation_report import examples as test_examples

__all__ = ["conditioned"]

_TEST_IMAGES = 6  # used where no image is named


def conditioned(
    run: GenerationRun,
    guidance: GuidanceOptions,
    images: ImageOptions,
    model: ModelOptions,
    report: Callable[[str], None],
    examples: Examples | None = None,
    values: Mapping[str, str] = MappingProxyType({}),
) -> Conditioned:
    """The model of a run under these options, and the conditions of its samples.

    Args:
        run: The run.
        guidance: The classes, and what guides the model to them.
        images: The images to condition on.
        model: How a classifier or a weaker model is loaded.
        report: Called with notices.
        examples: The conditions where the options name none; a few test images, or no class, by default.
        values: Conditions of other names, each one value for all samples, as it is written: a number or a list.

    Raises:
        RunError: If the run has no use for an option, or needs one that is missing.
        DataError: If an image cannot be used.
    """
    classifier = None
    if guidance.classifier is not None:
        if named(run.denoiser.conditions, "image") is not None:
            problem = f"{run.directory} is conditioned on images and cannot be guided by a classifier. Leave it out."
            raise RunError(f"--classifier {guidance.classifier}: {problem}")
        classifier = load_classifier(guidance.classifier, report=report, **vars(model))
    taken = run.denoiser.classes if classifier is None else classifier.classes
    measured, labels = _measured(run, images), torch.tensor(_labels(run, guidance, taken))
    if measured is not None and guidance.names and not images.images:
        raise RunError(f"--class {guidance.classes}: choose the image of this class too, with --image.")
    if measured is not None and (images.images or examples is None):
        examples = _image_examples(measured, run, images)
        if guidance.names:  # each class with each image
            image = examples.cond["image"]
            pairs = {"image": image.repeat(len(labels), 1, 1, 1), "label": labels.repeat_interleave(len(image))}
            examples = Examples(pairs)
    elif guidance.names:
        examples = Examples({"label": labels})
    examples = examples or Examples({})
    for name, option, chosen in (("label", "--class", guidance.names), ("image", "--image", images.images)):
        if chosen and name in values:
            raise RunError(f"--set cond.{name}={values[name]}: {option} chooses it too. Leave one of them out.")
    cond = {**examples.cond, **{name: _value(run.denoiser, name, values[name]) for name in values}}
    count = max(map(len, cond.values()), default=1)
    cond |= {name: cond[name].expand(count, *cond[name].shape[1:]) for name in values}
    examples = examples._replace(cond=cond)
    weaker = None
    if guidance.weaker is not None:
        weaker = load_generation(guidance.weaker, report=report, **vars(model)).denoiser
    return Conditioned(_guided(run, bool(examples.cond), guidance, classifier, weaker), examples, measured)


def _value(model: Denoiser, name: str, text: str) -> torch.Tensor:
    """The value of a condition of the model, a number or a nested list of numbers, as one row (1, ...)."""
    option = f"--set cond.{name}={text}"
    try:
        condition = condition_of(model, name)
        return condition.check(condition.parse(text)[None], 1)
    except ParameterError as error:
        raise RunError(complaint(option, error.problem)) from error
    except (ValueError, TypeError, RuntimeError) as error:  # not JSON, or not numbers
        raise RunError(f"{option}: write a number or a list of numbers, as in --set cond.{name}=[0.5,1].") from error


def _labels(run: GenerationRun, guidance: GuidanceOptions, count: int | None) -> list[int]:
    """The chosen classes of a model, or of its classifier, which has this many."""
    if not guidance.names:
        return []
    option = f"--class {guidance.classes}"
    if count is None and run.denoiser.image is not None:
        raise RunError(f"{option}: {run.directory} is conditioned on images, not on classes. Leave it out.")
    if count is None:
        remedy = "Train a recipe with `conditioning: Labels`"
        raise RunError(f"{option}: {run.directory} is not conditioned on classes. {remedy}.")
    known = (run.manifest.data and run.manifest.data.class_names) or []
    numbers = {name: number for number, name in enumerate(known)}
    labels = [numbers.get(name, -1) if isinstance(name, str) else name for name in guidance.names]
    for name, label in zip(guidance.names, labels):
        if not 0 <= label < count:
            called = f", called {', '.join(known)}" if known and known != [*map(str, range(count))] else ""
            raise RunError(f"{option}: the classes of {run.directory} are 0 to {count - 1}{called}, got {name!r}.")
    return labels


def _measured(run: GenerationRun, options: ImageOptions) -> ImageConditioning | None:
    """What made the images that the model was conditioned on in training; None if it was trained without images."""
    conditioning = run.recipe.conditions()
    if conditioning is None or conditioning.measured is None:
        for option, path in (("--image", options.images and options.images[0]), ("--mask", options.mask)):
            if path:
                remedy = "Train a recipe such as superresolution_mnist_cpu"
                raise RunError(f"{option} {path}: {run.directory} is not conditioned on images. {remedy}.")
        return None
    if options.mask is not None and not options.images:
        raise RunError(f"--mask {options.mask}: a mask needs an image. Pass the image with --image.")
    return conditioning.measured


def _image_examples(conditioning: ImageConditioning, run: GenerationRun, options: ImageOptions) -> Examples:
    """The conditions that the user's images make; of a few test images, with their truth, if there are none."""
    shape = run.recipe.data.shape
    if not options.images:
        return test_examples(run.recipe, _TEST_IMAGES)
    conditions = []
    for path in options.images:
        image = read_image(path, shape, conditioning.measurement_shape(shape))
        known = None if options.mask is None else ~read_mask(options.mask, path, shape)
        try:
            conditions.append(conditioning.from_user(image, shape, known))
        except ParameterError as error:
            raise RunError(complaint("--mask", error.problem)) from error
    return Examples({"image": torch.stack(conditions)})


def _guided(
    run: GenerationRun,
    has_condition: bool,
    options: GuidanceOptions,
    classifier: Classifier | None,
    weaker: Denoiser | None,
) -> Denoiser:
    """The run's model under the options of guidance."""
    model: Denoiser = run.denoiser
    try:
        if options.guidance is not None:
            model = guided = _at_scale(run, has_condition, options.guidance, classifier, weaker)
            if options.times is not None:
                model = guided = GuidanceInterval(guided, *options.times)
            if options.rescale is not None:
                model = RescaledGuidance(guided, options.rescale)
        return model if options.threshold is None else DynamicThreshold(model, options.threshold)
    except ParameterError as error:
        names = {"low": "interval", "high": "interval", "share": "rescale", "quantile": "threshold"}
        names |= {"classifier": "classifier", "weaker_model": "weaker"}
        name = names.get(error.parameter, "guidance")
        value = getattr(options, name)
        written = f"{value:g}" if isinstance(value, float) else value
        raise RunError(complaint(f"--{name} {written}", error.problem)) from error


def _at_scale(
    run: GenerationRun, has_condition: bool, scale: float, classifier: Classifier | None, weaker: Denoiser | None
) -> Guided:
    """The run's model, guided by itself without its condition, by a weaker model or by a classifier."""
    model, conditioning = run.denoiser, run.recipe.conditions()
    if weaker is not None:
        return AutoGuidance(model, weaker, scale)
    if not has_condition:
        raise RunError(f"--guidance {scale:g}: guidance requires a condition. Choose classes with --class.")
    if classifier is not None:
        return ClassifierGuidance(model, classifier, scale)
    if conditioning is not None and conditioning.dropout == 0:
        problem = f"{run.directory} was trained with dropout 0, so it has no unconditional prediction"
        raise RunError(f"--guidance {scale:g}: {problem}. Leave it out.")
    return ClassifierFree(model, scale)
