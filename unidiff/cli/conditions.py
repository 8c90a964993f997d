"""The model and the conditions of its samples that options of the command line choose."""

from __future__ import annotations

from collections.abc import Callable

import torch

from unidiff.classifier import Classifier
from unidiff.cli.images import read_image, read_mask
from unidiff.cli.options import GuidanceOptions, ImageOptions, ModelOptions
from unidiff.condition.base import named
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, RunError, complaint
from unidiff.guidance.classifier import ClassifierGuidance
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.tasks.classification import load_classifier
from unidiff.tasks.generation import Conditioned, GenerationRun
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
) -> Conditioned:
    """The model of a run under these options, and the conditions of its samples.

    Args:
        run: The run.
        guidance: The classes, and what guides the model to them.
        images: The images to condition on.
        model: How a classifier is loaded.
        report: Called with notices.
        examples: The conditions where the options name none; a few test images, or no class, by default.

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
    if guidance.labels:
        _check_classes(run, guidance, run.denoiser.classes if classifier is None else classifier.classes)
    measured, labels = _measured(run, images), torch.tensor(guidance.labels)
    if measured is not None and guidance.labels and not images.images:
        raise RunError(f"--class {guidance.classes}: choose the image of this class too, with --image.")
    if measured is not None and (images.images or examples is None):
        examples = _image_examples(measured, run, images)
        if guidance.labels:  # each class with each image
            image = examples.cond["image"]
            pairs = {"image": image.repeat(len(labels), 1, 1, 1), "label": labels.repeat_interleave(len(image))}
            examples = Examples(pairs)
    elif guidance.labels:
        examples = Examples({"label": labels})
    examples = examples or Examples({})
    return Conditioned(_guided(run, bool(examples.cond), guidance.guidance, classifier), examples, measured)


def _check_classes(run: GenerationRun, guidance: GuidanceOptions, count: int | None) -> None:
    """Check that a model, or its classifier, of this many classes has been trained with those chosen."""
    option = f"--class {guidance.classes}"
    if count is None and run.denoiser.image is not None:
        raise RunError(f"{option}: {run.directory} is conditioned on images, not on classes. Leave it out.")
    if count is None:
        remedy = "Train a recipe with `conditioning: Labels`"
        raise RunError(f"{option}: {run.directory} is not conditioned on classes. {remedy}.")
    if wrong := [k for k in guidance.labels if not 0 <= k < count]:
        raise RunError(f"{option}: the classes of {run.directory} are 0 to {count - 1}, got {wrong[0]}.")


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


def _guided(run: GenerationRun, has_condition: bool, scale: float | None, classifier: Classifier | None) -> Denoiser:
    """The run's model, guided at this scale."""
    model, conditioning = run.denoiser, run.recipe.conditions()
    if scale is None:
        return model
    if not has_condition:
        raise RunError(f"--guidance {scale:g}: guidance requires a condition. Choose classes with --class.")
    try:
        if classifier is not None:
            return ClassifierGuidance(model, classifier, scale)
        if conditioning is not None and conditioning.dropout == 0:
            problem = f"{run.directory} was trained with dropout 0, so it has no unconditional prediction"
            raise RunError(f"--guidance {scale:g}: {problem}. Leave it out.")
        return ClassifierFree(model, scale)
    except ParameterError as error:
        option = "--classifier" if error.parameter == "classifier" else f"--guidance {scale:g}"
        raise RunError(complaint(option, error.problem)) from error
