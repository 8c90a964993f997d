"""The conditions that options of the command line choose: classes or images, and how strongly they guide the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unidiff.classifier import Classifier
from unidiff.cli.image_conditions import conditioning_of, read_examples
from unidiff.conditioning.base import Examples
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, RunError, complaint
from unidiff.guidance.classifier import ClassifierGuidance
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.tasks.classification import load_classifier
from unidiff.tasks.generation import Conditioned, GenerationRun

__all__ = ["ConditionOptions"]


@dataclass(frozen=True)
class ConditionOptions:
    """The values of --class, --guidance, --classifier, --image and --mask.

    Attributes:
        classes: Classes, none if not given.
        guidance: Guidance scale; None for the plain model.
        classifier: The run of a classifier whose gradients guide the model.
        images: Images to condition on; none for images of the test split.
        mask: What an image leaves out.
    """

    classes: tuple[int, ...]
    guidance: float | None
    classifier: Path | None
    images: tuple[Path, ...]
    mask: Path | None

    @classmethod
    def read(
        cls,
        classes: str | None,
        guidance: float | None,
        classifier: Path | None = None,
        images: Sequence[Path] | None = None,
        mask: Path | None = None,
    ) -> ConditionOptions:
        """Parse what was typed.

        Raises:
            RunError: If options do not fit each other.
        """
        if classifier is not None and guidance is None:
            raise RunError(f"--classifier {classifier}: set the scale of its gradients with --guidance.")
        return cls(tuple(_integers(classes)), guidance, classifier, tuple(images or ()), mask)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values."""
        images, mask = [str(path) for path in self.images] or None, self.mask and str(self.mask)
        return {**self.chosen(), "images": images, "mask": mask}

    def chosen(self) -> dict[str, Any]:
        """Those of a model of images or points, without images as conditions."""
        classifier = self.classifier and str(self.classifier)
        return {"classes": list(self.classes) or None, "guidance": self.guidance, "classifier": classifier}

    def reject(self, problem: str) -> None:
        """Raise a RunError if any option is given."""
        options = {"classes": "--class", "images": "--image"}
        for name, value in self.to_dict().items():
            if value is not None:
                raise RunError(f"{options.get(name, f'--{name}')}: {problem}")

    def apply(
        self,
        run: GenerationRun,
        device: str,
        allow_imports: bool,
        report: Callable[[str], None],
        examples: Examples | None = None,
    ) -> Conditioned:
        """The model of a run under these options, and the conditions to draw its samples with.

        Args:
            run: The run.
            device: Where the classifier is loaded.
            allow_imports: Accept classes from outside unidiff in the classifier's recipe.
            report: Called with notices.
            examples: Conditions where the options name none; a few test images, or no class, if not given.

        Raises:
            RunError: If the run has no use for an option, or needs one that is missing.
            DataError: If an image cannot be used.
        """
        judge = _read_classifier(run, self.classifier, device, allow_imports, report)
        _check_classes(run, self.classes, judge)
        conditioning = conditioning_of(run, self.images, self.mask)
        defaults = examples is not None and bool(examples.cond)
        denoiser = _guided(run, bool(self.classes) or defaults, self.guidance, judge)
        if self.classes:
            return Conditioned(denoiser, Examples({"label": torch.tensor(self.classes)}))
        if conditioning is not None and (self.images or examples is None):
            return Conditioned(denoiser, read_examples(conditioning, run, self.images, self.mask), conditioning)
        return Conditioned(denoiser, examples or Examples({}), conditioning)


def _integers(text: str | None) -> list[int]:
    """The classes of `--class 0,1,2`.

    Raises:
        RunError: If they are not integers.
    """
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise RunError(f"--class {text}: write integers from 0, separated by commas, such as --class 0,1,2.")
    return [int(word) for word in words]


def _check_classes(run: GenerationRun, chosen: Sequence[int], judge: Classifier | None) -> None:
    """Check that the model or the classifier knows the classes.

    Raises:
        RunError: With the reason.
    """
    if not chosen:
        return
    text, known = ",".join(map(str, chosen)), run.denoiser.classes if judge is None else judge.classes
    if run.denoiser.image is not None:
        raise RunError(f"--class {text}: {run.directory} was trained with images, not with classes. Leave it out.")
    if known is None:
        remedy = "Train a recipe that has `conditioning`"
        raise RunError(f"--class {text}: {run.directory} was trained without classes. {remedy}.")
    if wrong := [k for k in chosen if k >= known]:
        raise RunError(f"--class {text}: the classes of {run.directory} are 0 to {known - 1}, got {wrong[0]}.")


def _read_classifier(
    run: GenerationRun, path: Path | None, device: str, allow_imports: bool, report: Callable[[str], None]
) -> Classifier | None:
    """The classifier of a run, if one is named.

    Raises:
        RunError: If the model is conditioned on images.
    """
    if path is None:
        return None
    if run.denoiser.image is not None:
        problem = f"{run.directory} was trained with images, and is guided by them alone. Leave it out."
        raise RunError(f"--classifier {path}: {problem}")
    return load_classifier(path, device=device, allow_imports=allow_imports, report=report)


def _guided(run: GenerationRun, has_classes: bool, scale: float | None, judge: Classifier | None) -> Denoiser:
    """The run's model, guided by the scale given.

    Raises:
        RunError: If there is nothing to guide to, or the model was trained with no condition left out.
    """
    model, conditioning = run.denoiser, run.recipe.conditioning
    if scale is None:
        return model
    if model.image is None and not has_classes:
        raise RunError(f"--guidance {scale:g}: there is nothing to guide to. Name classes with --class.")
    try:
        if judge is not None:
            return ClassifierGuidance(model, judge, scale)
        if conditioning is not None and conditioning.dropout == 0:
            problem = f"{run.directory} was trained with dropout 0, so it has no unconditional prediction"
            raise RunError(f"--guidance {scale:g}: {problem}. Leave it out.")
        return ClassifierFree(model, scale)
    except ParameterError as error:
        option = "--classifier" if error.parameter == "classifier" else f"--guidance {scale:g}"
        raise RunError(complaint(option, error.problem)) from error
