"""A run directory belongs to one process at a time, survives a kill at any moment, and nothing leads out of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from crash import Killed, killed_at
from tiny import DIGITS, RING, equal, refused, write

import unidiff as ud
from unidiff import files, plot
from unidiff.errors import RunError, RunFailed
from unidiff.files import PARTIAL, whole_file
from unidiff.interop.diffusers import export
from unidiff.lock import LOCK
from unidiff.run import execute
from unidiff.run.directory import RunDirectory
from unidiff.training.checkpoint import Checkpoints

TINY = {**RING, "training": {**RING["training"], "steps": 1, "checkpoint_every": 1}}


class Quiet:
    """Receives progress and notices."""

    def __init__(self, on_step=lambda: None):
        self.on_step = on_step

    def notice(self, text):
        raise AssertionError(text)

    def progress(self, stage, done, total, loss=None):
        self.on_step()


@pytest.fixture
def cheap(monkeypatch):
    """No figures: a file of one byte stands for each."""

    def save(*arguments, **options):
        with whole_file(next(value for value in arguments if isinstance(value, Path))) as partial:
            partial.write_bytes(b"x")

    for name in dir(plot):
        if name.startswith("save_"):
            monkeypatch.setattr(plot, name, save)
    monkeypatch.setattr(execute, "environment", dict)


@pytest.fixture
def task(tmp_path, cheap):
    return ud.load_recipe(write(tmp_path, TINY))


def everything(folder: Path) -> dict[str, bytes | str]:
    """Content of each file, target of each link, by path; not the lock, which is there as long as a run."""
    paths = [path for path in folder.rglob("*") if path.name != LOCK]
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in paths
        if not p.is_dir()
    }


def weights(run: Path):
    state = Checkpoints(run / "checkpoints").load(pytest.fail)
    return state.step, state.model, state.ema


# --- a kill at any operation ---


def outline(folder: Path) -> tuple:
    """What is in a folder: paths and sizes, the random parts of names left out."""
    entries = (path for path in sorted(folder.rglob("*")))
    return tuple(
        (str(path.relative_to(folder)).split(PARTIAL)[0], path.suffix, path.stat().st_size * path.is_file())
        for path in entries
    )


def sweep(act, prepare, follow, moments):
    """Kill `act` at each moment; `follow` must then succeed, once for each state that a kill leaves."""
    seen = set()
    for moment in moments:
        prepare()
        try:
            with killed_at(moment) as done:
                act()
        except Killed:
            pass
        if len(done) <= moment:
            assert moment > 10
            return
        follow(seen)
    assert seen


def go_on(task, run, expected, monkeypatch):
    """What every killed run must allow, given what it was to become."""

    def follow(seen):
        if (state := outline(run)) in seen:
            return
        seen.add(state)
        there = RunDirectory(run).exists()
        if run.exists():
            RunDirectory(run).check(False, True, 0)
        with monkeypatch.context() as patch:
            patch.setattr(files, "is_alive", lambda process: False)  # the killed process was this one
            assert task.run(run, Quiet(), resume=there).status == "finished"
        assert equal(weights(run), expected), state
        manifest = json.loads((run / "manifest.json").read_text())
        assert (manifest["status"], bool(manifest["started"])) == ("finished", True)
        assert not [path for path in run.rglob("*") if path.name.startswith(PARTIAL) or path.name == LOCK]

    return follow


def sweep_new(task, tmp_path, monkeypatch, moments):
    task.run(tmp_path / "whole", Quiet())
    run = tmp_path / "parts"
    follow = go_on(task, run, weights(tmp_path / "whole"), monkeypatch)
    sweep(lambda: task.run(run, Quiet()), lambda: shutil.rmtree(run, ignore_errors=True), follow, moments)


def sweep_overwrite(task, tmp_path, monkeypatch, moments):
    whole, run = tmp_path / "whole", tmp_path / "parts"
    task.run(whole, Quiet())
    other = ud.load_recipe(tmp_path / "tiny.yaml", ["seed=1"])
    other.run(tmp_path / "other", Quiet())
    both = [weights(tmp_path / name) for name in ("whole", "other")]

    def prepare():
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)

    def follow(seen):
        files_ = RunDirectory(run)
        old = files_.exists() and "seed: 0" in files_.recipe.read_text().splitlines()
        go_on(task if old else other, run, both[not old], monkeypatch)(seen)

    sweep(lambda: other.run(run, Quiet(), overwrite=True), prepare, follow, moments)


def test_a_new_run_killed_at_some_operations_goes_on(task, tmp_path, monkeypatch):
    sweep_new(task, tmp_path, monkeypatch, (5, 16, 40))


def test_a_replaced_run_killed_at_some_operations_goes_on(task, tmp_path, monkeypatch):
    sweep_overwrite(task, tmp_path, monkeypatch, (8,))


@pytest.mark.slow  # a killed run, and one that goes on, for each operation on files
@pytest.mark.parametrize(("kind", "moments"), [(sweep_new, range(0, 1000, 2)), (sweep_overwrite, range(1, 40, 2))])
def test_a_run_killed_at_any_operation_goes_on(task, tmp_path, monkeypatch, kind, moments):
    kind(task, tmp_path, monkeypatch, moments)  # an old run is gone, and the new one there, after 40


@pytest.mark.slow  # as above, of an export
def test_an_export_killed_at_any_operation_is_replaced(tmp_path, cheap):
    task = ud.load_recipe(
        write(tmp_path, {**DIGITS, "backbone": {**DIGITS["backbone"], "groups": 4}, "training": TINY["training"]})
    )
    task.run(tmp_path / "run", Quiet())
    run, target = ud.load(tmp_path / "run", device="cpu"), tmp_path / "exports" / "model"
    export(run, target)
    whole = everything(target)

    def follow(seen):
        if (state := outline(target.parent)) in seen:
            return
        seen.add(state)
        assert everything(target) == whole
        export(run, target, overwrite=True)
        assert everything(target) == whole

    sweep(lambda: export(run, target, overwrite=True), lambda: None, follow, range(1, 1000, 2))


# --- one process at a time ---


def test_a_run_that_is_running_is_left_alone_and_names_its_process(task, tmp_path):
    recipe, run, messages = tmp_path / "tiny.yaml", tmp_path / "run", []

    def start_again():
        if not messages:
            before = everything(run)
            for words in ([], ["--resume"], ["--overwrite"], ["--dry-run"]):
                messages.append(refused("run", recipe, "--out", run, *words))
            assert everything(run) == before

    task.run(run, Quiet(start_again))
    assert len(messages) == 4
    assert all(f"{run}: in use by process {os.getpid()} on " in message for message in messages)
    assert not (run / LOCK).exists()


def test_of_two_that_start_at_once_the_second_is_refused(task, tmp_path, monkeypatch):
    run, state = tmp_path / "run", []
    look = RunDirectory.check

    def check(self, *arguments):
        """Another run comes first, after this one has looked."""
        before = look(self, *arguments)
        if not state:
            state.append(before)
            task.run(run, Quiet())
            state.append(everything(run))
        return before

    monkeypatch.setattr(RunDirectory, "check", check)
    with pytest.raises(RunError, match="another process has written to it since this one started"):
        task.run(run, Quiet())
    assert everything(run) == state[1]


@pytest.mark.cases(2)
@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_directory_that_is_gone_ends_the_run_with_one_message(task, tmp_path, fate):
    run, moved = tmp_path / "run", tmp_path / "moved"
    task = ud.load_recipe(tmp_path / "tiny.yaml", ["training.steps=3", "training.log_every=1"])

    def disturb():
        if run.exists() and not moved.exists():
            run.rename(moved)
            if fate == "deleted":
                shutil.rmtree(moved)
                moved.mkdir()
            if fate == "replaced":
                run.mkdir()
                (run / "recipe.yaml").write_text("another")

    with pytest.raises(RunFailed, match="was deleted or moved while the run was writing to it") as failure:
        task.run(run, Quiet(disturb))
    assert failure.value.exit_code == 1
    assert set(everything(run)) == ({"recipe.yaml"} if fate == "replaced" else set())
    if fate == "moved":
        assert task.run(moved, Quiet(), resume=True).status == "finished"


@pytest.mark.slow  # TensorBoard is imported
def test_tensorboard_in_a_deleted_directory_prints_no_traceback(tmp_path, capfd, cheap):
    training = {**RING["training"], "tensorboard": True, "log_every": 1}
    task = ud.load_recipe(write(tmp_path, {**RING, "training": training}))
    run, steps = tmp_path / "run", []

    def delete():
        steps.append(run.exists())
        if len(steps) == 4:
            shutil.rmtree(run)

    with pytest.raises(RunFailed, match="was deleted or moved"):
        task.run(run, Quiet(delete))
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not run.exists()


def test_two_comparisons_in_one_directory(tmp_path, monkeypatch, cheap):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("data: {type: Ring}\nprocess: {type: DDPM}\nsolvers: [ddim]\nnfe: [2]\ncount: 20\n")
    task, out, messages = ud.load_recipe(recipe), tmp_path / "out", []

    def slow(self, *arguments, **options):
        messages.append(refused("run", recipe, "--out", out))
        messages.append(refused("compare", recipe, "--out", out, "--overwrite"))
        raise KeyboardInterrupt  # nothing is left then

    monkeypatch.setattr(type(task), "compute", slow)
    with pytest.raises(KeyboardInterrupt):
        task.run(out, Quiet())
    assert all(f"{out}: in use by process {os.getpid()} on " in message for message in messages)
    assert not out.exists()
    monkeypatch.setattr(type(task), "compute", lambda self, *arguments: (out / LOCK).read_text())
    (out / f"{PARTIAL}0").mkdir(parents=True)
    (out / LOCK).write_text("")  # as a killed process leaves them
    assert json.loads(task.run(out, Quiet()))["process"] == os.getpid()
    assert not (out / LOCK).exists()


# --- what may be written over ---


@pytest.mark.parametrize(
    ("contents", "plain", "overwrite"),
    [
        ([], True, True),
        (["samples/"], True, True),
        (["samples/", "checkpoints/", f"{PARTIAL}0123456789abcdef"], True, True),
        ([LOCK, "process.safetensors", "codec/config.json", "samples/"], True, True),
        (["process.safetensors", "samples/"], False, True),
        (["metrics.jsonl", "checkpoints/step-00000001/model.safetensors"], False, True),
        (["recipe.yaml", "samples/"], False, False),
        (["samples/", "thesis.txt"], False, False),
        ([LOCK, "thesis.txt"], False, False),
    ],
)
def test_what_is_left_of_a_run_may_be_replaced_and_nothing_else(tmp_path, contents, plain, overwrite):
    for name in contents:
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("")
    for option, allowed in ((False, plain), (True, overwrite)):
        files_ = RunDirectory(tmp_path / "run")
        if allowed:
            assert files_.check(False, option, 0) == (None, None)
        else:
            with pytest.raises(RunError, match=r"files that are not a run|parts of a run are there"):
                files_.check(False, option, 0)
    with pytest.raises(RunError, match="no run to resume"):
        files_.check(True, False, 0)


def test_a_run_without_some_of_its_folders_is_resumed(task, tmp_path):
    run = tmp_path / "run"
    task.run(run, Quiet())
    expected = weights(run)
    shutil.rmtree(run / "samples")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "started": ""}))
    task.run(run, Quiet(), resume=True)
    assert equal(weights(run), expected)
    assert json.loads((run / "manifest.json").read_text())["started"]
    assert (run / "samples" / "grid.png").exists()


def test_a_run_whose_checkpoints_are_gone_is_not_begun_again(task, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    task = ud.load_recipe(tmp_path / "tiny.yaml", ["training.steps=3", "training.log_every=1"])
    task.run(whole, Quiet())
    shutil.rmtree(whole / "checkpoints")
    manifest = json.loads((whole / "manifest.json").read_text())
    for left, status in (("", "finished"), ("checkpoints", "finished"), ("checkpoints/step-00000004.bak", "training")):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        (run / left).mkdir(parents=True, exist_ok=True)
        (run / "manifest.json").write_text(json.dumps({**manifest, "status": status}))  # training: it was killed
        before = everything(run)
        problem = "none is in it" if left else "there is no such folder"
        with pytest.raises(RunError, match=f"checkpoints of this run are gone: {problem}. .* --overwrite"):
            task.run(run, Quiet(), resume=True)
        assert everything(run) == before


def test_reports_of_errors_are_in_no_ones_way(task, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "unidiff-error-x7.txt").write_text("an error")
    task.run(run, Quiet())
    task.run(run, Quiet(), overwrite=True)
    assert (run / "unidiff-error-x7.txt").read_text() == "an error"


def test_a_run_that_cannot_be_created_leaves_nothing(task, tmp_path, monkeypatch):
    monkeypatch.setattr(
        RunDirectory, "update_manifest", lambda self, **values: (_ for _ in ()).throw(OSError(28, "Full"))
    )
    with pytest.raises(RunError, match="cannot be created"):
        task.run(tmp_path / "a" / "run", Quiet())
    assert not (tmp_path / "a").exists()


# --- links ---


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "name",
    ["checkpoints", "samples", "tensorboard", "codec", "metrics.jsonl", "manifest.json", "checkpoints/step-00000009"],
)
def test_a_link_that_leads_outside_is_refused_by_all_commands(task, tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    task.run(run, Quiet())
    outside.mkdir()
    (outside / "mine").write_text("mine")
    if (run / name).exists():
        files.remove(run / name)
    (run / name).symlink_to(outside)
    (run / f"{PARTIAL}planted").symlink_to(outside / "mine")
    before = everything(tmp_path)
    for words in (["run", run / "recipe.yaml", "--out", run, "--resume"], ["sample", run]):
        message = refused(*words)
        assert f"{run / name}: this link leads to {outside}, outside the run directory" in message
    assert "outside the run directory" in refused("run", run / "recipe.yaml", "--out", run, "--overwrite")
    assert everything(tmp_path) == before


def test_links_within_a_run_and_to_a_whole_run_are_followed(task, tmp_path):
    run, link = tmp_path / "run", tmp_path / "link"
    task.run(run, Quiet())
    (run / "checkpoints").rename(run / "weights")
    (run / "checkpoints").symlink_to("weights")
    link.symlink_to(run)
    assert task.run(link, Quiet(), resume=True).status == "finished"
    assert ud.load(link).step == 1


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "samples/../../outside"])
def test_kept_files_and_files_of_checkpoints_are_inside(task, tmp_path, name):
    run = tmp_path / "run"
    task.run(run, Quiet())
    (tmp_path / "outside").write_text("")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "kept": {name: files.digest(tmp_path / "outside")}}))
    with pytest.raises(RunError, match="names a file outside its directory"):
        ud.load(run)
    (run / "manifest.json").write_text(json.dumps(manifest))
    path = run / "checkpoints" / "step-00000001" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "files": {**state["files"], name: "0"}}))
    notices = []
    with pytest.raises(RunError, match="every checkpoint is damaged"):
        ud.load(run, report=notices.append)
    assert "names other files than those of a checkpoint" in notices[0]


# --- what belongs to others ---


@pytest.mark.parametrize("name", ["samples", "loss.png"])
def test_something_else_where_a_part_belongs_is_named_before_training(task, tmp_path, name):
    run = tmp_path / "run"
    task.run(run, Quiet())
    files.remove(run / name)
    (run / name).touch() if name == "samples" else (run / name).mkdir()
    with pytest.raises(RunError, match=rf"{name}: a \w+ of the run belongs here. Remove this"):
        task.run(run, Quiet(), resume=True)
    assert task.run(run, Quiet(), overwrite=True).status == "finished"


def test_a_recipe_that_is_not_utf_8_is_an_error_of_the_recipe(task, tmp_path):
    run = tmp_path / "run"
    task.run(run, Quiet())
    (run / "recipe.yaml").write_bytes(b"# caf\xe9\n" + (run / "recipe.yaml").read_bytes())
    assert "is not UTF-8" in refused("run", tmp_path / "tiny.yaml", "--out", run, "--resume")


def test_a_run_is_not_replaced_by_one_that_builds_on_it(task, tmp_path):
    run = tmp_path / "run"
    task.run(run, Quiet())
    before = everything(run)
    message = refused("run", tmp_path / "tiny.yaml", "--set", f"start={run}", "--out", run, "--overwrite")
    assert "builds on the run in this directory, which would be replaced" in message
    assert everything(run) == before
