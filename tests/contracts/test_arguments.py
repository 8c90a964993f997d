"""Every public constructor takes numbers of NumPy and torch, lists, arrays and paths, and what it makes is plain."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from decimal import Decimal
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from parts import EXAMPLES, FROZEN, GUIDED, MEANS, every, instances
from torch import Tensor, nn

import unidiff as ud
from unidiff.arguments import PlainArguments, plain, plain_arguments
from unidiff.backbone.base import Backbone
from unidiff.backbone.encoder import Encoder
from unidiff.errors import ParameterError
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.registry import PUBLIC

# What is made by the library and never by a user's numbers: results, and what a run directory holds.
RESULTS = {
    *(
        "Bound",
        "Likelihood",
        "Solution",
        "CascadeSolution",
        "Comparison",
        "RoundTrip",
        "Level",
        "Prediction",
        "PromptEdit",
        "Run",
    ),
    *("TimeState", "Observation", "Stationary", "MeanFieldState", "Stability", "Flow", "Posterior", "Tuning"),
    *("ClassHistogram", "Evaluation", "FeatureNetwork", "RealData", "Scores"),
}
MORE = {
    "Mask": [{"inside": [[True, True], [True, False]], "modes": 2}],
    "Polygon": [{"vertices": [[0, 0], [1, 0], [0, 1]]}],
}
MORE |= {"Interval": [{"cells": 8, "sides": 2.0}], "Rectangle": [{"cells": (4, 8)}], "Box": [{"cells": [2, 3, 4]}]}
INTEGERS, FLOATS = (np.int64, np.int32, np.uint8, np.array, torch.tensor), (np.float64, np.array, torch.tensor)


def as_numpy(value, turn):
    """The same value as NumPy, torch and pathlib would have it, of another type in each turn."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return INTEGERS[turn % len(INTEGERS)](value) if 0 <= value < 256 else np.int64(value)
    if isinstance(value, float):
        single = float(np.float32(value)) == value
        return np.float32(value) if single and turn % 2 else FLOATS[turn % 2](value)
    if isinstance(value, (tuple, list)) and value and not any(isinstance(part, (str, tuple, list)) for part in value):
        numbers = {type(part) for part in value} in ({int}, {float})  # an array has one type, so (3, 1.0) is none
        return [list, np.array][turn % 2](value) if numbers else list(value)
    if isinstance(value, (tuple, list)):
        return [as_numpy(part, turn) if isinstance(part, (tuple, list)) else part for part in value]
    return value


def built() -> list[tuple[type, dict[str, object]]]:
    """Every frozen class with all arguments of an example."""
    found = []
    for base in (
        *FROZEN,
        ud.pde.Domain,
        ud.pde.Mollifier,
        ud.pde.InitialCondition,
        ud.pde.Simulator,
        ud.NoiseCondition,
    ):
        for name, cls in PUBLIC.choices(base).items():
            if any("Tensor" in str(field.type) for field in dataclasses.fields(cls)):  # they have no single equality
                continue
            for arguments in MORE.get(name) or EXAMPLES.get(name, [{}]):
                part = cls(**arguments)
                found.append((cls, {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}))
    return [*found, (ud.Training, {**vars(ud.Training(steps=5)), "clip": 0.5}), (ud.Sampling, vars(ud.Sampling()))]


def numbers_in(value) -> list[object]:
    if isinstance(value, (tuple, list)):
        return [number for part in value for number in numbers_in(part)]
    return [value]


@pytest.mark.parametrize("turn", range(5))
def test_parts_of_numpy_arguments_equal_those_of_plain_ones(turn):
    for cls, arguments in built():
        part = cls(**arguments)
        twin = cls(**{name: as_numpy(value, turn) for name, value in arguments.items()})
        assert twin == part, cls
        assert repr(twin) == repr(part)
        assert hash(twin) == hash(part)
        for name in arguments:
            for number in numbers_in(getattr(twin, name)):
                assert not isinstance(number, (np.generic, np.ndarray, torch.Tensor)), (cls, name)


