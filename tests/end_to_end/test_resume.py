"""`unidiff resume`: a run continued to its end, or further with other numbers and data, which its manifest records."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import RING, equal, metrics, refused, unidiff, write

from unidiff import plot
from unidiff.recipe.shipped import read_source
from unidiff.run.records import Report
from unidiff.tasks import Generation
from unidiff.training.batches import BatchPlan
from unidiff.training.checkpoint import Checkpoints

# The learning rate of this run does not depend on its number of steps.
CONSTANT = {**RING, "training": {**RING["training"], "steps": 6, "lr_final": 1.0}}


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Figures and samples are most of the time of a tiny run, and not what these tests are about."""
    monkeypatch.setattr(Generation, "report", lambda self, model, session: Report(*session.trained()))
    monkeypatch.setattr(plot, "save_loss_curve", lambda *args: None)


def done(*words):
    result = unidiff(*words)
    assert result.code == 0, result
    return result


def manifest(run):
    return json.loads((run / "manifest.json").read_text())


def same_weights(*runs):
    states = [Checkpoints(run / "checkpoints").load(print) for run in runs]
    return all(
        equal(getattr(states[0], part), getattr(state, part))
        for state in states[1:]
        for part in ("step", "model", "ema", "optimizer")
    )


def test_a_run_of_6_steps_extended_to_12_is_a_run_of_12(tmp_path):
    path, parts, whole = write(tmp_path, CONSTANT), tmp_path / "parts", tmp_path / "whole"
    done("run", path, "--out", whole, "--set", "training.steps=12")
    done("run", path, "--out", parts)
    result = done("resume", parts, "--extend", "--set", "training.steps=12")
    change = "training.steps was 6, is 12"
    assert result.err.startswith(f"Note: The run goes on with changes, which the manifest records: {change}.\n")
    assert same_weights(parts, whole)
    assert metrics(parts) == metrics(whole)
    assert (parts / "recipe.yaml").read_bytes() == (whole / "recipe.yaml").read_bytes()
    (entry,) = manifest(parts)["extensions"]
    assert (entry["step"], entry["changes"]) == (6, [change])
    # An extension by nothing is a plain resume, and is not recorded.
    done("resume", parts, "--extend")
    done("resume", parts)
    assert manifest(parts)["extensions"] == [entry]
    assert same_weights(parts, whole)


@pytest.mark.slow  # several runs
def test_other_numbers_from_some_step_on(tmp_path):
    """Twice the same extension, once stopped on its way; all settings reach the optimiser and the order of the data."""
    path, runs = write(tmp_path, CONSTANT), [tmp_path / name for name in ("whole", "parts")]
    sets = ["training.batch=12", "training.weight_decay=0.1", "training.lr=0.002", "training.log_every=4"]
    words = [word for change in (*sets, "training.keep=1", "training.steps=11") for word in ("--set", change)]
    for run in runs:
        done("run", path, "--out", run)
        done("resume", run, "--extend", *words)
    for folder in (runs[1] / "checkpoints").iterdir():
        assert folder.name == "step-00000011"  # keep: 1
    assert [line["step"] for line in metrics(runs[0])] == [3, 6, 8, 11]
    assert metrics(runs[0])[-1]["lr"] == 0.002
    state = Checkpoints(runs[0] / "checkpoints").load(print)
    assert state.optimizer["param_groups"][0]["weight_decay"] == 0.1
    assert state.extra["seen"] == 6 * 8 + 5 * 12
    done("resume", runs[0], "--extend", "--set", "training.steps=14")
    done("resume", runs[1], "--extend", "--set", "training.steps=12")
    done("resume", runs[1], "--extend", "--set", "training.steps=14")
    assert same_weights(*runs)
    assert [entry["step"] for entry in manifest(runs[1])["extensions"]] == [6, 11, 12]


def test_another_batch_goes_on_where_the_last_one_ended():
    before = [BatchPlan(0, 8, 20).indices(step) for step in range(3)]
    after = [BatchPlan(0, 4, 20, offset=24 - 3 * 4).indices(step) for step in range(3, 7)]
    epochs = torch.cat(before + after).reshape(2, 20)
    assert torch.equal(epochs.sort(1).values, torch.arange(20).expand(2, 20))


@pytest.mark.slow  # two runs
def test_the_schedule_of_the_learning_rate_is_said(tmp_path):
    """Half a cosine over 8 steps is 0 at its end; over 16 it is lr / 2 there."""
    path, run = write(tmp_path, RING), tmp_path / "run"
    done("run", path, "--out", run)
    result = done("run", run / "recipe.yaml", "--out", run, "--resume", "--set", "training.steps=16")
    assert "The learning rate is 0.005 at step 9, instead of 0: that of a run of 16 steps" in result.err
    assert metrics(run)[-1]["step"] == 16


