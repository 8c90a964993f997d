"""Arguments of the wrong type: one error of the library, for each parameter of each public class and function."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from parts import EXAMPLES

import unidiff as ud
from unidiff.annotations import annotations_of, fits
from unidiff.arguments import plain, plain_arguments
from unidiff.errors import DataError, ParameterError, UnidiffError
from unidiff.recipe.registry import PUBLIC

VARIADIC = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
WRONG = (object(), "nonsense", None, [object()], torch.zeros(2, 3, 5), 1.5)
# Results, which nobody but the library makes, and tuples with names.
MADE_BY_US = {
    *("Bound", "CascadeSolution", "CodecInTraining", "Comparison", "Flow", "GradientModes", "Level", "Likelihood"),
    *("ClassHistogram", "Evaluation", "FeatureNetwork", "RealData", "Scores"),
    *("MeanFieldState", "Observation", "Prediction", "PromptEdit", "RoundTrip", "Run", "Solution", "Stability"),
    *("Stationary", "Tuning"),
}
PUBLIC_VALUES = {name: PUBLIC.get(name) for name in ud.EXPORTS if name not in MADE_BY_US}
CLASSES = [value for value in PUBLIC_VALUES.values() if inspect.isclass(value) and not inspect.isabstract(value)]
FUNCTIONS = [value for value in PUBLIC_VALUES.values() if inspect.isfunction(value)]


def becomes(name, value, parameter, annotation):
    """Whether a value is what an annotation promises, or becomes that."""
    try:
        return fits(annotation, plain(name, value, parameter.annotation))
    except ParameterError:
        return False


def of_wrong_types(function, wrong):
    """Each parameter with each value that its annotation does not promise."""
    annotations = annotations_of(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in VARIADIC:
            continue
        if isinstance(annotations[name], str):  # unknown at run time: the function itself checks these
            assert name in ("source", "data", "accelerator")
            yield name, object()
        yield from ((name, value) for value in wrong if not becomes(name, value, parameter, annotations[name]))


def accepted(function, name, call):
    """What a call is that raised no error of the library, else nothing."""
    try:
        call()
    except UnidiffError as error:
        return [] if str(error) else [f"{function.__name__}: {name} without a message"]
    except Exception as error:
        return [f"{function.__name__}: {name}: {error!r}"]
    return [f"{function.__name__}: {name}"]


VALUES = [WRONG[:2], pytest.param(WRONG[2:], marks=pytest.mark.slow)]  # the contract has a part in the everyday tests


@pytest.mark.parametrize("wrong", VALUES)
def test_constructors_reject_every_wrong_type(wrong):
    found = []
    for cls in CLASSES:
        parameters = inspect.signature(cls).parameters.items()
        required = {name: object() for name, own in parameters if own.default is own.empty}
        example = (EXAMPLES.get(cls.__name__) or [{}])[0]
        for name, value in of_wrong_types(cls, wrong):
            found += accepted(cls, name, partial(cls, **{**required, **example, name: value}))
    assert len(CLASSES) > 100
    assert not found


@pytest.mark.parametrize("wrong", VALUES)
def test_functions_reject_every_wrong_type(wrong):
    # The other arguments are of the wrong type, too: none may be used before all are checked.
    found = []
    for function in FUNCTIONS:
        parameters = inspect.signature(function).parameters.values()
        required = {own.name: object() for own in parameters if own.default is own.empty and own.kind not in VARIADIC}
        ordered = [own.name for own in parameters if own.kind is own.POSITIONAL_ONLY]
        for name, value in of_wrong_types(function, wrong):
            options = {**required, name: value}
            found += accepted(function, name, partial(function, *map(options.pop, ordered), **options))
    assert len(FUNCTIONS) > 20
    assert not found


@plain_arguments
def described(count: int, names: tuple[str, ...] = (), scale: float | None = None, *rest, **more):
    return count


def test_what_a_message_says():
    for arguments, said in (
        ({"count": "3"}, "count must be an integer, got '3'"),
        ({"count": True}, "count must be an integer, got True"),
        ({"count": 1, "names": "ab"}, "names must be a list of strings, got 'ab'"),
        ({"count": 1, "scale": "x"}, "scale must be a number or None, got 'x'"),
        ({"count": torch.zeros(2)}, r"count must be an integer, got a tensor of shape \(2,\)"),
    ):
        with pytest.raises(ParameterError, match=said):
            described(**arguments)
    assert described(2, ["a"], 1, object(), other=object()) == 2
    with pytest.raises(TypeError, match="missing 1 required"):
        described()
    with pytest.raises(ParameterError, match="model must be a Denoiser, got 'a'"):
        ud.Split("a", "b", 0.5)


def test_what_is_said_first():
    denoiser = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], 1.0)
    # A constructor knows more of its arguments.
    with pytest.raises(ParameterError, match="steps must be an integer from 1 to 1000000, got 'x'"):
        ud.Uniform("x")
    with pytest.raises(ParameterError, match=r"keep must be an integer, got 2\.0"):
        ud.sample(denoiser, ud.DDIM(), ud.Uniform(2), keep=2.0)
    # Those of a function are refused before it begins, also what it would have accepted.
    begun = []

    @plain_arguments
    def begin(solver: ud.Solver, count: int, quiet: bool = False, after: Callable[[], None] | None = None):
        begun.append(count)
        if count < 0:
            raise DataError("too few")
        return count + 1

    for arguments, said in (
        ({"solver": "ddim", "count": "x"}, "solver must be a Solver, got 'ddim'"),
        ({"solver": ud.DDIM(), "count": 1, "quiet": "yes"}, "quiet must be true or false, got 'yes'"),
        ({"solver": ud.DDIM(), "count": 1, "after": 3}, "after must be a function or None, got 3"),
        ({"solver": ud.DDIM(), "count": 2.5}, r"count must be an integer, got 2\.5"),
        ({"solver": ud.DDIM(), "count": True}, "count must be an integer, got True"),
        ({"solver": ud.DDIM(), "count": [1]}, r"count must be an integer, got \[1\]"),
    ):
        with pytest.raises(ParameterError, match=said):
            begin(**arguments)
    assert not begun
    with pytest.raises(DataError, match="too few"):
        begin(ud.DDIM(), -1)
    assert begin(ud.DDIM(), 2) == 3


def test_values_and_types():
    for annotation, good, wrong in (
        (tuple[int, str], (1, "a"), (1, 2)),
        (Literal["a", 1], 1, True),
        (Mapping[str, int], {}, ()),
        (Path | None, "a", 1),
        (complex, 1j, "i"),
    ):
        assert fits(annotation, good)
        assert not fits(annotation, wrong)

    @plain_arguments
    def pair(of: tuple[int, str]):
        return of

    with pytest.raises(ParameterError, match="of must be a list of 2: an integer, a string, got"):
        pair([1, 2])


def test_a_class_of_ones_own_is_left_alone():
    class Mine(ud.DDIM):
        def __init__(self, eta: int = 0) -> None:
            super().__init__(0.5)

    assert Mine("anything").eta == 0.5

    @dataclasses.dataclass(frozen=True)
    class Fields(ud.DDIM):
        size: int = 1

        def __post_init__(self):
            super().__post_init__()

    assert Fields(size="large").size == "large"
    with pytest.raises(ParameterError, match=r"eta must be a number in \[0, 1\]"):
        Fields(eta=2.0)


def test_a_function_without_a_state_and_a_time_is_rejected_before_its_first_use():
    for function in (torch.neg, lambda x: x, lambda: 0):
        with pytest.raises(ParameterError, match="function must be a Python function of a state and its noise level"):
            ud.FromFunction(ud.VPSDE(), ud.Score(), function)
    assert ud.FromFunction(ud.VPSDE(), ud.Score(), lambda x, t, y: x).conditions == (ud.Named("y"),)
