"""`unidiff run` on signals, volumes and videos, and every command that reads such a run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import RING, equal, metrics, refused, unidiff, write
from torch import nn

import unidiff as ud

SIGNAL, VIDEO = (2, 16), (1, 3, 8, 8)
UNET = {"type": "UNet", "width": 8, "multipliers": [1, 2], "blocks": 1}
CASES = {
    "signal": (SIGNAL, "NCL", UNET),
    "volume": (VIDEO, "NCDHW", {"type": "DiT", "width": 8, "depth": 1, "heads": 2, "patch": 1, "axial": True}),
    "video": (VIDEO, "NCDHW", {**UNET, "factorized": True, "attention": [4], "heads": 2}),
}


def recipe(tmp_path, shape, layout, backbone):
    values = np.random.default_rng(0).uniform(-1, 1, (200, *shape)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "y.npy", np.arange(200) // 10 % 2)
    data = {"type": "ArrayFile", "path": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy"), "layout": layout}
    return write(tmp_path, {**RING, "data": data, "backbone": {**backbone, "classes": 2}, "conditioning": "labels"})


@pytest.mark.slow  # 2 s each: whole runs
@pytest.mark.parametrize("case", CASES)
def test_a_run_of_any_rank(case, tmp_path, monkeypatch):
    shape, layout, backbone = CASES[case]
    path, run = recipe(tmp_path, shape, layout, backbone), tmp_path / "run"
    assert unidiff("run", path, "--out", run, "--set", "training.preview_every=4").code == 0
    loaded, lines = ud.load(run), metrics(run)
    assert loaded.sample(label=torch.tensor([0, 1, 0, 1])).x.shape == (4, *shape)
    # From an earlier checkpoint it comes to the same weights, bit for bit.
    *_, last = sorted((run / "checkpoints").iterdir())
    shutil.rmtree(last)
    assert unidiff("run", path, "--out", run, "--resume", "--set", "training.preview_every=4").code == 0
    assert last.is_dir()
    assert equal(loaded.denoiser.state_dict(), ud.load(run).denoiser.state_dict())
    assert metrics(run) == lines
    files = {file.name for file in (run / "samples").iterdir()}
    assert {"grid.png", "trajectory.png", "trajectory.gif", "step-00000004.png"} <= files
    assert ("frames.gif" in files) == (len(shape) == 4)
    if len(shape) == 4:
        with Image.open(run / "samples/frames.gif") as gif:
            assert gif.n_frames == shape[1]

    out = tmp_path / "x.png"
    result = unidiff("sample", run, "--class", "1", "--count", "2", "--array", tmp_path / "s.npy", "--out", out)
    assert result.code == 0, result.err
    assert np.load(tmp_path / "s.npy").shape == (2, *shape)
    if case == "signal":  # the flow of a network takes seconds
        result = unidiff("likelihood", run, "--count", "2", "--tolerance", "0.1", "--levels", "0", "--json")
        assert result.code == 0, result.err
        assert np.isfinite(json.loads(result.out)["flow"]["nats"])
        monkeypatch.setattr("unidiff.tasks.comparison_models._TOLERANCE", 10.0)  # the first doubling is enough
        where = ("--count", "20", "--out", tmp_path / "compared")
        result = unidiff("compare", run, "--solvers", "ddim", "--nfe", "2", *where)
        assert result.code == 0, result.err

    np.save(tmp_path / "image.npy", np.full(shape, 0.25, np.float32))
    mask = np.zeros(shape[1:], np.float32)
    mask[..., :4] = 1
    np.save(tmp_path / "mask.npy", mask)
    where = ("--count", "2", "--array", tmp_path / "edited.npy", "--out", out)
    assert unidiff("edit", run, tmp_path / "image.npy", "--map", tmp_path / "mask.npy", *where).code == 0
    # Where the strength is 0, the sample stays: a last denoise from t_min apart, which the map leaves out.
    assert np.abs(np.load(tmp_path / "edited.npy")[..., 4:] - 0.25).max() < 1e-5
    assert unidiff("inpaint", run, tmp_path / "image.npy", tmp_path / "mask.npy", *where).code == 0
    assert (np.load(tmp_path / "edited.npy")[..., 4:] == 0.25).all()
    np.save(tmp_path / "mask.npy", mask[..., :-1])
    assert "must have shape" in refused("inpaint", run, tmp_path / "image.npy", tmp_path / "mask.npy")
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    assert "are not images. Pass a .npy array." in refused("edit", run, tmp_path / "x.png")


def test_a_network_of_another_rank_is_refused_before_the_data_are_read(tmp_path):
    path = recipe(tmp_path, SIGNAL, "NCL", {**UNET, "factorized": True})
    (tmp_path / "y.npy").unlink()
    message = refused("check", path)
    assert "it does not fit the samples of" in message
    assert "shape must be (channels, depth, height, width)" in message


def test_a_classifier_of_signals_guides():
    process = ud.VPSDE()
    encoder = ud.UNetEncoder((2, 16), 8, (1, 2), classes=2)
    nn.init.normal_(encoder.head.weight)
    model = ud.NeuralDenoiser(process, ud.V(), ud.UNet((2, 16), 8, (1, 2), 1))
    guided = ud.ClassifierGuidance(model, ud.NeuralClassifier(process, encoder), 2.0)
    options = {"grid": ud.Uniform(3), "seeds": 2}
    plain, x = ud.sample(model, **options).x, ud.sample(guided, **options, label=torch.tensor([0, 1])).x
    assert x.shape == (2, 2, 16)
    assert (x - plain).abs().max() > 1e-4


@pytest.mark.slow  # 3 s of CPU: a whole run
def test_classes_and_images_of_any_rank_join(tmp_path):
    # Each class with each signal: 2 x 1 samples from the command line.
    data = {"type": "Notes", "count": 40}
    both = ["labels", {"type": "SuperResolution", "factor": 4}]
    path = write(tmp_path, {**RING, "data": data, "backbone": UNET, "conditioning": both})
    assert unidiff("run", path, "--out", tmp_path / "run", "--set", "training.steps=1").code == 0
    np.save(tmp_path / "small.npy", np.zeros((1, 128), np.float32))
    words = ("--class", "3,8", "--image", tmp_path / "small.npy", "--count", "1", "--array", tmp_path / "s.npy")
    result = unidiff("sample", tmp_path / "run", *words)
    assert result.code == 0, result.err
    assert np.load(tmp_path / "s.npy").shape == (2, 1, 512)
