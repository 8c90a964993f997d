"""What `unidiff sample` steers a model to: classes, by a guidance scale, perhaps with a classifier's gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from unidiff.classifier import Classifier
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, RunError, complaint
from unidiff.guidance.classifier import ClassifierGuidance
from unidiff.guidance.classifier_free import ClassifierFree
from unidiff.tasks.classification import load_classifier
from unidiff.tasks.generation import GenerationRun

__all__ = ["check_classes", "guided", "read_classes", "read_classifier"]


def read_classes(text: str | None) -> list[int]:
    """The classes of `--class 0,1,2`.

    Raises:
        RunError: If these are no integers.
    """
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise RunError(f"--class {text}: write integers from 0, with commas between them, such as --class 0,1,2.")
    return [int(word) for word in words]


def check_classes(run: GenerationRun, asked: Sequence[int], judge: Classifier | None) -> None:
    """Refuse classes that neither the model nor the classifier knows.

    Raises:
        RunError: With the reason.
    """
    if not asked:
        return
    text, known = ",".join(map(str, asked)), run.denoiser.classes if judge is None else judge.classes
    if run.denoiser.image is not None:
        raise RunError(f"--class {text}: {run.directory} was trained with images, not with classes. Leave it out.")
    if known is None:
        remedy = "Train a recipe that has `conditioning`"
        raise RunError(f"--class {text}: {run.directory} was trained without classes. {remedy}.")
    if wrong := [k for k in asked if k >= known]:
        problem = f"{run.directory} knows the classes 0 to {known - 1}, and {wrong[0]} is none of them"
        raise RunError(f"--class {text}: {problem}.")


def read_classifier(
    run: GenerationRun, path: Path | None, device: str, allow_imports: bool, report: Callable[[str], None]
) -> Classifier | None:
    """The classifier of a run, if one is named.

    Raises:
        RunError: If the model is told images, so that no class can be asked for.
    """
    if path is None:
        return None
    if run.denoiser.image is not None:
        problem = f"{run.directory} was trained with images, and is guided by them alone. Leave it out."
        raise RunError(f"--classifier {path}: {problem}")
    return load_classifier(path, device=device, allow_imports=allow_imports, report=report)


def guided(run: GenerationRun, asked: Sequence[int], scale: float | None, judge: Classifier | None) -> Denoiser:
    """The run's model, steered as the user asked.

    Raises:
        RunError: If there is nothing to guide to, or the model never learnt what is likely without it.
    """
    model, told = run.denoiser, run.recipe.conditioning
    if scale is None:
        return model
    if model.image is None and not asked:
        raise RunError(f"--guidance {scale:g}: there is nothing to guide to. Name classes with --class.")
    try:
        if judge is not None:
            return ClassifierGuidance(model, judge, scale)
        if told is not None and told.dropout == 0:
            problem = f"{run.directory} was trained with dropout 0, so it never learnt what is likely without them"
            raise RunError(f"--guidance {scale:g}: {problem}. Leave it out.")
        return ClassifierFree(model, scale)
    except ParameterError as error:
        option = "--classifier" if error.parameter == "classifier" else f"--guidance {scale:g}"
        raise RunError(complaint(option, error.problem)) from error
