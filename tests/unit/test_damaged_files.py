"""Whatever is in a file, its reader returns or raises an error that a user can correct: files damaged at random."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import mutated_bytes, mutated_values
from PIL import Image

from unidiff.codec.folder import read_layout
from unidiff.data.array import ArrayFile
from unidiff.data.image import decode
from unidiff.data.mnist import MNIST
from unidiff.errors import UnidiffError
from unidiff.pretrained import read_json
from unidiff.recipe.yaml_tree import read_yaml
from unidiff.run.directory import RunDirectory
from unidiff.run.task import load_recipe
from unidiff.training.checkpoint import Checkpoint, Checkpoints
from unidiff.training.optimizer import AdamW
from unidiff.training.optimizer_state import require_like

pytestmark = pytest.mark.filterwarnings("ignore")
FEW, MANY = 12, 150
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]  # hundreds of files of each kind
RECIPE = """\
data: {type: Digits}
process: {type: DDPM}
parameterization: {type: Eps}
backbone: {type: UNet, width: 8, multipliers: [1, 2], blocks: 1}
training: {steps: 4, batch: 4, lr: 1.0e-3, log_every: 2, tensorboard: false}
sampling: {solver: {type: DDIM}, grid: {type: Uniform, steps: 2}, count: 2}
"""
STATE = {"seconds": 0.5, "loss_sum": 0.25}
MANIFEST = {
    "started": "2026-01-01T00:00:00+00:00",
    "kept": {"codec/config.json": "sha256:0"},
    "data": {"name": "Digits", "count": 3, "shape": [1, 8, 8], "checksum": "sha256:0", "class_names": ["0", "1"]},
    "start": {"path": "runs/a", "digest": "sha256:0", "step": 3},
    "seed": 0,
}
CODEC = {
    "_class_name": "AutoencoderKL",
    "in_channels": 1,
    "latent_channels": 2,
    "block_out_channels": [8, 8],
    "scaling_factor": 0.5,
}


def survived(read: Callable[[], object]) -> bool:
    """Whether a reader returned; any error but one that a user can correct fails the test."""
    try:
        read()
    except UnidiffError:
        return False
    return True


def survivors(path: Path, contents: Iterator[bytes], read: Callable[[], object]) -> list[bool]:
    """Whether the reader of a file returned, for each content."""
    results = []
    for content in contents:
        path.write_bytes(content)
        results.append(survived(read))
    assert False in results
    return results


def as_json(values: Iterator[Any]) -> Iterator[bytes]:
    return (json.dumps(value).encode() for value in values)


@pytest.mark.parametrize("count", COUNTS)
def test_recipes(tmp_path, count):
    path = tmp_path / "recipe.yaml"
    survivors(path, mutated_bytes(RECIPE.encode(), count), lambda: load_recipe(path))
    values = read_yaml(RECIPE, "recipe").plain()
    survivors(path, as_json(mutated_values(values, count)), lambda: load_recipe(path))


@pytest.mark.parametrize("count", COUNTS)
def test_manifests_and_metrics(tmp_path, count):
    files = RunDirectory(tmp_path)
    path, metrics = tmp_path / "manifest.json", tmp_path / "metrics.jsonl"

    def read() -> None:
        assert files.read_manifest().entries is not None
        files.check_kept()

    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "config.json").write_bytes(b"")
    valid = {**MANIFEST, "kept": {"codec/config.json": f"sha256:{hashlib.sha256(b'').hexdigest()}"}}
    assert True in survivors(path, as_json(mutated_values(valid, count)), read)
    survivors(path, mutated_bytes(json.dumps(valid).encode(), count), read)
    lines = [{"step": step, "loss": 0.5, "lr": 0.1, "grad_norm": 1.0, "seconds": 0.1 * step} for step in range(1, 5)]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    for content in mutated_bytes(text, count):
        metrics.write_bytes(content)
        files.cut_metrics(3)
        left = files.read_metrics()
        assert metrics.read_bytes().count(b"\n") == len(left)  # what is damaged is gone, and said once
        assert all(line["step"] <= 3 and type(line["loss"]) in (int, float) for line in left)


def checkpoint(folder: Path) -> tuple[Checkpoints, Path, Callable[[], object]]:
    """Two checkpoints of a small network, the folder of the newer one, and what reads it as training does."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoints, weights = Checkpoints(folder, keep=2), network.state_dict()
    for step in (1, 2):
        new = checkpoints.save(Checkpoint(step, weights, weights, optimizer.state_dict(), STATE))

    def restore(saved: Checkpoint) -> None:
        network.load_state_dict(saved.model)
        require_like(saved.optimizer, optimizer, AdamW())
        optimizer.load_state_dict(saved.optimizer)
        float(saved.extra["seconds"]) + float(saved.extra["loss_sum"])
        optimizer.step()  # what was read can be trained with

    def read() -> Checkpoint | None:
        return checkpoints.load(lambda text: None, restore=restore)

    return checkpoints, new, read


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.pt"])
def test_checkpoints(tmp_path, name, count):
    _, folder, read = checkpoint(tmp_path)
    state = json.loads((folder / "state.json").read_text())
    content = (folder / name).read_bytes()
    steps = set()
    for damaged in mutated_bytes(content, count):
        (folder / name).write_bytes(damaged)
        if name != "state.json":  # the digests are those of the damaged file: a stranger made it
            state["files"][name] = hashlib.sha256(damaged).hexdigest()
            (folder / "state.json").write_text(json.dumps(state))
        steps.add(read().step)  # the older checkpoint is whole
    assert 1 in steps
    for value in mutated_values(state, count):
        (folder / "state.json").write_text(json.dumps(value))
        assert read().step in (1, 2)


