"""Bad inputs over every key of every recipe, found from the constructors, and every option of every command."""

from __future__ import annotations

import functools
import os
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stress.broken import untouched
from stress.command import Verdict, run, snapshot
from stress.jobs import RECIPES, TRAINING

_BAD = "@@BAD@@"
VALUES = (  # as they are written in YAML
    *("null", "true", "false", "''", "x", "[]", "{}", "[[]]", "[null]", "{type: null}", "{type: []}", "{type: X}"),
    *("-1", "0", "1", "2", "0.5", "-0.0", "1e-300", "1e308", "-1e308", ".nan", ".inf", "-.inf", "1e400", "0x1F"),
    *("9223372036854775807", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "1.5", "'1'", "1_000", "12:30:45"),
    *("2020-01-01", "!!binary aGk=", "!!python/name:os.system", "!!set {a, b}", "&a [*a]", "*missing", "<<: {a: 1}"),
    *('"\\e]0;owned\\a"', '"\\x9b2J"', '"\\u202egnp"', '"\\U00110000"', '"\\ud800"', '"a\\0b"', "'$\\frac{$'"),
    *("'" + "n" * 300 + "'", "'" + "n" * 5000 + "'", "~nobody_at_all/x", "/dev/zero", "/dev/full", "/proc", "fifo"),
    *("../../../..", "/etc/passwd", "loop", "hub:../x", "hub:", "os:system", "[1, 'x', null]", "{a: {b: {c: 1}}}"),
    *("[" * 50 + "]" * 50, "[" + "1, " * 3000 + "1]", "{type: Ring}", "{type: DDPM}", "{type: MLP}", "{type: object}"),
    *("{0: 1}", "{null: 1}", "{[1]: 2}", "{steps: 3}", "[-1, 0, 1]", "[0.5, 0.5]", "[1" + "0" * 20 + "]", "cuda:99"),
)
_DAMAGE = (
    "truncate",
    "flip",
    "bom",
    "utf16",
    "latin1",
    "nul",
    "tab",
    "twice",
    "deep",
    "long",
    "empty",
    "list",
    "escape",
)