@every("cls", [cls for base in (Backbone, Encoder) for cls in PUBLIC.choices(base).values()])
def test_networks_of_numpy_arguments_are_those_of_plain_ones(cls):
    for turn, arguments in enumerate(EXAMPLES[cls.__name__]):
        plain_one = cls(**arguments)
        twin = cls(**{name: as_numpy(value, turn) for name, value in arguments.items()})
        shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (plain_one, twin)]
        assert shapes[0] == shapes[1]
        assert twin.shape == plain_one.shape
        assert repr(twin) == repr(plain_one)


def test_every_public_constructor_takes_its_arguments_at_the_one_place():
    public = {name: PUBLIC.get(name) for name in ud.EXPORTS}
    classes = {name: cls for name, cls in public.items() if inspect.isclass(cls)}
    assert not {n for n, cls in classes.items() if not issubclass(cls, PlainArguments)} - RESULTS
    functions = {name for name, value in public.items() if inspect.isfunction(value)}
    decorated = {name for name in functions if hasattr(public[name], "__wrapped__")}
    assert functions - decorated == {"as_open_dataset"} | (
        functions & {"CodecInTraining"}
    )  # data of any form; an old name


def test_a_class_of_ones_own_takes_them_too():
    @dataclasses.dataclass(frozen=True)
    class Halves(ud.OneStep):
        times: tuple[int, ...] = ()
        size: float = 1.0

        def __post_init__(self):
            assert isinstance(self.times, tuple)

        def step(self, denoiser, u, t, s, noise, **cond):
            return u

    part = Halves(times=np.arange(2), size=Fraction(1, 2))
    assert part == Halves((0, 1), 0.5)
    assert type(part.size) is float
    assert type(Halves(size=Decimal("0.25")).size) is float


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (np.int64(3), "int", 3),
        (np.array(3), int, 3),
        (torch.tensor(3), "int | None", 3),
        (np.float64(0.1), "float", 0.1),
        (range(3), "tuple[int, ...]", (0, 1, 2)),
        (np.ones((2, 2)), tuple[tuple[float, float], ...], ((1.0, 1.0), (1.0, 1.0))),
        ([np.int64(1), [np.float64(0.5)]], "tuple[object, ...]", (1, (0.5,))),
        (Path("a") / "b", "str", "a/b"),
        (torch.device("cpu"), "str", "cpu"),
    ],
)
def test_values_become_what_is_annotated(value, annotation, expected):
    found = plain("x", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (2.0, "int"),
        (True, "int"),
        (np.array([3]), "int"),
        (range(3), "Sequence[int]"),
        (object(), "Any"),
        (None, "int"),
    ],
)
def test_nothing_is_rounded_or_guessed(value, annotation):
    assert plain("x", value, annotation) is value


def test_a_number_with_a_gradient_is_left_alone():
    scale = torch.tensor(2.0, requires_grad=True)
    assert plain("x", scale, "float") is scale


def test_tensors_of_arrays_and_lists():
    assert torch.equal(plain("x", [[1.0]], "Tensor"), torch.ones(1, 1))
    assert plain("x", np.ones(2, np.float32), "Tensor | None").dtype == torch.float32
    array = np.ones(2)
    array.flags.writeable = False
    assert torch.equal(plain("x", array, "Tensor"), torch.ones(2).double())
    assert plain("x", 2.5, "float | Tensor") == 2.5
    with pytest.raises(ParameterError, match=r"^x must be a tensor or an array of numbers, got "):
        plain("x", [["a"]], "Tensor")
    with pytest.raises(ParameterError, match=r"^x must be a string or a path, got b'a'"):
        plain("x", b"a", "str | Path")


def test_a_decorated_function_keeps_its_name_and_raises_pythons_own_errors():
    @plain_arguments
    def count(steps: int, *rest: object, like: Tensor | None = None, **cond: Tensor):
        return steps, rest, like, cond

    assert count.__name__ == "count"
    assert count(np.int64(2), 1, 2, like=[1], label=[3])[:2] == (2, (1, 2))
    assert torch.equal(count(1, label=[3])[3]["label"], torch.tensor([3]))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'steps'"):
        count()


# ---------------------------------------------------------------------------------------------- pickling and copying


def copies(part):
    return copy.copy(part), copy.deepcopy(part), pickle.loads(pickle.dumps(part))