@pytest.mark.parametrize("change", [
    lambda state: [state],
    lambda state: {},
    lambda state: {**state, "param_groups": []},
    lambda state: {**state, "param_groups": [{**state["param_groups"][0], "betas": "x"}]},
    lambda state: {**state, "param_groups": [{**state["param_groups"][0], "params": [0, 7]}]},
    lambda state: {**state, "state": {7: state["state"][0]}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg": torch.ones(()).expand(10**6, 10**6)}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg": torch.zeros(1).expand(2, 3)}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg": torch.zeros(3, 2).t()}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg": torch.zeros(2, 3, device="meta")}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg": torch.full((2, 3), torch.nan)}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "exp_avg_sq": -torch.ones(2, 3)}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "step": torch.tensor(-1.0)}}},
    lambda state: {**state, "state": {0: {**state["state"][0], "step": "x"}}},
    lambda state: {**state, "state": {0: {"step": state["state"][0]["step"]}}},
])  # fmt: skip
def test_the_state_of_another_optimiser_is_skipped(tmp_path, change):
    _, folder, read = checkpoint(tmp_path)
    state = json.loads((folder / "state.json").read_text())
    assert read().step == 2
    torch.save(change(torch.load(folder / "optimizer.pt")), folder / "optimizer.pt")
    state["files"]["optimizer.pt"] = hashlib.sha256((folder / "optimizer.pt").read_bytes()).hexdigest()
    (folder / "state.json").write_text(json.dumps(state))
    assert read().step == 1


@pytest.mark.parametrize(("name", "value"), [
    ("seconds", math.inf), ("seconds", -1.0), ("seconds", True), ("loss_sum", math.nan), ("loss_sum", "1_0"),
    ("summed", -2), ("summed", 10**400), ("summed", True), ("seen", -1), ("seen", 1e300), ("first_loss", []),
])  # fmt: skip
def test_counts_that_no_training_has_are_damage(tmp_path, name, value):
    _, folder, read = checkpoint(tmp_path)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "extra": {**state["extra"], name: value}}))
    assert read().step == 1


@pytest.mark.parametrize("count", COUNTS)
def test_arrays(tmp_path, count):
    file = io.BytesIO()
    np.save(file, np.linspace(-1, 1, 20 * 64, dtype=np.float32).reshape(20, 1, 8, 8))
    path = tmp_path / "a.npy"
    opened = ArrayFile(str(path), layout="NCHW")
    survivors(path, mutated_bytes(file.getvalue(), count), lambda: opened.open().batch(torch.arange(2)))


@pytest.mark.parametrize("count", COUNTS)
def test_idx_files(tmp_path, monkeypatch, count):
    monkeypatch.setattr(MNIST, "counts", {"train": 20, "test": 20})
    monkeypatch.setattr(MNIST, "content_md5", {})
    images = struct.pack(">4B3I", 0, 0, 8, 3, 20, 28, 28) + bytes(20 * 784)
    labels = struct.pack(">4BI", 0, 0, 8, 1, 20) + bytes(20)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    survivors(path, mutated_bytes(gzip.compress(images), count), MNIST(root=str(tmp_path)).open)
    survivors(path, map(gzip.compress, mutated_bytes(images, count)), MNIST(root=str(tmp_path)).open)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA"])
def test_images(tmp_path, kind, count):
    file = io.BytesIO()
    Image.fromarray(np.arange(20 * 16 * 3, dtype=np.uint8).reshape(20, 16, 3)).save(file, kind)
    path = tmp_path / "a.png"
    path.write_bytes(file.getvalue())
    assert survived(lambda: decode(path, 8, 3))
    survivors(path, mutated_bytes(file.getvalue(), count), lambda: decode(path, 8, 3))


@pytest.mark.parametrize("count", COUNTS)
def test_configurations(tmp_path, count):
    path = tmp_path / "config.json"

    def read() -> None:
        read_layout(tmp_path).latent_shape((1, 8, 8))

    assert True in survivors(path, as_json(mutated_values(CODEC, count)), read)
    survivors(path, mutated_bytes(json.dumps(CODEC).encode(), count), lambda: read_json(path))
