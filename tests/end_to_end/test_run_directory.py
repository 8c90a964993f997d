"""A run directory belongs to one process at a time, is whole after a kill at any moment, and nothing leads out of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from crash import Killed, killed_at
from tiny import DIGITS, RING, equal, refused, unidiff, write

import unidiff as ud
from unidiff import files, lock, plot
from unidiff.errors import RunError, RunFailed
from unidiff.files import PARTIAL, whole_file
from unidiff.interop.diffusers import export
from unidiff.lock import LOCK, locked
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
    assert len(seen) > 1


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
    sweep_new(task, tmp_path, monkeypatch, (2, 5, 16, 22, 40))


def test_a_replaced_run_killed_at_some_operations_goes_on(task, tmp_path, monkeypatch):
    sweep_overwrite(task, tmp_path, monkeypatch, (5, 8, 20, 34))


@pytest.mark.slow  # a killed run, and one that goes on, for each operation on files
@pytest.mark.parametrize("kind", [sweep_new, sweep_overwrite])
def test_a_run_killed_at_any_operation_goes_on(task, tmp_path, monkeypatch, kind):
    kind(task, tmp_path, monkeypatch, range(1000))
