"""What a generative model is trained to have beside the weights of its start: low-rank changes, control branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unidiff.backbone.base import Backbone
from unidiff.backbone.control import add_controls
from unidiff.backbone.low_rank import LowRank
from unidiff.conditioning.control import controls_of
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, require
from unidiff.recipe.read import inside

__all__ = ["check_additions", "with_additions"]


def check_additions(task: Any) -> None:
    """Raise a ParameterError for additions that a model cannot have, or not together."""
    added = [name for name in ("low_rank", "control") if getattr(task, name) is not None]
    for name in added:
        if task.start is None:
            raise ParameterError(name, "it changes a trained model. Write its run at `start`, or leave it out.")
        if task.train is not None:
            raise ParameterError("train", f"{name} says what is trained. Leave one of the two out.")
    if task.control is not None:
        controls = controls_of(task.control)
        require(len(controls) > 0, "control", [], "an image conditioning, or a list of at least one")
        for number, control in enumerate(controls):
            try:
                control.network(task.data, {})
            except ParameterError as error:
                where = f"control[{number}]" if isinstance(task.control, (list, tuple)) else "control"
                raise ParameterError(error.parameter.replace("conditioning", where, 1), error.problem) from error
        own = () if task.conditioning is None else task.conditioning.names
        for name in (name for control in controls for name in control.names if name in own):
            raise ParameterError("control", f"`conditioning` has a condition {name!r} too. Leave one of the two out.")
    if len(added) > 1:
        raise ParameterError("control", "it cannot be combined with low_rank. Leave one of the two out.")


def with_additions(
    network: Backbone,
    data: Dataset,
    low_rank: LowRank | None,
    control: ImageConditioning | Sequence[ImageConditioning] | None,
) -> Backbone:
    """The network with its changes of low rank or control branches, if there are any; it is frozen then."""
    if low_rank is not None:
        with inside("low_rank", low_rank):
            low_rank.add(network)
    if controls := controls_of(control):
        return add_controls(network, [image for each in controls for image in each.built_for(data)])
    return network
