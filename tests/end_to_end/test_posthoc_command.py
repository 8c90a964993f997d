"""`unidiff ema` and `posthoc_ema`: a run with an average of another length, as a run of its own."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import RING, unidiff, write

import unidiff as ud

# A run of 12 steps, and what reads it: a second.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("posthoc")
    training = {**RING["training"], "steps": 12, "posthoc_every": 2, "optimizer": {"type": "Muon"}, "report": False}
    assert unidiff("run", write(folder, {**RING, "training": training}), "--out", folder / "run").code == 0
    return folder / "run"


def test_the_model_is_a_run_that_commands_take(run, tmp_path):
    made = unidiff("ema", run, "--sigma-rel", 0.08, "--out", tmp_path / "made", "--json")
    assert made.code == 0
    facts = json.loads(made.out)
    assert facts["step"] == 12
    assert facts["error"] < 0.05
    written, read = ud.load(tmp_path / "made"), ud.posthoc_ema(run, 0.08)
    stored = ud.load(run)
    for a, b, c in zip(*(each.model.backbone.parameters() for each in (written, read, stored))):
        assert torch.equal(a, b)
        assert a.shape == c.shape
    assert not all(
        map(torch.equal, written.model.backbone.state_dict().values(), stored.model.backbone.state_dict().values())
    )
    assert written.manifest.entries["posthoc_ema"]["sigma_rel"] == read.manifest.entries["posthoc_ema"]["sigma_rel"]
    drawn = unidiff("sample", tmp_path / "made", "--count", 2, "--array", tmp_path / "a.npy")
    assert drawn.code == 0
    assert "saved without the state of its training" in unidiff("resume", tmp_path / "made").err
    # A stored length is its snapshot.
    exact = ud.posthoc_ema(run, 0.1, step=6)
    assert exact.manifest.entries["posthoc_ema"]["error"] < 1e-6


def test_mistakes_are_one_sentence(run, tmp_path):
    for words, message in (
        (("--sigma-rel", 0.5), "--sigma-rel must be a number above 0 and below 0.2887, got 0.5"),
        (("--sigma-rel", 0.1, "--step", 3), "--step must be a step with stored averages (2, 4, 6, 8, 10, 12), got 3"),
        (("--sigma-rel", 0.1, "--out", run, "--overwrite"), "this is the run that is read, which would be replaced"),
    ):
        result = unidiff("ema", run, *words)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
    shipped = unidiff("ema", "shipped:ddpm_digits", "--sigma-rel", 0.1, "--out", tmp_path / "x")
    assert "this run has no snapshots to average. Train with training.posthoc_every" in shipped.err
    rough = unidiff("ema", run, "--sigma-rel", 0.28, "--out", tmp_path / "rough")
    assert rough.code == 0
    assert "only. Choose a length nearer to 0.05 or 0.1" in rough.err
    damaged = next(run.glob("checkpoints/averages/step-00000004-*"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:50])
    assert "is damaged" in unidiff("ema", run, "--sigma-rel", 0.1, "--out", tmp_path / "y").err
    damaged.write_bytes(content)
    changed = unidiff("resume", run, "--extend", "--set", "training.optimizer=AdamW", "--set", "training.steps=13")
    assert "optimizer: cannot change in a run from Muon to AdamW" in changed.err
