"""What the samples of a trained run are conditioned on: a section of a recipe, or options of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidiff.errors import ParameterError

__all__ = ["PARAMETERS", "SampleConditions"]

PARAMETERS = {"label": "classes", "image": "images"}  # of the conditions that have one of their own
_OF_GUIDANCE = ("classifier", "weaker", "interval", "rescale")


@dataclass(frozen=True)
class SampleConditions:
    """The conditions of samples, and what guides the model to them.

    Args:
        classes: Classes, by number or by name, which samples take in turn; empty for those of the run.
        guidance: Scale of guidance; 1 is the plain conditional model, null for none.
        classifier: Run directory of a classifier, or of a contrastive encoder, for guidance by it.
        weaker: Run directory of a weaker model, for autoguidance.
        interval: Times, from 0 to 1, between which guidance is on; null for all.
        rescale: Give guided predictions this share, 0 to 1, of the unguided contrast.
        threshold: Clip predictions at this quantile of their pixels (dynamic thresholding).
        images: Images to condition on, which samples take in turn; empty for test images.
        mask: The pixels that an inpainting model fills in, white; with `images`.
        cond: Conditions of other names: a number or a list, or the words of a caption; or a list of such values, which
            samples take in turn.
        negative: Conditions that guidance leads away from, in place of the null ones: one value each.
        control: ControlNets for a pipeline of diffusers, folders or OWNER/NAME, whose images are the conditions
            `control`, `control_2`, ...
        control_scale: Scale of the control branches, one for all or one for each; empty for 1.
        refiner: A pipeline of diffusers that takes over near the data; null for none.
        refiner_from: The share of noisy times, from 0 to 1, that is the refiner's; null for 0.2.
    """

    classes: tuple[int | str, ...] = ()
    guidance: float | None = None
    classifier: Path | None = None
    weaker: Path | None = None
    interval: tuple[float, float] | None = None
    rescale: float | None = None
    threshold: float | None = None
    images: tuple[Path, ...] = ()
    mask: Path | None = None
    cond: dict[str, Any] = field(default_factory=dict)
    negative: dict[str, Any] = field(default_factory=dict)
    control: tuple[str, ...] = ()
    control_scale: tuple[float, ...] = ()
    refiner: str | None = None
    refiner_from: float | None = None

    def __post_init__(self) -> None:
        if self.classifier is not None and self.weaker is not None:
            raise ParameterError("weaker", f"guide by it or by `classifier` {self.classifier}, not by both.")
        for name in _OF_GUIDANCE:
            if self.guidance is None and getattr(self, name) is not None:
                raise ParameterError(name, "this is an option of guidance. Set its scale with `guidance`.")
        for name in self.negative:
            if self.guidance is None or self.classifier is not None or self.weaker is not None:
                problem = "negative conditions are of classifier-free guidance. Set its scale with `guidance`."
                raise ParameterError(f"negative.{name}", problem)

    def require_once(self) -> None:
        """Raise a ParameterError if classes or images are chosen in two ways."""
        for name, parameter in PARAMETERS.items():
            if getattr(self, parameter) and name in self.cond:
                raise ParameterError(f"cond.{name}", f"`{parameter}` chooses it too. Leave one of them out.")

    @property
    def parts(self) -> dict[str, Any]:
        """What is loaded with the model, by name: those of the last four that are set."""
        names = ("control", "control_scale", "refiner", "refiner_from")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, ())}

    def facts(self) -> dict[str, Any]:
        """As plain values, for a file of results; those that came later only if they are set."""
        later = {name: getattr(self, name) for name in ("weaker", "interval", "rescale", "threshold")}
        values = {
            "classes": list(self.classes) or None,
            "guidance": self.guidance,
            "classifier": self.classifier,
            "images": [str(path) for path in self.images] or None,
            "mask": self.mask,
            **{name: value for name, value in later.items() if value is not None},
            **{f"cond.{name}": value for name, value in self.cond.items()},
            **{f"negative.{name}": value for name, value in self.negative.items()},
            **self.parts,
        }
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