def _components(annotation: Any) -> Iterator[type]:
    from unidiff.recipe.registry import is_component

    if is_component(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _components(argument)


def _keys(cls: type, path: tuple[Any, ...], seen: set[tuple[type, type]]) -> Iterator[tuple[Any, ...]]:
    """Every key below a class: names, and between them the class that is written there as `type`."""
    from unidiff.recipe.blueprint import parameters
    from unidiff.recipe.registry import PUBLIC
    from unidiff.recipe.schema import is_record

    for name, parameter in parameters(cls).items():
        yield (*path, name)
        annotations = [parameter.annotation, *typing.get_args(parameter.annotation)]
        for record in filter(is_record, annotations):
            yield from _keys(record, (*path, name), seen)
        for base in _components(parameter.annotation):
            new = [choice for choice in PUBLIC.choices(base).values() if (base, choice) not in seen]
            seen |= {(base, choice) for choice in new}
            for choice in new:
                yield from _keys(choice, (*path, name, choice), seen)


@functools.cache
def all_keys() -> list[tuple[str, tuple[Any, ...]]]:
    """Every key that a recipe may have, with the YAML of a recipe to write it in."""
    from unidiff.recipe.registry import PUBLIC
    from unidiff.recipe.shipped import shipped_recipes
    from unidiff.run.task import Task

    texts = [yaml.safe_dump(recipe) for recipe in RECIPES.values()]
    texts += [path.read_text() for path in shipped_recipes().values()]
    found = []
    for task in PUBLIC.choices(Task).values():
        text = next((text for text in texts if task.key in yaml.safe_load(text)), texts[0])
        found += [(text, path) for path in _keys(task, (), set())]
    return found


def _written(text: str, path: tuple[Any, ...], value: str) -> str:
    """The recipe with a value, as it is written, at a key; the classes on the way to it are written as well."""
    recipe = yaml.safe_load(text)
    node = recipe
    for name, below in zip(path, (*path[1:], None)):
        if isinstance(name, type):
            continue
        if below is None:
            node[name] = _BAD
        elif isinstance(below, type):
            node[name] = {"type": below.__name__}
            node = node[name]
        else:
            node = node.setdefault(name, {}) if isinstance(node.get(name, {}), dict) else {}
    return yaml.safe_dump(recipe, sort_keys=False).replace(f"'{_BAD}'", value)


def _damaged(text: str, draw: random.Random) -> bytes:
    content, kind = text.encode(), draw.choice(_DAMAGE)
    at = draw.randrange(len(content))
    made = {
        "truncate": content[:at],
        "flip": content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
        "bom": b"\xef\xbb\xbf" + content,
        "utf16": text.encode("utf-16"),
        "latin1": content + b"# \xe9\n",
        "nul": content[:at] + b"\0" + content[at:],
        "tab": content.replace(b"  ", b"\t", 1),
        "twice": content + content,
        "deep": b"data: " + b"[" * draw.choice([100, 5000, 100_000]),
        "long": content + b"name: " + b"x" * draw.choice([10_000, 3_000_000]),
        "empty": b"",
        "list": b"- 1\n- 2\n",
        "escape": content.replace(b"type:", b'"\\e]0;owned\\a":', 1),
    }
    return made[kind]


def _surroundings() -> None:
    """What hostile values name: a pipe, a link to itself, a folder, an empty and a binary file."""
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    Path("folder").mkdir()
    Path("empty").touch()
    Path("binary").write_bytes(bytes(range(256)))


def key(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """A hostile value at a key of a recipe, or a recipe damaged as a text."""
    keys = all_keys()
    text, path = keys[index % len(keys)] if index < len(keys) else draw.choice(keys)
    value = draw.choice(VALUES)
    _surroundings()
    file, plain = Path("recipe.yaml"), ".".join(name for name in path if isinstance(name, str))
    words: list[str] = draw.choice([["check"], ["check", "--json"], ["run", "--dry-run", "--out", "out"]])
    if index % 12 == 11:
        file.write_bytes(_damaged(text, draw))
    elif index % 5 == 4:
        file.write_text(text)
        words += ["--set", f"{plain}={value}"]
    else:
        file.write_text(_written(text, path, value), errors="surrogateescape")
    before = snapshot(Path.cwd())
    found = len(verdict.notes)
    verdict.judge(run(words[0], str(file), *words[1:]), (0, 2))
    untouched(verdict, before, (Path.cwd(),), "after " + " ".join(words)[:100])
    if verdict.notes[found:]:
        verdict.notes.append(f"    {plain} = {value[:100]}")


_RIGHT = {  # the arguments of each command
    "run": ["ring.yaml", "--out", "out"],
    "check": ["ring.yaml"],
    "sample": ["images"],
    "inpaint": ["images", "picture.png"],
    "edit": ["images", "picture.png"],
    "likelihood": ["ring"],
    "report": ["images"],
    "compare": ["ring", "--nfe", "2", "--count", "20", "--out", "out"],
    "evaluate": ["ring", "--nfe", "2", "--count", "20", "--out", "out"],
    "export": ["latent", "out"],
    "list": [],
    "describe": ["DDPM"],
}
_WORDS = (
    *("", "x", "-1", "0", "1", "2", "0.5", "1.5", "nan", "inf", "-inf", "1e400", "1" + "0" * 30, "9" * 5000, "--", "-"),
    *("1,2", "1,,2", ",", "0.2,0.8", "0.8,0.2", "nan,nan", "3", "cpu", "cuda:99", "cuda:x", "mps", "auto", "class"),
    *(
        "ring",
        "images",
        "latent",
        "ring.yaml",
        "values.npy",
        "picture.png",
        "fifo",
        "loop",
        "folder",
        "empty",
        "binary",
    ),
    *(
        "missing/x.png",
        "/dev/zero",
        "/dev/full",
        "/dev/null",
        "/proc/self/mem",
        "~nobody_at_all",
        "n" * 300,
        "a/" * 3000,
    ),
    *(
        "\x1b]0;owned\x07",
        "\x9b2J",
        "$\\frac{$",
        "\udcff.png",
        "..",
        "/",
        "./ring/",
        "images/recipe.yaml",
        "ddim",
        "a=b",
    ),
    *(
        "training.steps=x",
        "cond.label=1",
        "cond.=",
        "=",
        "a.b.c=1",
        "sampling.count=0",
        "sampling.batch=0",
        "x=[",
        "x=",
    ),
    *(
        "sampling.solver={type: Heun}",
        "sampling.count=1",
        "sampling.grid=null",
        "training.lr=1e400",
        "cond.x=/dev/zero",
    ),
)


@functools.cache
def all_options() -> dict[str, list[tuple[str, bool]]]:
    """The options of each command: name, and whether it takes a value."""
    from unidiff.cli.app import command_line

    listed = {}
    for name, command in command_line.commands.items():
        options = [own for own in command.params if own.param_type_name == "option"]
        listed[name] = [(word, not own.is_flag) for own in options for word in own.opts]
    return listed


def option(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """A command with one to three options and arguments that are missing, hostile or contradict each other."""
    import shutil

    _surroundings()
    names = sorted(all_options())
    name = names[index % len(names)]
    right = [*_RIGHT.get(name, [])]
    for needed in {word for word in right if (templates / word).exists()} | {draw.choice(["ring", "images", "latent"])}:
        source = templates / needed
        shutil.copytree(source, needed) if source.is_dir() else shutil.copy(source, needed)
    shutil.copy(templates / "pictures/a/0.png", "picture.png")
    words = [draw.choice(_WORDS) if draw.random() < 0.15 else word for word in right]
    if words and draw.random() < 0.1:
        del words[draw.randrange(len(words))]
    options = all_options()[name]
    for at in range(draw.randint(1, 3)):
        if options:  # the first one of all in turn
            chosen = options[index // len(names) % len(options)] if at == 0 else draw.choice(options)
            words += [chosen[0], draw.choice(_WORDS)] if chosen[1] else [chosen[0]]
        else:
            words.append(draw.choice(_WORDS))
    if name == "run" and draw.random() < 0.7:
        words.append("--dry-run")
    before = snapshot(Path.cwd())
    result = run(name, *words, patience=TRAINING if name in ("run", "compare", "evaluate") else 20)
    verdict.judge(result)
    if result.code == 2:
        untouched(verdict, before, (Path.cwd(),), "after unidiff " + " ".join((name, *words))[:200])