def test_frozen_parts_are_equal_after_pickling_and_copying():
    for cls, arguments in built():
        part = cls(**arguments)
        for twin in copies(part):
            assert twin == part
            assert repr(twin) == repr(part)


def models() -> list[nn.Module]:
    mixture = ud.GaussianMixture(ud.VPSDE(), MEANS, 0.04)
    cosine = ud.GaussianMixture(ud.CosineVP(), MEANS, 0.04)
    networks = list({type(network): network for network in instances(Backbone, Encoder)}.values())
    neural = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), networks[0])
    wrapped = [ud.Counted(mixture), ud.Rescheduled(cosine, ud.VPSDE()), ud.Split(mixture, mixture, 0.5)]
    return [*networks, neural, mixture, *wrapped, *(make(mixture) for make in GUIDED.values())]


@pytest.mark.slow  # some twenty models, each copied and pickled
def test_models_have_the_same_weights_after_pickling_and_copying():
    for model, twin in chain(*(zip(repeat(made), copies(made)) for made in models())):
        assert type(twin) is type(model)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
        )
        assert getattr(twin, "process", None) == getattr(model, "process", None)


# ---------------------------------------------------------------------------------------------- opened data


def test_opened_data_can_be_pickled_and_copied(tmp_path):
    # Folders of images: unit/test_data_files.py. Files that are downloaded: their own tests.
    np.save(tmp_path / "points.npy", np.random.RandomState(0).randn(30, 2).astype(np.float32))
    named = [ud.data.ArrayFile(tmp_path / "points.npy"), ud.data.Notes(count=9)]
    toys = [cls(count=20) for cls in (ud.data.Ring, ud.data.TwoMoons, ud.data.Spiral, ud.data.Checkerboard)]
    opened = [data.open() for data in (*named, *toys)]
    pairs = torch.utils.data.TensorDataset(torch.rand(5, 3), torch.arange(5))
    opened += [ud.data.as_open_dataset(pairs), ud.data.as_open_dataset([torch.rand(2)] * 4)]
    indices = torch.tensor([0, 3])
    for source in opened:
        for twin in copies(source):
            assert torch.equal(twin.batch(indices), source.batch(indices))
            assert twin.checksum == source.checksum


# ---------------------------------------------------------------------------------------------- tensors and shapes

NETWORK = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.UNet(shape=(1, 8, 8), width=8, multipliers=(1, 2), blocks=1))
EXACT = ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 1, 8, 8), 1.0)
MIXTURE = ud.GaussianMixture(ud.VPSDE(), MEANS, 0.04)
STEPS, IMAGE = ud.Uniform(2), torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (2, 1, 8, 8)}, r"shape must be (1, 8, 8), which the model was made for, got (2, 1, 8, 8)"),
        ({"shape": (3, 8, 8)}, r"shape must be (1, 8, 8), which the model was made for, got (3, 8, 8)"),
        ({"shape": (1, 9, 9)}, r"shape must be (1, 8, 8), which the model was made for, got (1, 9, 9)"),
        ({"shape": 8}, "shape must be a list of integers or None, got 8"),
        ({"shape": (1, 8.0, 8)}, "shape must be a list of integers or None, got (1, 8.0, 8)"),
        ({"dtype": torch.int64}, "dtype must be a floating type such as torch.float32, got torch.int64"),
        ({"device": "nowhere"}, "device must be a device of this machine, such as cpu, got 'nowhere'"),
        ({"device": "meta"}, "device must be a device with numbers, such as cpu, got 'meta'"),
        ({"keep": 2.0}, "keep must be an integer, got 2.0"),
        ({"seeds": 2**63}, f"seeds must be at most {2**63 - 1}, got {2**63}"),
        ({"seeds": 2.0}, "seeds must be an integer or a list of integers, got 2.0"),
    ],
)
def test_a_sample_that_the_model_cannot_draw_is_one_sentence(changes, message):
    with pytest.raises(ParameterError) as caught:
        ud.sample(NETWORK, ud.DDIM(), STEPS, **changes)
    assert str(caught.value) == message