def test_what_cannot_be_extended_is_one_message(tmp_path):
    path, run = write(tmp_path, CONSTANT), tmp_path / "run"
    done("run", path, "--out", run)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    lr = ("--set", "training.lr=0.5")
    message = refused("resume", run, *lr)
    assert f"unidiff resume {run} --extend --set training.lr=0.5" in message
    message = refused("run", path, "--out", run, "--resume", *lr)
    assert "training.lr was 0.01, is 0.5" in message
    assert f"unidiff resume {run} --extend --set KEY=VALUE" in message
    for change, key in (
        ("backbone.width=8", "backbone"),
        ("process.T=60", "process"),
        ("parameterization.type=X0", "parameterization"),
        ("seed=1", "seed"),
    ):
        message = refused("resume", run, "--extend", *lr, "--set", change)
        assert f"{key} cannot change in a run. `start: {run}`" in message
        assert "--extend" not in message
    message = refused("resume", run, "--extend", "--set", "training.steps=5")
    assert "training.steps must be >= 6, the steps that are done, got 5" in message
    assert "not a run directory" in refused("resume", tmp_path / "none")
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow  # several runs
def test_a_recipe_that_was_edited_in_its_run_is_noticed(tmp_path):
    path, run = write(tmp_path, CONSTANT), tmp_path / "run"
    done("run", path, "--out", run)
    own, began = run / "recipe.yaml", (run / "recipe.yaml").read_text()
    own.write_text(f"# A comment, and nothing else.\n{began}")
    done("resume", run)
    for old, new, change in (
        ("lr: 0.01", "lr: 0.5", "training.lr was 0.01, is 0.5"),
        ("seed: 0", "seed: 3", "seed was 0, is 3"),
        ("width: 16", "width: 8", "backbone.width was 16, is 8"),
    ):
        own.write_text(began)
        edit(own, old, new)
        before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
        for words in (("resume", run), ("run", own, "--resume"), ("run", path, "--out", run, "--resume")):
            message = refused(*words)
            assert f"{own}: the file has been edited since the run began" in message
            assert change in message
            assert f"Undo that in {own}" in message
        assert ("--extend" in refused("resume", run)) == change.startswith("training")
        assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    own.write_text(began)
    edit(own, "lr: 0.01", "lr: 0.5")
    edit(own, "steps: 6", "steps: 9")
    done("resume", run, "--extend")
    assert manifest(run)["extensions"][-1]["changes"] == ["training.steps was 6, is 9", "training.lr was 0.01, is 0.5"]
    done("resume", run)
    # More steps alone are always accepted. A run of before has no record, and goes by its file.
    edit(own, "steps: 9", "steps: 10")
    done("resume", run)
    (run / "manifest.json").write_text(json.dumps({**manifest(run), "recipe_yaml": None}))
    edit(own, "lr: 0.5", "lr: 0.25")
    done("resume", run)
    assert "lr: 0.25" in manifest(run)["recipe_yaml"]


def test_recipes_without_training_are_not_resumed(tmp_path):
    (tmp_path / "recipe.yaml").write_text(read_source("eigenmodes")[1])
    (tmp_path / "manifest.json").write_text("{}")
    assert "does not train a model" in refused("resume", tmp_path)


# --- data that change on the way ---

FOLDER = {
    **RING,
    "data": {"type": "ImageFolder", "root": "", "size": 8},
    "training": {**RING["training"], "steps": 8, "checkpoint_every": 1},
}
DAMAGED = "p011.png"


@pytest.fixture
def pictures(tmp_path):
    """Forty images, one of which is cut short, and the recipe of a run on them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number:03d}.png")
    whole = (folder / DAMAGED).read_bytes()
    (folder / DAMAGED).write_bytes(whole[:-40])
    return folder, whole, write(tmp_path, {**FOLDER, "data": {**FOLDER["data"], "root": str(folder)}})


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("remedy", ["delete", "replace"])
def test_a_damaged_image_does_not_end_a_run_for_good(pictures, tmp_path, remedy):
    folder, whole, path = pictures
    run = tmp_path / "run"
    message = refused("run", path, "--out", run, code=1)
    assert re.search(
        rf"{DAMAGED} is not a readable image .* Delete it or replace it\. Then continue with --res", message
    )
    assert manifest(run)["status"] == "damaged data"
    step = Checkpoints(run / "checkpoints").load(print).step
    assert step > 0
    (folder / DAMAGED).unlink() if remedy == "delete" else (folder / DAMAGED).write_bytes(whole)
    done("run", path, "--out", run, "--resume")
    (entry,) = manifest(run)["extensions"]
    assert entry["step"] == step
    assert re.fullmatch(
        r"data were pictures train, 36 samples \(sha.*\), are pictures train, 3\d samples .*", *entry["changes"]
    )
    # Without such a mishap other data are meant only if that is said.
    (folder / "p012.png").unlink()
    message = refused("run", path, "--out", run, "--resume")
    assert f"`unidiff resume {run} --extend`" in message
    done("resume", run, "--extend")
    assert len(manifest(run)["extensions"]) == 2


@pytest.mark.slow  # a run
def test_data_of_another_kind_are_never_taken(pictures, tmp_path):
    folder, whole, path = pictures
    (folder / DAMAGED).write_bytes(whole)
    for number, file in enumerate(sorted(folder.glob("*.png"))):
        target = folder / ("cats", "dogs")[number % 2]
        target.mkdir(exist_ok=True)
        file.rename(target / file.name)
    run = tmp_path / "run"
    done("run", path, "--out", run, "--set", "training.steps=1")
    assert "data.shape cannot change" in refused("resume", run, "--extend", "--set", "data.size=9")
    (folder / "cats").rename(folder / "zebras")  # dogs would become class 0
    assert "of another kind. Restore the data" in refused("resume", run, "--extend")
