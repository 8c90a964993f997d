"""A run directory: what it holds, that it alone is enough, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from page_reader import PageReader
from PIL import Image
from tiny import DIGITS, RING, Forked, equal, metrics, refused, shipped_with, unidiff, write

import unidiff as ud
from unidiff import plot
from unidiff.errors import RecipeError, RunError, RunFailed
from unidiff.recipe.shipped import read_source, shipped_recipes
from unidiff.run import execute as module
from unidiff.run.forecast import too_long
from unidiff.tasks import generation_report
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted


class Listener:
    """Hears all, says nothing."""

    def __init__(self):
        self.notices, self.steps = [], []

    def notice(self, text):
        self.notices.append(text)

    def progress(self, stage, done, total, loss=None):
        self.steps.append((stage, done, total))


def changed(recipe, **training):
    return {**recipe, "training": {**recipe["training"], **training}}


def recipe_of(folder, recipe=RING):
    return ud.load_recipe(write(folder, recipe))


def stop_after(step):
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked >= step

    return stop


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """One whole run on images, with everything on, which the tests below look at and do not change."""
    folder = tmp_path_factory.mktemp("digits")
    result = unidiff("run", write(folder, DIGITS), "--out", folder / "run", "--json")
    assert result.code == 0, result
    return folder / "run", json.loads(result.out.splitlines()[-1]), ud.load_recipe(folder / "tiny.yaml")


# --- what it holds ---


def test_everything_is_there(digits):
    run, summary, recipe = digits
    names = {"recipe.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "samples", "loss.png", "tensorboard"}
    names.add("report.html")
    assert {path.name for path in run.iterdir()} == names
    previews = {f"step-{step:08d}.png" for step in (3, 6)}
    assert {path.name for path in (run / "samples").iterdir()} == {
        "grid.png",
        "trajectory.png",
        "trajectory.gif",
        *previews,
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-00000006", "step-00000008"}
    assert [path.name.startswith("events.out") for path in (run / "tensorboard").iterdir()] == [True]
    assert ud.load_recipe(run / "recipe.yaml") == recipe
    assert [line["step"] for line in metrics(run)] == [3, 6, 8]
    assert {key for line in metrics(run) for key in line} == {"step", "loss", "lr", "grad_norm"}
    assert summary["samples"] == str(run / "samples" / "grid.png")


def test_it_ends_with_its_page(digits):
    run, summary, _ = digits
    page = PageReader(run / "report.html")
    page.check()
    (content,) = page.content["runs"]
    assert content["metrics"]["loss"] == [line["loss"] for line in metrics(run)]
    manifest = json.loads((run / "manifest.json").read_text())
    assert {**manifest, "recipe_yaml": None} == {**content["manifest"], "recipe_yaml": None}
    times = content["path"]["times"]
    assert (len(times), times[0], times[-1]) == (5, 1.0, 0.0)
    assert times == sorted(times, reverse=True)
    assert len(page.images) == 4 + len(times)  # the samples, and their path
    assert unidiff("report", run, "--out", run.parent / "again.html").code == 0  # the same, of the files alone
    again = PageReader(run.parent / "again.html").content["runs"][0]
    assert again.pop("digest").startswith("sha256:")
    assert {**again, "directory": ""} == {**content, "directory": ""}
    assert summary["times"] == times


def test_the_manifest_says_what_was_done(digits):
    run, summary, recipe = digits
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["unidiff"] == ud.__version__
    assert manifest["status"] == "finished"
    assert manifest["data"] == {
        "name": "Digits train",
        "count": 1500,
        "shape": [1, 8, 8],
        "checksum": ud.data.Digits().open().checksum,
        "stand_in": None,
        "class_names": [*"0123456789"],
    }
    assert manifest["parameters"] == recipe.count_weights()
    assert manifest["libraries"]["torch"] == torch.__version__
    assert manifest["git"] is None or len(manifest["git"].removesuffix("-dirty")) == 40
    assert (manifest["seed"], manifest["device"], manifest["processes"], manifest["precision"]) == (
        0,
        "cpu",
        1,
        "float32",
    )
    assert manifest["seconds"] >= manifest["training_seconds"] > 0
    assert manifest["loss"] == metrics(run)[-1]["loss"]
    assert {key: manifest[key] for key in summary if key != "directory"} == {
        key: value for key, value in summary.items() if key != "directory"
    }


def test_tensorboard_holds_the_metrics(digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _, _ = digits
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name in ("loss", "lr", "grad_norm"):
        tracked = [(event.step, event.value) for event in events.Scalars(name)]
        assert tracked == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in metrics(run)]


def test_the_directory_alone_draws_the_same_samples(digits, tmp_path):
    run, _, recipe = digits
    elsewhere = tmp_path / "run"
    shutil.copytree(run, elsewhere)
    before = torch.get_rng_state()
    loaded = ud.load(elsewhere)
    assert torch.equal(torch.get_rng_state(), before)  # of the caller
    assert (loaded.step, loaded.recipe) == (8, recipe)
    solution = loaded.sample()
    assert solution.x.shape == (4, 1, 8, 8)
    one = ud.load(elsewhere, ["sampling.count=1", "sampling.seed=2"]).sample()
    assert torch.allclose(one.x[0], solution.x[2], atol=1e-5)
    # The picture that the run drew, drawn again.
    caption = generation_report.caption("run", recipe.sampling, recipe.process, recipe.data.open())
    plot.save_samples(solution.x, tmp_path / "again.png", caption)
    again, drawn = (np.asarray(Image.open(path)) for path in (tmp_path / "again.png", run / "samples" / "grid.png"))
    assert np.array_equal(again, drawn)


def test_batches_do_not_change_samples(digits):
    run, _, _ = digits
    whole = ud.load(run).sample()
    seen = []
    parts = ud.load(run, ["sampling.batch=3"]).sample(progress=lambda done, total: seen.append((done, total)))
    assert torch.allclose(whole.x, parts.x, atol=1e-5)
    assert parts.nfe == whole.nfe == 4
    assert seen == [(i, 8) for i in range(1, 9)]


# --- resuming ---


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_resumed_metrics_and_weights_are_the_same(step, tmp_path):
    recipe = recipe_of(tmp_path, changed(RING, log_every=2))
    recipe.run(tmp_path / "whole", Listener())
    with pytest.raises(Interrupted):
        recipe.run(tmp_path / "parts", Listener(), stop=stop_after(step))
    assert json.loads((tmp_path / "parts/manifest.json").read_text())["status"] == "interrupted"
    recipe.run(tmp_path / "parts", Listener(), resume=True)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    states = [Checkpoints(tmp_path / name / "checkpoints").load(print) for name in ("whole", "parts")]
    assert all(equal(getattr(states[0], part), getattr(states[1], part)) for part in ("model", "ema", "optimizer"))
    assert json.loads((tmp_path / "parts/manifest.json").read_text())["status"] == "finished"


@pytest.mark.slow  # processes of their own, killed and started again
def test_killed_and_resumed_is_the_same_byte_for_byte(tmp_path):
    """kill -9 at a random step, twice."""
    recipe = write(tmp_path, changed(RING, steps=90, log_every=1, checkpoint_every=3))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert unidiff("run", recipe, "--out", whole).code == 0
    for lines, words in zip(random.Random(0).sample(range(5, 40), 2), ([], ["--resume"])):
        process = Forked("run", recipe, "--out", parts, *words)
        log, begun = parts / "metrics.jsonl", time.monotonic()
        before = log.read_bytes().count(b"\n") if log.exists() else 0
        while not log.exists() or log.read_bytes().count(b"\n") < before + lines:
            assert process.returncode is None, process.communicate()
            assert time.monotonic() < begun + 1200
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    (parts / "checkpoints" / ".partial-00000001").mkdir(exist_ok=True)
    assert unidiff("run", recipe, "--out", parts, "--resume").code == 0
    assert metrics(parts) == metrics(whole)
    for name in ("model.safetensors", "ema.safetensors"):
        files = [folder / "checkpoints" / "step-00000090" / name for folder in (whole, parts)]
        assert files[0].read_bytes() == files[1].read_bytes()
    kept = sorted(path.name for path in (parts / "checkpoints").iterdir())
    assert kept == sorted(path.name for path in (whole / "checkpoints").iterdir())


@pytest.mark.slow  # a process of its own
def test_killed_before_the_first_checkpoint_starts_from_nothing(tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.run(tmp_path / "whole", Listener())
    with pytest.raises(Interrupted):
        recipe.run(tmp_path / "run", Listener(), stop=stop_after(3))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000003")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # half a line, as a kill leaves it
    listener = Listener()
    recipe.run(tmp_path / "run", listener, resume=True)
    assert listener.steps[0] == ("train", 1, 8)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(digits, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits[0], run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    digits[2].run(run, Listener(), resume=True)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after.get(path)} == {"manifest.json", "report.html"}
    assert after.keys() == before.keys()


@pytest.mark.slow  # several runs
def test_a_damaged_checkpoint_is_passed_over_with_a_notice(tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.run(tmp_path / "whole", Listener())
    recipe.run(tmp_path / "run", Listener())
    weights = tmp_path / "run" / "checkpoints" / "step-00000008" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    said = []
    assert ud.load(tmp_path / "run", report=said.append).step == 6
    assert "damaged" in said[0]
    listener = Listener()
    recipe.run(tmp_path / "run", listener, resume=True)
    assert "damaged" in listener.notices[0]
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert ud.load(tmp_path / "run").step == 8
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        (path / "state.json").write_text("{")
    with pytest.raises(RunError, match="every checkpoint is damaged"):
        ud.load(tmp_path / "run", report=said.append)


@pytest.mark.slow  # a second or more
def test_another_recipe_or_other_data_are_not_resumed(tmp_path):
    path = write(tmp_path, RING)
    assert unidiff("run", path, "--out", tmp_path / "run").code == 0
    message = refused(
        "run", path, "--out", tmp_path / "run", "--resume", "--set", "training.lr=0.5", "--set", "process.T=60"
    )
    assert "training.lr was 0.01, is 0.5" in message
    assert "process.T was 50, is 60" in message
    assert "no run to resume" in refused("run", path, "--out", tmp_path / "none", "--resume")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    manifest["data"] |= {"name": "MNIST train", "checksum": "md5:0"}
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    message = refused("run", path, "--out", tmp_path / "run", "--resume")
    assert "trained on MNIST train (md5:0)" in message
    assert "Ring train" in message


# --- what goes wrong on the way ---


def test_interrupted_while_sampling(tmp_path):
    recipe = recipe_of(tmp_path)
    with pytest.raises(Interrupted) as interrupt:
        recipe.run(tmp_path / "run", Listener(), stop=stop_after(recipe.training.steps + 2))
    assert interrupt.value.step == 8
    assert not (tmp_path / "run/samples/grid.png").exists()
    recipe.run(tmp_path / "run", Listener(), resume=True)
    assert (tmp_path / "run/samples/grid.png").exists()


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("place", ["append_metrics", "save_samples", "save_loss_curve"])
def test_a_full_disk_on_the_way_is_one_message(tmp_path, monkeypatch, place):
    def full(*args, **options):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(module.RunDirectory if place == "append_metrics" else plot, place, full)
    recipe = recipe_of(tmp_path, changed(DIGITS, tensorboard=False, steps=4))
    with pytest.raises(RunFailed, match="No space left on device") as failure:
        recipe.run(tmp_path / "run", Listener())
    assert failure.value.exit_code == 1
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    assert recipe.run(tmp_path / "run", Listener(), resume=True).status == "finished"


def test_a_diverging_run_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    original, calls = ud.Denoising.losses, []

    def diverging(self, *args, **cond):
        calls.append(1)
        return original(self, *args, **cond) * (math.inf if len(calls) > 5 else 1.0)

    monkeypatch.setattr(ud.Denoising, "losses", diverging)
    recipe = write(tmp_path, changed(RING, checkpoint_every=2, log_every=1))
    message = refused("run", recipe, "--out", tmp_path / "run", code=1)
    assert "Training stopped at step 6" in message
    assert f"The last good checkpoint is {tmp_path / 'run/checkpoints/step-00000004'}." in message
    monkeypatch.undo()
    run = ud.load(tmp_path / "run", device="cpu")
    assert run.step == 4
    assert all(weight.isfinite().all() for weight in run.denoiser.parameters())


def test_samples_that_are_not_finite_are_mentioned(tmp_path, monkeypatch):
    original = generation_report.draw

    def broken(*args, **options):
        solution = original(*args, **options)
        solution.x[1] = math.nan
        return solution

    monkeypatch.setattr(generation_report, "draw", broken)
    listener = Listener()
    recipe_of(tmp_path).run(tmp_path / "run", listener)
    assert listener.notices == ["1 of 4 samples are not finite (number 1). Use more steps or less guidance."]


# --- a long run says so ---


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize(("seconds", "steps", "warned"), [(0.5, 10000, True), (0.5, 5000, False), (25.0, 200, True)])
def test_a_long_run_says_so_within_its_first_minute(tmp_path, monkeypatch, seconds, steps, warned):
    """A fake clock: every step takes `seconds`."""
    now = 0.0
    listener = Listener()
    original = listener.progress

    def progress(stage, done, total, loss=None):
        nonlocal now
        now += seconds
        original(stage, done, total, loss)

    listener.progress = progress
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    recipe = {**changed(RING, steps=steps, log_every=1000), "smaller_recipe": "ddpm_digits"}
    with pytest.raises(Interrupted):
        recipe_of(tmp_path, recipe).run(tmp_path / "run", listener, stop=lambda: now > 59 - seconds)
    if not warned:
        assert listener.notices == []
        return
    (said,) = listener.notices
    assert f"about {seconds * steps / 3600:.1f} hours" in said
    assert "unidiff run ddpm_digits" in said


def test_without_a_lighter_recipe_it_names_the_steps(tmp_path):
    assert "training.steps" in too_long(7200, None)


# --- the right to write ---


def test_a_directory_that_is_no_run_is_never_deleted(tmp_path):
    path = write(tmp_path, RING)
    precious = tmp_path / "mine"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for words in ([], ["--overwrite"]):
        assert "files that are not a run" in refused("run", path, "--out", precious, *words)
    (precious / "recipe.yaml").write_text("soup")  # a recipe.yaml does not make a run
    assert "files that are not a run" in refused("run", path, "--out", precious, "--overwrite")
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert (precious / "recipe.yaml").read_text() == "soup"


@pytest.mark.slow  # several runs
def test_an_old_run_is_kept_unless_told(tmp_path):
    path = write(tmp_path, RING)
    run = tmp_path / "run"
    assert unidiff("run", path, "--out", run).code == 0
    (run / "notes.txt").write_text("mine")
    before = (run / "manifest.json").read_bytes()
    message = refused("run", path, "--out", run)
    assert all(word in message for word in (str(run), "--resume", "--overwrite", "--out"))
    assert "mutually exclusive" in refused("run", path, "--out", run, "--resume", "--overwrite")
    assert (run / "manifest.json").read_bytes() == before
    assert unidiff("run", path, "--out", run, "--overwrite", "--set", "training.steps=2").code == 0
    assert (run / "notes.txt").read_text() == "mine"  # what is not the run's is not the run's to remove
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    assert len(metrics(run)) == 1


def test_places_that_cannot_be_used(tmp_path, monkeypatch):
    path = write(tmp_path, RING)
    opened = []
    monkeypatch.setattr(ud.data.Ring, "open", lambda self, split="train": opened.append(split))
    assert "is not a directory" in refused("run", path, "--out", path)
    assert "is not a directory" in refused("run", path, "--out", path / "below" / "it")
    assert "cannot be used" in refused("run", path, "--out", tmp_path / ("x" * 300))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda place, mode: False)
        assert "no permission to write" in refused("run", path, "--out", tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        message = refused("run", path, "--out", tmp_path / "new")
        assert "50 MB are needed, but only 0 MB are free" in message
    assert opened == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_directory_that_cannot_be_made(tmp_path, monkeypatch):
    def read_only(self, *args, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(RunError, match="Read-only file system"):
        recipe_of(tmp_path).run(tmp_path / "run", Listener())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", [{"type": "ArrayFile", "path": "none.npy"}, {"type": "MNIST", "root": "none"}])
def test_missing_data_leave_nothing_behind(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    recipe = {**RING, "data": data}
    write(tmp_path, recipe)
    message = refused("run", "tiny.yaml")
    assert "none" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


# --- reading a run back ---


def test_what_is_no_run_or_a_broken_one(digits, tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        ud.load(tmp_path)
    with pytest.raises(RunError, match="only `sampling`"):
        ud.load(digits[0], ["training.steps=3"])
    run = tmp_path / "run"
    shutil.copytree(digits[0], run)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("width: 8", "width: 16"))
    with pytest.raises(RunError, match=r"edited since the run began: backbone\.width was 8, is 16"):
        ud.load(run)
    (run / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"manifest\.json: the file is damaged"):
        ud.load(run)
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match="weights are not those of the network"):
        ud.load(run)
    (run / "recipe.yaml").write_text(recipe)
    assert ud.load(run).manifest.entries == {}
    for path in (run / "checkpoints").iterdir():
        shutil.rmtree(path)
    with pytest.raises(RunError, match="no checkpoint yet"):
        ud.load(run)


@pytest.mark.slow  # several runs
def test_the_stand_in_is_never_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    monkeypatch.delenv("UNIDIFF_DATA", raising=False)
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    captions = []

    def drawn_nothing(*args):
        captions.append(next(argument for argument in args if isinstance(argument, str)))
        next(argument for argument in args if isinstance(argument, Path)).touch()

    for name in ("save_samples", "save_strip"):
        monkeypatch.setattr(plot, name, drawn_nothing)
    recipe = {**changed(DIGITS, tensorboard=False, steps=4), "data": {"type": "MNIST", "size": 8, "fallback": "digits"}}
    path = write(tmp_path, recipe)
    result = unidiff("run", path, "--out", tmp_path / "run", "--json")
    assert result.code == 0
    sentence = json.loads(result.out.splitlines()[-1])["data"]["stand_in"]
    assert "MNIST is unavailable" in sentence
    assert f"Note: {sentence}" in result.err
    assert json.loads((tmp_path / "run/manifest.json").read_text())["data"]["stand_in"] == sentence
    assert len(captions) == 3  # a preview, the grid, the way
    assert all(sentence in caption for caption in captions)
    drawn = unidiff("sample", tmp_path / "run", "--json")
    assert sentence in drawn.err
    assert json.loads(drawn.out)["stand_in"] == sentence
    assert sentence in captions[-1]
    assert sentence in unidiff("run", path, "--out", tmp_path / "other").out


def test_lighter_recipes_exist():
    shipped = shipped_recipes()
    trained = shipped_with("backbone")
    assert len(trained) >= 5
    # Read as text: a recipe of latents loads only where its codec has been trained.
    written = {name: yaml.safe_load(read_source(name)[1]).get("smaller_recipe") for name in trained}
    assert all(lighter in (None, *shipped) for lighter in written.values())
    assert sum(lighter is not None for lighter in written.values()) >= 5


HEAT = """
data: {type: Digits}
process: {type: RenormalizedHeat, shape: [8, 8], blur_max: 1.5}
parameterization: {type: X0}
backbone: {type: MLP, width: 16, depth: 1}
training: {steps: 4, batch: 8, checkpoint_every: 2, precision: fp32}
sampling: {grid: {type: ArcLength, steps: 3}, count: 2}
"""


@pytest.mark.slow  # several runs
def test_what_the_process_measured_is_kept_with_the_run(tmp_path):
    recipe, run = tmp_path / "heat.yaml", tmp_path / "run"
    recipe.write_text(HEAT)
    assert unidiff("run", recipe, "--out", run).code == 0
    kept = run / "process.safetensors"
    digits = ud.data.Digits().open()
    expected = ud.RenormalizedHeat((8, 8), 1.5).fit([digits.batch(torch.arange(len(digits)))])
    found = ud.load(run).denoiser.process
    torch.testing.assert_close(found.power(), expected.power(), rtol=1e-12, atol=1e-15)
    content = kept.read_bytes()
    # Gone, cut short, or of another shape: nothing is drawn or trained with a guess.
    other = safetensors.torch.save({"power": torch.ones(9, 8)})
    for broken, said in (
        (None, "is missing"),
        (content[:40], "is damaged"),
        (other, r"damaged \(power must be .*, got \(9, 8\)"),
    ):
        kept.unlink(missing_ok=True)
        if broken is not None:
            kept.write_bytes(broken)
        for command in (["sample", run], ["run", run / "recipe.yaml", "--out", run, "--resume"]):
            refused = unidiff(*command)
            assert refused.code == 2
            assert re.search(said, refused.err.replace("\n", " ")), refused.err
            assert "Traceback" not in refused.err
    kept.write_bytes(content)
    assert unidiff("sample", run).code == 0


def test_the_modes_must_be_those_of_the_data(tmp_path):
    recipe = tmp_path / "heat.yaml"
    recipe.write_text(HEAT.replace("[8, 8]", "[28, 28]"))
    refused = unidiff("check", recipe)
    assert refused.code == 2
    assert "heat.yaml:3:" in refused.err
    assert "process.shape must be [8, 8]" in refused.err
    assert "got [28, 28]" in refused.err


@pytest.mark.cases(1)
@pytest.mark.parametrize("words", [("run", "--dry-run"), ("check",), ("run", "--resume")])
def test_a_recipe_is_parsed_once(words, tmp_path, monkeypatch):
    from unidiff.recipe import read

    path, parsed = write(tmp_path, RING), []
    (command, *options), out = words, ("--out", tmp_path / "run")
    if "--resume" in options:
        assert unidiff("run", path, *out).code == 0
        path = tmp_path / "run/recipe.yaml"
    plain = read.read_yaml
    monkeypatch.setattr(read, "read_yaml", lambda text, name: parsed.append(name) or plain(text, name))
    assert unidiff(command, path, *options, *(out if command == "run" else ())).code == 0
    assert [Path(name).name for name in parsed] == [path.name]


def test_old_names_of_keys_and_classes_are_read(tmp_path):
    old_name, data = "Recipe", {"type": "MNIST", "size": 8, "offline": "digits"}
    old = {**RING, "data": data, "backbone": {"type": "UNet", "width": 8, "multipliers": [1]}, "lighter": "ddpm_digits"}
    old["objective"] = {"type": "Denoising", "weighting": "simple"}
    path = write(tmp_path, old)
    with pytest.warns(DeprecationWarning, match="'lighter' is now called 'smaller_recipe'"):
        task = ud.load_recipe(path)
    assert (task.smaller_recipe, task.data.fallback) == ("ddpm_digits", "digits")
    assert task.objective.weighting == ud.UniformWeighting()
    assert ud.load_recipe(path, ["lighter=heat_digits"]).smaller_recipe == "heat_digits"
    assert {"lighter", "offline"}.isdisjoint([*task.to_dict(), *task.to_dict()["data"]])
    with pytest.raises(RecipeError, match="old name of 'smaller_recipe'"):
        ud.load_recipe(write(tmp_path, {**RING, "lighter": "a", "smaller_recipe": "b"}))
    with pytest.warns(DeprecationWarning, match="'offline' is now called 'fallback'"):
        assert ud.data.MNIST(offline="digits") == ud.data.MNIST(fallback="digits")
    with pytest.warns(DeprecationWarning, match="unidiff.Recipe is now unidiff.tasks.Generation"):
        assert getattr(ud, old_name) is ud.tasks.Generation
