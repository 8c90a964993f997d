"""Directories of a stranger: mutations of real ones, and the commands that read them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stress.broken import untouched
from stress.command import Verdict, run, snapshot
from stress.jobs import RUNS, TRAINING
from stress.mutations import mutate


def _load_codec() -> None:
    from unidiff.codec.folder import load_codec

    _as_command(lambda: load_codec("codec"))


def _load_pipeline() -> None:
    from unidiff.interop.diffusers.load import load

    _as_command(lambda: load("pipeline"))


def _as_command(call: Callable[[], Any]) -> None:
    from unidiff.errors import UnidiffError

    try:
        call()
    except UnidiffError as error:
        raise SystemExit(f"unidiff: {error}") from None


def _small_mnist(folder: Path) -> None:
    """The twenty images of the templates are all of MNIST."""
    from unidiff.data.mnist import MNIST

    MNIST.counts = {"train": 20, "test": 20}
    MNIST.content_md5 = json.loads((folder / "mnist.json").read_text())


_RUN = "run"
_READERS: dict[str, list[list[Any]]] = {
    _RUN: [
        ["check", "run/recipe.yaml"],
        ["run", "run/recipe.yaml", "--resume"],
        ["run", "run/recipe.yaml", "--overwrite"],
        ["sample", "run", "--array", "x.npy", "--out", "x.png"],
        ["sample", "run", "--count", "1"],
        ["compare", "run", "--solvers", "ddim", "--nfe", "2", "--count", "20", "--out", "out"],
        ["evaluate", "run", "--nfe", "2", "--count", "20", "--out", "out"],
        ["export", "run", "out"],
        ["likelihood", "run", "--count", "1"],
        ["report", "run"],
        ["run", "start.yaml", "--out", "out"],
        ["sample", "images", "--class", "1", "--guidance", "2", "--classifier", "run"],
    ],
    "pictures": [
        ["run", "folder.yaml", "--dry-run"],
        ["run", "folder.yaml", "--out", "out"],
        ["evaluate", "pictures", "--data", "digits", "--out", "out"],
    ],
    "values.npy": [
        ["run", "array.yaml", "--dry-run"],
        ["run", "array.yaml", "--out", "out"],
        ["evaluate", "values.npy", "--data", "digits", "--out", "out"],
    ],
    "mnist": [["run", "mnist.yaml", "--dry-run"], ["run", "mnist.yaml", "--out", "out"]],
    "codec": [["run", "latent.yaml", "--dry-run"], ["run", "latent.yaml", "--out", "out"], [_load_codec]],
    "pipeline": [["run", "started.yaml", "--out", "out"], [_load_pipeline]],
}


def read(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """Mutate a directory, and run up to three commands that read it: all they may write is inside it, or named."""
    kind = [_RUN, *_READERS][index % (len(_READERS) + 1)]
    name = draw.choice(RUNS) if kind == _RUN else kind
    source = templates / name
    Path("canary/inside").mkdir(parents=True)
    for file in ("canary/secret", "canary/recipe.yaml", "canary/inside/grid.png"):
        Path(file).write_text("must stay")
    shutil.copytree(source, kind) if source.is_dir() else shutil.copy(source, kind)
    for file in templates.glob("*.yaml"):
        shutil.copy(file, file.name)
    start = (templates / "started.yaml").read_text().replace("pipeline", "run")
    Path("start.yaml").write_text(start)
    if name == "latent":
        shutil.copytree(templates / "codec", "codec")
    if kind == _RUN and draw.random() < 0.5:  # so that there is something left to train
        shutil.rmtree(max(Path("run/checkpoints").iterdir()))
    done = [mutate(Path(kind), draw) for _ in range(draw.choice([1, 1, 2, 3]))]
    if kind == _RUN and draw.random() < 0.5:
        _sign(Path(kind))
    choices = _READERS[kind]
    if kind == _RUN and any("--classifier" in words for words in choices):
        shutil.copytree(templates / "images", "images")
    before, outside = len(verdict.notes), snapshot(Path("canary"))
    for words in draw.sample(choices, min(3, len(choices))):
        program, line = (words[0], ["load"]) if callable(words[0]) else (None, words)
        prepare = (lambda: _small_mnist(templates)) if kind == "mnist" else lambda: None
        result = run(*line, program=program, prepare=prepare, patience=TRAINING if kind == _RUN else 15)
        verdict.judge(result, (0, 1, 2))
    untouched(verdict, outside, (Path("canary"),), "written outside the directory")
    if verdict.notes[before:]:
        verdict.notes.append(f"    {name}: {'; '.join(done)}")


def _sign(folder: Path) -> None:
    """Write the digests of the mutated checkpoints into their state, as a stranger would."""
    for state in folder.glob("checkpoints/*/state.json"):
        try:
            if not state.is_file() or state.stat().st_size > 1 << 20:  # it may be mutated, into a device too
                continue
            content = json.loads(state.read_text())
            names = [file for file in content["files"] if (state.parent / file).is_file()]
            sizes = {file: (state.parent / file).stat().st_size for file in names}
            small = [file for file in names if sizes[file] < 1 << 24]
            content["files"] |= {f: hashlib.sha256((state.parent / f).read_bytes()).hexdigest() for f in small}
            state.write_text(json.dumps(content))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
