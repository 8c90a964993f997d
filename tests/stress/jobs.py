"""What is broken off: runs, codecs, classifiers, exports, samplings and reports, and what each must end with."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stress.command import Verdict, run, snapshot
from stress.faults import count_into

_TRAINING = {"steps": 8, "batch": 8, "lr": 0.01, "precision": "fp32", "log_every": 3, "checkpoint_every": 3}
_TRAINING |= {"preview_every": 0, "tensorboard": False}
_PROCESS = {"process": {"type": "DDPM", "T": 50}}
_DRAWN = {"sampling": {"solver": {"type": "DDIM"}, "grid": {"type": "Uniform", "steps": 4}, "count": 4}}
_RING = {"data": {"type": "Ring", "count": 300}, **_PROCESS, "parameterization": {"type": "Eps"}, **_DRAWN}
_RING |= {"backbone": {"type": "MLP", "width": 16, "depth": 1}, "training": _TRAINING}
_UNET = {"type": "UNet", "width": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
_SMALL = {**_TRAINING, "batch": 4, "steps": 4, "checkpoint_every": 2}
_IMAGES = {**_RING, "data": {"type": "Digits"}, "backbone": {**_UNET, "classes": 10}}
_IMAGES |= {"conditioning": {"type": "Labels", "dropout": 0.1}}
_IMAGES |= {"training": {**_SMALL, "preview_every": 3, "tensorboard": True}}
_VAE = {"data": {"type": "Digits"}, "training": _SMALL}
_VAE |= {"codec": {"type": "AutoencoderKL", "channels": [8, 8], "latent_channels": 2}}
_ENCODER = {"type": "UNetEncoder", "width": 8, "multipliers": [1], "blocks": 1}
_PLAIN = {**_RING, "backbone": _UNET, "training": _SMALL}
RECIPES: dict[str, dict[str, Any]] = {
    "ring": _RING,
    "other": {**_RING, "seed": 1},
    "images": _IMAGES,
    "codec": _VAE,
    "classifier": {"data": {"type": "Digits"}, **_PROCESS, "classifier": _ENCODER, "training": _SMALL},
    "latent": {**_PLAIN, "data": {"type": "Latent", "data": {"type": "Digits"}, "codec": "codec"}},
    "solvers": {"data": {"type": "Ring"}, **_PROCESS, "solvers": ["ddim"], "nfe": [2, 4], "count": 20, "seed": 0},
    "folder": {**_PLAIN, "data": {"type": "ImageFolder", "root": "pictures", "size": 8, "channels": 1}},
    "array": {**_PLAIN, "data": {"type": "ArrayFile", "path": "values.npy", "layout": "NCHW"}},
    "mnist": {**_PLAIN, "data": {"type": "MNIST", "root": "mnist", "size": 8}},
    "started": {**_PLAIN, "data": {"type": "Digits"}, "start": "pipeline"},
}
TRAINING = 60.0  # seconds of processor time after which the smallest training hangs
_TIMED = ("seconds", "cpu_seconds", "joules_per_1000", "environment")  # entries that differ between equal results
RUNS = ("ring", "images", "codec", "classifier", "latent")  # what templates hold, trained


@dataclass(frozen=True)
class Job:
    """A command that is broken off.

    Attributes:
        name: Its name.
        words: The command.
        writes: The file or folder that it makes.
        needs: Templates that it needs, which are copied beside it, each perhaps under another name.
        after: Words of the commands that go on with it, best first; one of them must be accepted.
        results: Patterns of the files that must be the same in the end.
    """

    name: str
    words: tuple[str, ...]
    writes: str
    needs: tuple[tuple[str, str], ...]
    after: tuple[tuple[str, ...], ...]
    results: tuple[str, ...]

    def fill(self, folder: Path, templates: Path) -> None:
        """Copy what it needs into a folder."""
        for name, copy in self.needs:
            source = templates / name
            shutil.copytree(source, folder / copy) if source.is_dir() else shutil.copy(source, folder / copy)

    def found(self, folder: Path) -> dict[str, str]:
        """What it has made: a digest of each file, without what a clock says."""
        return {str(path.relative_to(folder)): _digest(path) for path in _matching(folder, self.results)}

    def differing(self, folder: Path, templates: Path) -> list[str]:
        """What it should have made and has not; an older checkpoint that could not be removed is no fault."""
        expected, found = unbroken(templates)[self.name]["found"], self.found(folder)
        return [name for name in expected if found.get(name) != expected[name]]


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        content = json.dumps([_timeless(json.loads(text)) for text in texts]).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in _TIMED}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


def _training(name: str, recipe: str, old: str | None = None) -> Job:
    start = ("run", f"{recipe}.yaml", "--out", "out")
    after = tuple((*start, option) for option in ("--resume", "--overwrite"))
    needs = ((f"{recipe}.yaml", f"{recipe}.yaml"),)
    needs += (("codec", "codec"),) if recipe == "latent" else ()
    needs += ((old, "out"),) if old else ()
    results = ("out/checkpoints/*/[me]*.safetensors", "out/metrics.jsonl", "out/codec/*.safetensors")
    return Job(name, (*start, "--overwrite") if old else start, "out", needs, (*after, start), results)


def _on(run: str, name: str, words: str, writes: str, results: str, *, overwrite: bool = False, old: str = "") -> Job:
    line = tuple(words.split())
    after = (line, (*line, "--overwrite")) if overwrite else (line,)
    needs = ((run, run), *(((old, writes),) if old else ()))
    return Job(name, (*line, "--overwrite") if old else line, writes, needs, after, (results,))


_EVALUATE = "evaluate images --nfe 2 --count 20 --out out"
_COMPARE = "compare images --solvers ddim --nfe 2 --count 20 --out out"
JOBS = (
    _training("run", "ring"),
    _training("run of images", "images"),
    _training("overwrite", "other", "ring"),
    _training("codec", "codec"),
    _training("classifier", "classifier"),
    _training("latent run", "latent"),
    _on("latent", "export", "export latent out", "out", "out/**/*.safetensors", overwrite=True),
    _on("latent", "export again", "export latent out", "out", "out/**/*.safetensors", overwrite=True, old="pipeline"),
    _on("images", "sample", "sample images --count 2 --array out.npy --out out.png", "out.npy", "out.npy"),
    _on("images", "report", _COMPARE, "out", "out/compare.json", overwrite=True),
    _on("images", "evaluation", _EVALUATE, "out", "out/evaluate.json", overwrite=True),
    _on("solvers.yaml", "comparison", "run solvers.yaml --out out", "out", "out/compare.json", overwrite=True),
)


def prepare(templates: Path) -> None:
    """Make the recipes and the finished runs that cases copy, and what each job ends with when nothing breaks it.

    Raises:
        SystemExit: If one of them fails: nothing can be tried then.
    """
    import numpy as np
    from PIL import Image

    for name, recipe in RECIPES.items():
        (templates / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    draw = np.random.default_rng(0)
    np.save(templates / "values.npy", draw.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    for index in range(12):
        folder = templates / "pictures" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index}.png")
    _idx(templates, draw.integers(0, 256, (20, 28, 28), dtype=np.uint8), draw.integers(0, 10, 20, dtype=np.uint8))
    before = Path.cwd()
    os.chdir(templates)
    try:
        for name in RUNS:
            _must("run", f"{name}.yaml", "--out", name)
        _must("export", "latent", "pipeline")
        expected = {}
        for job in JOBS:
            folder = templates / "unbroken" / job.name
            folder.mkdir(parents=True)
            job.fill(folder, templates)
            os.chdir(folder)
            begun = time.monotonic()
            _must(*job.words, prepare=count_into(folder / "count"))
            seconds, count = time.monotonic() - begun, int((folder / "count").read_text())
            expected[job.name] = {"seconds": seconds, "count": count, "found": job.found(folder)}
        (templates / "expected.json").write_text(json.dumps(expected))
    finally:
        os.chdir(before)


def _idx(templates: Path, *arrays: Any) -> None:
    """Twenty images and their classes as the files of MNIST, and the digests of their content."""
    digests = {}
    (templates / "mnist").mkdir()
    for name, values in zip(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), arrays):
        content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
        (templates / "mnist" / f"{name}.gz").write_bytes(gzip.compress(content))
        digests[name] = hashlib.md5(content).hexdigest()
    (templates / "mnist.json").write_text(json.dumps(digests))


def go_on(verdict: Verdict, job: Job, templates: Path) -> None:
    """Go on with a job that was broken off, and hold its end against that of an unbroken one.

    Its results are lost unless one of the commands that go on with it is accepted and ends with the same.
    """
    said = []
    for words in job.after:
        result = run(*words, patience=TRAINING)
        verdict.judge(result, (0, 2))
        if result.code == 0:
            break
        said.append(f"{result.code}: {(result.err.strip().splitlines() or [''])[-1][:300]}")
    else:
        verdict.add("lost", f"{job.name}: nothing goes on with it: {' | '.join(said)}; {sorted(snapshot(Path('out')))}")
        return
    if wrong := job.differing(Path.cwd(), templates):
        verdict.add("lost", f"{job.name}: {wrong} are not those of an unbroken one after {words}")
    if partial := [name for name in snapshot(Path("out")) if "/.partial" in name]:
        verdict.add("left behind", f"{job.name}: {partial}")


def unbroken(templates: Path) -> dict[str, Any]:
    """Of each job: how long it took, how many file operations it made, and what it ended with."""
    return json.loads((templates / "expected.json").read_text())


def _must(*words: str, **options: Any) -> None:
    result = run(*words, patience=600, **options)
    if result.code != 0:
        raise SystemExit(f"unidiff {' '.join(words)} -> {result.code}:\n{result.out}{result.err}")
