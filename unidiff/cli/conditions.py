"""The model and the conditions of its samples that options of the command line choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from unidiff.cli.options import GuidanceOptions, ImageOptions, ModelOptions, option_error, sample_conditions
from unidiff.conditioning.base import Examples
from unidiff.errors import ParameterError
from unidiff.tasks.conditioned import conditioned as under
from unidiff.tasks.generation import Conditioned, GenerationRun

__all__ = ["conditioned"]


def conditioned(
    run: GenerationRun,
    guidance: GuidanceOptions,
    images: ImageOptions,
    model: ModelOptions,
    report: Callable[[str], None],
    examples: Examples | None = None,
    values: Mapping[str, str] = MappingProxyType({}),
    own: bool = False,
) -> Conditioned:
    """The model of a run under these options, and the conditions of its samples; see `unidiff.tasks.conditioned`.

    Raises:
        RunError: If the run has no use for an option, or needs one that is missing.
    """
    chosen = sample_conditions(guidance, images, values)
    try:
        return under(run, chosen, examples, own, report=report, **vars(model))
    except ParameterError as error:
        raise option_error(error, guidance, images, values) from error
