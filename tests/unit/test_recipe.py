"""Recipes against small stand-in classes: every mistake's message, and that what is written is what is read."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import textwrap
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unidiff as ud
from unidiff.errors import ParameterError, RecipeError, UnidiffError, require
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.describe import signature_rows
from unidiff.recipe.read import read_recipe
from unidiff.recipe.registry import PUBLIC, Registry
from unidiff.recipe.save import to_plain
from unidiff.recipe.shipped import shipped_recipes
from unidiff.recipe.yaml_tree import read_yaml, write_yaml


class Curve(ABC):
    @abstractmethod
    def value(self): ...


@dataclass(frozen=True)
class Straight(Curve):
    slope: float = 1.0

    def value(self):
        return self.slope


@dataclass(frozen=True)
class MinBend(Curve):
    """A bent curve.

    Args:
        inner: The curve that is bent.
        where: Where it bends: a number
            from 0 to 1.
    """

    inner: Curve
    where: float = 0.5

    def __post_init__(self):
        require(0 <= self.where <= 1, "where", self.where, "a number from 0 to 1")

    def value(self):
        return self.where


class Walker(ABC):
    @abstractmethod
    def walk(self): ...


@dataclass(frozen=True)
class Slow(Walker):
    steps: int = 3

    def walk(self):
        return self.steps


class Net(ABC):
    @abstractmethod
    def size(self): ...


class Tower(Net):
    """A network.

    Args:
        shape: Shape of one sample.
        floors (tuple of int): Width of each floor.
    """

    def __init__(self, shape: tuple[int, ...], floors: tuple[int, ...] = (8, 8), lift: bool = False):
        require(shape[0] % floors[0] == 0, "floors", floors, f"a first floor that divides {shape[0]}")
        self.floors = floors

    def size(self):
        return sum(self.floors)


@dataclass(frozen=True)
class Settings:
    steps: int
    lr: float = 2e-4
    clip: float | None = None
    fast: bool = False
    mode: Literal["train", "test"] = "train"
    folder: Path | None = None
    pair: tuple[int, float] = (1, 2.0)

    def __post_init__(self):
        require(self.steps >= 1, "steps", self.steps, "an integer >= 1")


@dataclass(frozen=True)
class Plan:
    curve: Curve
    net: Blueprint[Net]
    settings: Settings
    walker: Walker = field(default_factory=Slow)
    extra: Curve | None = None
    many: tuple[Curve, ...] = ()
    seed: int = 0

    def __post_init__(self):
        try:
            self.net.build(shape=(16,))
        except ParameterError as error:
            raise ParameterError(f"net.{error.parameter}", error.problem) from error
        if isinstance(self.curve, Straight) and self.curve.slope == 7:
            raise ParameterError("walker", f"{self.walker!r} cannot walk a slope of 7.")


STAND_INS = Registry(dict.fromkeys(("Straight", "MinBend", "Slow", "Tower", "Curve", "walk"), ""), globals().get)
GOOD = """\
curve:    {type: Straight, slope: 2}
net:      {type: Tower, floors: [4, 8]}
settings: {steps: 20, lr: 1e-4}
"""


def walk():
    return None


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(text, *overrides, **options):
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        Path("x.yaml").write_bytes(data)
        return read_recipe(Plan, "x.yaml", overrides, registry=STAND_INS, **options)

    return read


@pytest.fixture
def message(load):
    def refused(text, *overrides, **options):
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **options)
        return str(caught.value)

    return refused


def test_recipe_is_nested_constructor_arguments(load):
    plan = load(GOOD)
    assert plan == Plan(Straight(2.0), Blueprint(Tower, {"floors": (4, 8)}), Settings(20, 1e-4))
    assert type(plan.curve.slope) is float
    assert plan.net.arguments == {"floors": (4, 8), "lift": False}
    assert plan.net.build(shape=(16,)).size() == 12
    assert repr(plan.net) == "Blueprint(Tower, floors=(4, 8), lift=False)"


@pytest.mark.parametrize("name", ["MinBend", "min_bend", "minbend", "MINBEND"])
def test_type_ignores_case_and_underscores(load, name):
    text = f"curve: {{type: {name}, inner: straight}}\nnet: Tower\nsettings: {{steps: 1}}\n"
    plan = load(text + "many: [Straight, {type: Straight}]")
    assert plan.curve == MinBend(Straight())
    assert plan.many == (Straight(), Straight())


def test_optional_parts_and_plain_types(load):
    settings = "{steps: 1, clip: null, fast: true, mode: test, folder: some/where, pair: [3, 4]}"
    plan = load(f"curve: Straight\nnet: Tower\nextra: null\nwalker: {{type: Slow, steps: 5}}\nsettings: {settings}")
    assert plan.extra is None
    assert plan.settings == Settings(1, fast=True, mode="test", folder=Path("some/where"), pair=(3, 4.0))
    assert load("curve: Straight\nnet: Tower\nextra: Straight\nsettings: {steps: 1}").extra == Straight()


# What is wrong, where the caret stands, and what the message says of it.
MISTAKES = [
    (
        "unknown key",
        "stepz: 20",
        (3, 12),
        ["settings.stepz: unknown key. Did you mean 'steps'?", "clip, fast"],
    ),
    ("missing key", "lr: 1", (3, 1), ["settings.steps: missing required key (an integer)"]),
    ("word for int", "steps: twenty", (3, 12), ["settings.steps: expected an integer, got 'twenty'"]),
    ("bool for int", "steps: true", (3, 12), ["settings.steps: expected an integer, got true"]),
    ("float for int", "steps: 2e4", (3, 12), ["expected an integer, got 20000.0. Write 20000."]),
    ("quoted int", "steps: '20'", (3, 12), ["expected an integer, got '20'. Write 20 without quotes."]),
    ("list for int", "steps: [1]", (3, 12), ["settings.steps: expected an integer, got a list"]),
    ("null for int", "steps:", (3, 12), ["settings.steps: expected an integer, got null"]),
    ("bool for float", "steps: 1, lr: false", (3, 22), ["settings.lr: expected a number, got false"]),
    ("None", "steps: 1, clip: None", (3, 22), ["settings.clip: expected a number or null, got 'None'. Write null."]),
    ("yes", "steps: 1, fast: yes", (3, 22), ["settings.fast: expected true or false, got 'yes'. Write true."]),
    ("int for bool", "steps: 1, fast: 1", (3, 22), ["settings.fast: expected true or false, got 1"]),
    ("literal", "steps: 1, mode: tset", (3, 22), ["expected train or test, got 'tset'. Did you mean 'test'?"]),
    (
        "too short",
        "steps: 1, pair: [1]",
        (3, 22),
        ["settings.pair: expected a list of 2: an integer, a number, got a list"],
    ),
    (
        "in a list",
        "steps: 1, pair: [a, 2]",
        (3, 29),
        ["settings.pair[0]: expected a list of 2: an integer, a number, got 'a'"],
    ),
    ("range", "lr: 1, steps: 0", (3, 19), ["settings.steps must be an integer >= 1, got 0"]),
]


@pytest.mark.parametrize(("inside", "at", "parts"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_message_shows_place_and_remedy(message, inside, at, parts):
    said = message(f"curve: Straight\nnet: Tower\nsettings: {{{inside}}}")
    line, column = at
    first, source, caret = said.splitlines()[:3]
    assert first.startswith(f"x.yaml:{line}:{column}: ")
    assert source == f"    3 | settings: {{{inside}}}"
    assert caret == "      | " + " " * (column - 1) + "^"
    for part in parts:
        assert part in said


def test_whole_message_as_designed(message):
    assert message("curve: Straight\nnet: Tower\nsettings: {stepz: 20, lr: 1}") == textwrap.dedent("""\
        x.yaml:3:12: settings.stepz: unknown key. Did you mean 'steps'?
            3 | settings: {stepz: 20, lr: 1}
              |            ^
        Allowed here: steps, lr, clip, fast, mode, folder, pair""")


COMPONENTS = [
    ("Strait", "1:1: curve: unknown curve 'Strait'. Did you mean 'Straight'?", "Allowed here: MinBend, Straight"),
    ("{type: Strait}", "1:9: curve.type: unknown curve 'Strait'. Did you mean 'Straight'?", "MinBend, Straight"),
    ("{type: Slow}", "1:9: curve.type: expected a curve, got Slow, a walker", "Allowed here: MinBend, Straight"),
    ("{type: walk}", "1:9: curve.type: expected a curve, got walk", "Allowed here: MinBend, Straight"),
    ("{type: Curve}", "1:9: curve.type: Curve is abstract; choose one of its subclasses", "MinBend"),
    ("{type: 3}", "1:9: curve.type: expected the name of a curve, got 3", "MinBend, Straight"),
    ("{slope: 3}", "1:1: curve: missing required key 'type' (the name of a curve)", "type: MinBend"),
    ("[Straight]", "1:1: curve: expected a curve, as a name or as {type: NAME, ...}, got a list", "MinBend"),
    ("null", "1:1: curve: expected a curve, as a name", "got null"),
    (
        "{type: Straight, slop: 1}",
        "1:25: curve.slop: unknown key. Did you mean 'slope'?",
        "Allowed here: slope",
    ),
    (
        "{type: MinBend, inner: {type: MinBend, inner: Straight, where: 2}}",
        "1:64: curve.inner.where must be a number from 0 to 1, got 2.0",
        "",
    ),
    ("MinBend", "1:1: curve.inner: missing required key (a curve)", "inner, where"),
]


@pytest.mark.parametrize(("written", "start", "part"), COMPONENTS, ids=[c[0] for c in COMPONENTS])
def test_message_about_a_component(message, written, start, part):
    said = message(f"curve: {written}\nnet: Tower\nsettings: {{steps: 1}}")
    assert said.startswith(f"x.yaml:{start}")
    assert part in said


def test_key_of_the_right_name_in_the_wrong_section(message):
    said = message(GOOD + "fast: true\n")
    assert said.startswith("x.yaml:4:1: fast: unknown key. It belongs in 'settings'.")


def test_section_that_is_no_mapping(message):
    assert "x.yaml:3:1: settings: expected a mapping, got 3" in message("curve: Straight\nnet: Tower\nsettings: 3")
    assert "x.yaml:4:1: many: expected a list of curves, got 'Straight'" in message(GOOD + "many: Straight")


def test_parts_that_do_not_fit_point_at_the_offender(message):
    said = message("curve: Straight\nnet:\n  type: Tower\n  floors: [5]\nsettings: {steps: 1}")
    assert said.startswith("x.yaml:4:3: net.floors must be a first floor that divides 16, got (5,)")
    said = message("net: Tower\ncurve: {type: Straight, slope: 7}\nwalker: Slow\nsettings: {steps: 1}")
    assert said.startswith("x.yaml:3:1: walker: Slow(steps=3) cannot walk a slope of 7.")
    # The walker is a default, written nowhere: the recipe as a whole is the place.
    said = message("net: Tower\ncurve: {type: Straight, slope: 7}\nsettings: {steps: 1}")
    assert said.startswith("x.yaml:1:1: walker: ")


def test_shape_is_supplied_by_the_data(message):
    said = message("curve: Straight\nnet: {type: Tower, shape: [16]}\nsettings: {steps: 1}")
    assert "x.yaml:2:20: net.shape: unknown key. The shape of a sample comes from the data." in said


SYNTAX = [
    ("curve: {type: Straight\nnet: Tower\n", ["x.yaml:2:4: not valid YAML", "expected ',' or '}'"]),
    ("curve: Straight\n\tnet: Tower\n", ["x.yaml:2:1: not valid YAML"]),
    ("a: 1\na: 2\n", ["x.yaml:2:1: a: duplicate key, first used on line 1. Remove one of the two."]),
    ("a: {b: 1, b: 2}\n", ["x.yaml:1:11: b: duplicate key"]),
    ("a: 1\n---\nb: 2\n", ["x.yaml:2:1: not valid YAML"]),
    (
        "a: !!python/object/apply:os.system [ls]\n",
        ["x.yaml:1:4: the tag !!python/object/apply:os.system", "Remove it."],
    ),
    ("a: !!int '3x'\n", ["x.yaml:1:4: the tag !!int"]),
    ("? [a]\n: 1\n", ["x.yaml:1:3: a key must be one word"]),
    ("a: b\x07\n", ["x.yaml:1:5:", "U+0007"]),
    ("curve: 1\nnet: \x07\n", ["x.yaml:2:6:", "U+0007"]),
    ("", ["x.yaml:1:1: the recipe is empty.", "Allowed here: curve, net, settings"]),
    ("# nothing\n", ["x.yaml:1:1: the recipe is empty."]),
    ("- a\n- b\n", ["x.yaml:1:1: expected a mapping, got a list"]),
    ("words\n", ["x.yaml:1:1: expected a mapping, got 'words'"]),
    (b"curve: Straight\nnet: \xff\n", ["x.yaml:2:6: the byte 0xff is not UTF-8", "save it as UTF-8"]),
    ("a: " + "9" * 5000, ["x.yaml:1:4: an integer of 5000 digits is too long."]),
    ("[" * 2000, ["x.yaml:1:51: not valid YAML: the values are nested too deeply"]),
]


@pytest.mark.parametrize(("text", "parts"), SYNTAX, ids=range(len(SYNTAX)))
def test_broken_files(message, text, parts):
    said = message(text)
    for part in parts:
        assert part in said


def test_alias_is_refused_so_a_billion_laughs_cost_nothing(message):
    laughs = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefghi", "bcdefghij")
    )
    assert message(laughs).startswith("x.yaml:2:8: not valid YAML: aliases (*name) are not part of a recipe")
    assert "aliases" in message("a: &a [*a]\n")
    assert "unknown key" in message(GOOD + "base: &base {x: 1}\n")


def test_excerpt_of_a_very_long_line_is_cut_round_the_caret(message):
    said = message("{" + "curve: Straight, net: Tower, settings: {steps: 1}, " + " " * 300 + "sed: 1}")
    source, caret = said.splitlines()[1:3]
    assert len(source) <= 110
    assert source[caret.index("^") :].startswith("sed")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), ("+3", 3), ("010", 10), (".inf", math.inf),
        ("-.INF", -math.inf),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("true", True), ("False", False), ("null", None), ("~", None), ("'1'", "1"),
        ('"null"', "null"),
        ("!!str 5", "5"), ("!!float 5.0", 5.0), ("<<", "<<"), ("=", "="), ("inf", "inf"), ("e5", "e5"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_scalars(text, value):
    read = read_yaml(f"a: {text}", "x").plain()["a"]
    assert read == value
    assert type(read) is type(value)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@pytest.mark.slow  # a second or more
@settings(deadline=None, max_examples=10)  # other work on the machine is no failure
@given(
    st.dictionaries(
        keys,
        st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8),
        min_size=1,
    )
)
def test_what_is_written_is_what_is_read(value):
    for flow in (False, True):
        read = read_yaml(write_yaml(value, flow=flow), "x").plain()
        assert read == value
        assert repr(read) == repr(value)  # 1, 1.0 and true are equal, and not the same


@pytest.mark.slow  # a second or more
@settings(deadline=None)
@given(scalars)
def test_scalar_alone_in_one_line(value):
    assert repr(read_yaml(write_yaml([value], flow=True), "x").plain()) == repr([value])


def test_save_and_load_round_trip(load):
    plan = load(GOOD + "extra: {type: MinBend, inner: Straight}\nmany: [Straight]\n", "settings.folder=a b")
    plain = to_plain(plan, STAND_INS)
    assert list(plain) == ["curve", "net", "settings", "walker", "extra", "many", "seed"]
    assert plain["extra"] == {"type": "MinBend", "inner": {"type": "Straight", "slope": 1.0}, "where": 0.5}
    assert list(plain["net"].items()) == [("type", "Tower"), ("floors", [4, 8]), ("lift", False)]
    assert plain["settings"]["folder"] == "a b"
    assert load(write_yaml(plain)) == plan


def test_saved_text_has_no_wrapped_lines():
    short, long = {"a": 1, "b": [1, 2]}, {f"a_long_name_{i}": 1.0 for i in range(20)}
    assert write_yaml({"x": {"a": 1, "b": "no"}, "y": short}) == "x: {a: 1, b: no}\ny:\n  a: 1\n  b: [1, 2]\n"
    assert write_yaml({"x": long}).count("\n") == 21
    assert write_yaml({"x": long}, flow=True).count("\n") == 0


def test_value_that_no_recipe_can_say():
    plan = Plan(Straight(len), Blueprint(Tower, {}), Settings(1))
    with pytest.raises(RecipeError, match=r"curve.slope: <built-in function len> cannot be written in a recipe"):
        to_plain(plan, STAND_INS)


def test_overrides(load):
    plan = load(GOOD, "settings.steps=7", "walker.type=slow", "walker.steps=9", "settings.clip=1e-1", "curve=Straight")
    assert (plan.settings.steps, plan.settings.clip, plan.walker, plan.curve) == (7, 0.1, Slow(9), Straight())
    plan = load(GOOD, "curve={type: MinBend, inner: {type: Straight, slope: 3}}", "curve.where=0", "many=[Straight]")
    assert (plan.curve, plan.many) == (MinBend(Straight(3.0), 0.0), (Straight(),))
    assert load("curve: Straight\nnet: Tower\nsettings: {steps: 1}", "curve.slope=4").curve == Straight(4.0)
    assert load(GOOD, "seed=3").seed == read_recipe(Plan, "x.yaml", "seed=3", registry=STAND_INS).seed == 3
    assert load("", "curve=Straight", "net=Tower", "settings.steps=1", "settings.steps=2").settings.steps == 2


OVERRIDES = [
    ("settings.stepz=20", "--set settings.stepz=20: settings.stepz: unknown key. Did you mean 'steps'?"),
    ("settings.steps=x", "--set settings.steps=x: settings.steps: expected an integer, got 'x'"),
    (
        "settings.steps=0",
        "--set settings.steps=0: settings.steps must be an integer >= 1, got 0",
    ),
    ("walker.steps=4", "--set walker.steps=4: walker: missing required key 'type'"),
    ("curve=Slow", "--set curve=Slow: curve: expected a curve, got Slow, a walker"),
    ("net.floors.0=3", "--set net.floors.0=3: net.floors.0: net.floors is a list; set it as a whole."),
    ("seed.x=3", "--set seed.x=3: seed.x: unknown key."),
    ("settings.steps.x=3", "--set settings.steps.x=3: settings.steps.x: settings.steps is 20, which has no keys."),
    ("settings.steps", "--set settings.steps: write KEY=VALUE, such as --set training.steps=20."),
    ("=3", "--set =3: write KEY=VALUE"),
    ("a..b=3", "--set a..b=3: write KEY=VALUE"),
    ("settings.clip=", "--set settings.clip=: missing value after '='. Write null for none."),
    ("curve={type: ", "--set curve={type: : not valid YAML"),
    ("net.floors=[5]", "--set net.floors=[5]: net.floors must be a first floor that divides 16, got (5,)"),
]


@pytest.mark.parametrize(("override", "start"), OVERRIDES, ids=[o[0] for o in OVERRIDES])
def test_message_about_an_override(message, override, start):
    if override == "seed.x=3":
        start = "--set seed.x=3: seed: expected an integer, got a mapping"
    assert message(GOOD, override).startswith(start)


def test_changed_type_says_why_a_key_is_unknown(message):
    said = message(GOOD, "curve.type=MinBend")
    assert "x.yaml:1:28: curve.slope: unknown key. (MinBend was chosen by --set curve.type=MinBend;" in said
    assert "--set curve='{type: MinBend}' replaces all of it." in said


def test_all_mistakes_are_shown_at_once_in_their_order(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "data: {type: Ring, cuont: 3}\nprocess: {type: DDPM, T: -1}\nparameterization: Epps\n"
        "backbone: {type: MLP, width: x, depth: 1.5}\ntraining: {stesp: 3, lr: yes}\nsmapling: 3\n"
    )
    with pytest.raises(RecipeError) as caught:
        ud.load_recipe(path)
    places = [(1, 20), (2, 23), (3, 1), (4, 23), (4, 33), (5, 12), (5, 22), (6, 1)]
    assert [problem.position for problem in caught.value.problems] == places
    assert str(caught.value).startswith("the recipe has 8 mistakes:\n")
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    assert "missing required key" not in str(caught.value)  # `stesp` is meant for it
    with pytest.raises(RecipeError) as one:
        ud.load_recipe("ddpm_digits", ["training.lr=x"])
    assert str(one.value).startswith("--set training.lr=x: training.lr: expected a number")
    path.write_text("data: Ring\n" + "".join(f"key{i}: 1\n" for i in range(30)))
    with pytest.raises(RecipeError, match=r"has \d+ mistakes(.|\n)*\.\.\. and \d+ more\."):
        ud.load_recipe(path)


def test_import_is_refused_unless_allowed(load, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # the working directory is found all the same
    (tmp_path / "outside_parts.py").write_text(
        f"from {__name__} import Straight\nclass Mine(Straight): pass\nOther = int\nopen('ran', 'w').close()\n"
    )
    text = "curve: {type: outside_parts:%s}\nnet: Tower\nsettings: {steps: 1}"
    said = message(text % "Mine")
    assert said.startswith(
        "x.yaml:1:9: curve.type: outside_parts:Mine is not part of unidiff, and loading it would run"
    )
    assert "--allow-imports" in said
    assert not (tmp_path / "ran").exists()
    assert "is not part of unidiff" in message("curve: os.system\nnet: Tower\nsettings: {steps: 1}")

    plan = load(text % "Mine", allow_imports=True)
    assert type(plan.curve).__name__ == "Mine"
    assert to_plain(plan, STAND_INS)["curve"] == {"type": "outside_parts:Mine", "slope": 1.0}
    assert load(write_yaml(to_plain(plan, STAND_INS)), allow_imports=True) == plan

    remedy = "; derive a class of your own from unidiff's Curve"
    assert f"expected a curve, got outside_parts:Other{remedy}" in message(text % "Other", allow_imports=True)
    assert "cannot be imported (AttributeError" in message(text % "None", allow_imports=True)
    assert "nowhere:X cannot be imported (ModuleNotFoundError" in message(
        "curve: nowhere:X\nnet: Tower\nsettings: {steps: 1}", allow_imports=True
    )
    assert "write a class from outside unidiff as module:Class" in message(
        "curve: os.path\nnet: Tower\nsettings: {steps: 1}", allow_imports=True
    )


def test_sources_that_are_no_recipe_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = {"ncsn_digits": tmp_path / "shipped.yaml", "ddpm_digits": tmp_path / "other.yaml"}
    monkeypatch.setattr("unidiff.recipe.shipped.shipped_recipes", lambda: shipped)
    (tmp_path / "shipped.yaml").write_text(GOOD)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(GOOD)
    (tmp_path / "empty").mkdir()

    def refused(source):
        with pytest.raises(RecipeError) as caught:
            read_recipe(Plan, source, registry=STAND_INS)
        return str(caught.value)

    assert read_recipe(Plan, "ncsn_digits", registry=STAND_INS).curve == Straight(2.0)
    assert read_recipe(Plan, Path("run") / "recipe.yaml", registry=STAND_INS).curve == Straight(2.0)
    assert refused("ncsn_digit.yaml").endswith("Did you mean 'ncsn_digits' or 'ddpm_digits'?")
    assert refused("zzz").endswith("Shipped recipes: ncsn_digits, ddpm_digits.")
    assert "run: this is a directory" in refused("run")
    assert "Did you mean 'run/recipe.yaml'?" in refused("run").replace("\\", "/")
    assert "Name a recipe file inside it." in refused("empty")
    assert isinstance(RecipeError(""), UnidiffError)


def test_signature_rows_describe_a_class():
    assert signature_rows(MinBend) == [
        ("inner", "a curve", "required", "The curve that is bent."),
        ("where", "a number", "0.5", "Where it bends: a number from 0 to 1."),
    ]
    assert signature_rows(Tower)[0] == ("floors", "a list of integers", "[8, 8]", "Width of each floor.")
    rows = {row.name: row for row in signature_rows(Plan)}
    assert rows["net"].type == "a net"
    assert rows["extra"].type == "a curve or null"
    assert rows["settings"].type == "a mapping"
    assert rows["many"].type == "a list of curves"
    assert rows["walker"].default.endswith("steps: 3}")


def test_shipped_recipes_are_listed_without_torch():
    assert all(path.is_file() and path.suffix == ".yaml" for path in shipped_recipes().values())
    code = "import sys, unidiff.recipe.shipped as r; r.shipped_recipes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- The real classes.

NCSN_MNIST = """\
data:             {type: MNIST, size: 32, fallback: digits}
process:          {type: NCSN, sigma_min: 0.01, sigma_max: 1.0, levels: 10}
parameterization: Score
backbone:         {type: UNet, width: 32, multipliers: [1, 2, 2]}
objective:        {type: Denoising, weighting: EpsilonWeighting}
training:         {steps: 20000, batch: 128, lr: 2e-4, ema: 0.999}
sampling:         {solver: {type: AnnealedLangevin, steps_per_level: 100, step_size: 2e-5}, grid: Native, count: 64}
seed: 0
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(text, *overrides):
        Path("r.yaml").write_text(text)
        return ud.load_recipe("r.yaml", overrides)

    return read