def test_a_network_that_writes_into_its_input_is_refused():
    class Writing(torch.nn.Module):
        def forward(self, x, c):
            return x.add_(1)

    model = ud.NeuralDenoiser(ud.DDPM(10), ud.Eps(), Writing())
    with pytest.raises(ParameterError, match="backbone: the network writes into its input"):
        ud.sample(model, ud.DDIM(), STEPS, (1, 8, 8))


def test_more_states_than_there_are_steps_are_all_of_them():
    kept = ud.sample(NETWORK, ud.DDIM(), STEPS, keep=10**12).path
    assert [state.t for state in kept] == ud.sample(NETWORK, ud.DDIM(), STEPS).times.tolist()


def test_a_convolutional_network_draws_other_sizes_and_a_closed_form_does_not():
    assert ud.sample(NETWORK, ud.DDIM(), STEPS, np.array([1, 4, 4])).x.shape == (1, 1, 4, 4)
    with pytest.raises(ParameterError, match=r"^shape must be \(2,\), which the model was made for, got \(3,\)"):
        ud.sample(ud.Counted(MIXTURE), ud.DDIM(), STEPS, (3,))
    with pytest.raises(ParameterError, match=r"^shape must be \(2,\)"):
        ud.sample(ud.Empirical(ud.VPSDE(), torch.zeros(3, 2)), ud.DDIM(), STEPS, [4])


CALLS = {
    "image": [
        lambda x: ud.edit(NETWORK, x, 0.5, ud.DDIM(), STEPS),
        lambda x: ud.inpaint(NETWORK, x, np.ones((8, 8)), ud.DDIM(), STEPS),
        lambda x: ud.variations(NETWORK, x, 0.5, ud.DDIM(), STEPS),
        lambda x: ud.Replacement(NETWORK, x, torch.ones(1, 8, 8)),
    ],
    "x": [
        lambda x: ud.encode(EXACT, x, ud.DDIM(), STEPS),
        lambda x: ud.log_likelihood(EXACT, x, ud.Hutchinson(), rtol=10.0, atol=10.0),
        lambda x: ud.variational_bound(EXACT, x, STEPS),
    ],
    "latent": [lambda x: ud.decode(EXACT, x, ud.DDIM(), STEPS)],
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_tensors_are_taken_or_refused_in_one_sentence(name, call):
    good = IMAGE if name == "image" else IMAGE[None]
    for taken in (good.tolist(), good.double().numpy(), good.bfloat16()):
        call(taken)
    expected = f"^{name} must be floats of shape \\({'' if name == 'image' else 'B, '}1, 8, 8\\), got torch."
    for wrong in (good.byte(), good.long().numpy(), good.bool(), good.cfloat(), good[0], good[None, None]):
        with pytest.raises(ParameterError, match=expected):
            call(wrong)
    with pytest.raises(ParameterError, match=f"^{name} must be finite numbers, got NaN or infinity"):
        call(good / 0)
    for wrong in (None, "x", [["a"]], object()):
        with pytest.raises(ParameterError, match=f"^{name} must be a tensor or an array of numbers, got "):
            call(wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, "float64", np.float32])
def test_networks_and_states_of_any_format(dtype):
    expected = dtype if isinstance(dtype, torch.dtype) else getattr(torch, np.dtype(dtype).name)
    assert ud.sample(NETWORK, ud.DDIM(), STEPS, dtype=dtype).x.dtype == expected
    if isinstance(dtype, torch.dtype):
        assert ud.sample(copy.deepcopy(NETWORK).to(dtype), ud.DDIM(), STEPS).x.dtype == torch.float32


def test_a_recipe_of_numpy_arguments_is_plain():
    made = ud.tasks.Generation(
        data=ud.data.Ring(count=np.int64(20)),
        process=ud.DDPM(T=np.int32(10)),
        parameterization=ud.Eps(),
        backbone=Blueprint(ud.MLP, {"width": np.int64(8), "depth": torch.tensor(1)}),
        training=ud.Training(steps=np.uint8(3), lr=np.float64(0.5)),
    )
    assert "numpy" not in repr(made)
    assert "np." not in repr(made)
    assert "width: 8" in made.to_yaml()
