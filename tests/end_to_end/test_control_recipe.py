"""A run with a control branch from end to end: resumed, sampled with an image of the user, guided."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import unidiff

import unidiff as ud

CHANGES = ["training.steps=2", "training.batch=4", "training.warmup=0", "training.preview_every=0", "sampling.count=2"]
CHANGES += ["sampling.grid.steps=2", "training.checkpoint_every=1"]


@pytest.mark.slow  # 4 s: a run of two steps and its samples
def test_a_run_with_a_control_branch(tmp_path):
    words = [word for change in CHANGES for word in ("--set", change)]
    path = tmp_path / "run"
    result = unidiff("run", "control_digits", "--out", path, *words)
    assert result.code == 0, result.err
    assert json.loads((path / "manifest.json").read_text())["trained"] == 315_488
    # The network inside is that of its start, bit for bit, and a copy of the start is kept.
    run, base = ud.load(path, device="cpu"), ud.load("shipped:ddpm_digits_classes", device="cpu")
    weights = run.denoiser.backbone.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in base.denoiser.backbone.state_dict().items())
    assert load_file(path / "start.safetensors").keys() == run.denoiser.backbone.state_dict().keys()

    image, edges = tmp_path / "digit.png", tmp_path / "edges.png"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(image)
    x = torch.from_numpy(pixels)[None, None] / 127.5 - 1
    drawn = ud.Edges().measure(x, x[:, :0])[0, 0]
    Image.fromarray(((drawn > 0) * 255).byte().numpy()).save(edges)
    # The edges of an image, and the same edges drawn: the same samples. Guidance is by the label.
    samples = []
    for option in (["--image", image], ["--set", f"cond.image={edges}"]):
        out = tmp_path / f"{len(samples)}.npy"
        result = unidiff(
            "sample",
            path,
            *option,
            "--class",
            "3",
            "--guidance",
            "2",
            "--count",
            "2",
            "--out",
            out.with_suffix(".png"),
            "--array",
            out,
            "--json",
        )
        assert result.code == 0, result.err
        samples.append(np.load(out))
    assert samples[0].shape == (2, 1, 8, 8)
    assert np.array_equal(*samples)