def test_recipe_of_real_parts(recipe):
    made = recipe(NCSN_MNIST)
    assert made.process == ud.NCSN(sigma_min=0.01, sigma_max=1.0, levels=10)
    assert made.objective == ud.Denoising(weighting=ud.EpsilonWeighting())
    assert made.sampling.solver == ud.AnnealedLangevin(steps_per_level=100, step_size=2e-5)
    assert made.training == ud.Training(steps=20000, batch=128, lr=2e-4, ema=0.999)
    network = made.backbone.build(shape=made.data.shape)
    assert made.count_weights() == sum(parameter.numel() for parameter in network.parameters()) > 1000
    assert network.shape == (1, 32, 32)


def test_resolved_recipe_gives_an_equal_recipe(recipe):
    made = recipe(NCSN_MNIST)
    again = recipe(made.to_yaml())
    assert again == made
    assert again.to_yaml() == made.to_yaml()
    assert made.to_dict()["backbone"]["blocks"] == 2
    assert list(made.to_dict()["process"]) == ["type", "sigma_min", "sigma_max", "levels"]


def test_recipe_made_in_python_equals_the_one_from_a_file(recipe):
    made = ud.tasks.Generation(
        data=ud.data.MNIST(size=32, fallback="digits"),
        process=ud.NCSN(levels=10),
        parameterization=ud.Score(),
        backbone=Blueprint(ud.UNet, {"width": 32, "multipliers": (1, 2, 2)}),
        objective=ud.Denoising(ud.EpsilonWeighting()),
        training=ud.Training(steps=20000),
        sampling=ud.Sampling(ud.AnnealedLangevin(100, 2e-5), ud.Native()),
    )
    assert made == recipe(NCSN_MNIST)


def test_python_recipe_with_a_wrong_argument_names_the_part():
    parts = {
        "data": ud.data.Ring(),
        "process": ud.DDPM(),
        "parameterization": ud.Eps(),
        "training": ud.Training(steps=1),
    }
    with pytest.raises(
        ParameterError, match=r"backbone: Blueprint\(MLP.* cannot be built: .*unexpected keyword .*'widht'"
    ):
        ud.tasks.Generation(**parts, backbone=Blueprint(ud.MLP, {"widht": 4}))
    with pytest.raises(ParameterError, match=r"backbone.width must be an even number"):
        ud.tasks.Generation(**parts, backbone=Blueprint(ud.MLP, {"width": 3}))


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("process=DDIM", "--set process=DDIM: process: expected a process, got DDIM, a solver\nAllowed here: "),
        ("process.levels=1", "--set process.levels=1: process.levels must be "),
        ("training.stepz=20", "--set training.stepz=20: training.stepz: unknown key. Did you"),
        ("sampling.solver.step_size=4", "--set sampling.solver.step_size=4: sampling.solver.step_size must be less"),
        ("data.size=30", "r.yaml:4:43: backbone.multipliers: images of 30x30 pixels cannot be halved 2 times"),
        ("backbone.attention=[7]", "--set backbone.attention=[7]: backbone.attention must be among the resolutions"),
        ("data=Ring", "r.yaml:4:1: backbone: it does not fit the samples of Ring("),
        ("process={type: DDPM, schedule: ZeroTerminalSNR}", "r.yaml:3:1: parameterization: Score"),
        ("data=fashion_mnis", "--set data=fashion_mnis: data: unknown dataset 'fashion_mnis'. Did you mean 'Fash"),
    ],
)  # fmt: skip
def test_real_parts_that_do_not_fit(recipe, override, start):
    with pytest.raises(RecipeError) as caught:
        recipe(NCSN_MNIST, override)
    assert str(caught.value).startswith(start)


def test_every_public_component_has_a_schema():
    for base in ("process.base.Process", "solver.base.Solver", "grid.Grid", "backbone.base.Backbone",
                 "data.base.Dataset", "objective.base.Objective", "objective.weighting.Weighting", "schedule.Schedule",
                 "parameterization.Parameterization"):  # fmt: skip
        module, name = base.rsplit(".", 1)
        choices = PUBLIC.choices(getattr(importlib.import_module(f"unidiff.{module}"), name))
        assert choices
        for cls in choices.values():
            for row in signature_rows(cls):
                assert row.doc, f"{cls.__name__}.{row.name} is not described in its docstring"
                assert "only Python" not in row.type, f"{cls.__name__}.{row.name} cannot be written in a recipe"
