"""Checkpoints survive kills, damage and full disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError

from unidiff import files
from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.training import checkpoint as module
from unidiff.training.checkpoint import Checkpoint, Checkpoints

FILES = ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"]


def state(step: int) -> Checkpoint:
    weights = {"w": torch.full((3, 2), float(step)), "b": torch.arange(4.0)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3) / 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return Checkpoint(step, weights, weights, optimizer, {"seconds": 0.1 + 0.2, "loss_sum": 1 / 3})


def silent(text: str) -> None:
    raise AssertionError(f"nothing was to be reported: {text}")


def test_what_is_written_is_read(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load(silent) is None
    checkpoints.save(state(7))
    read = checkpoints.load(silent)
    assert (read.step, read.extra) == (7, {"seconds": 0.1 + 0.2, "loss_sum": 1 / 3})
    assert all(torch.equal(read.model[name], value) for name, value in state(7).model.items())
    assert torch.equal(read.optimizer["state"][0]["exp_avg"], torch.ones(3) / 3)


def test_the_newest_are_kept_and_leftovers_cleaned(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    stale = tmp_path / ".partial-00000001"
    stale.mkdir()
    (stale / "model.safetensors").write_text("half")
    for step in (1, 2, 3, 10):
        checkpoints.save(state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]
    assert [path.name for path in checkpoints.paths()] == ["step-00000010", "step-00000003"]


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ParameterError, match="keep"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path, file, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    path = checkpoints.save(state(2)) / file
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "gone":
        path.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b""}[damage])
    said = []
    assert checkpoints.load(said.append).step == 1
    assert len(said) == 1
    assert "step-00000002 is damaged" in said[0]


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"step": 2, "files": [1], "extra": {}}', "null"])
def test_a_state_that_is_json_of_another_kind_is_damage(tmp_path, content):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    (checkpoints.save(state(2)) / "state.json").write_text(content)
    said = []
    assert checkpoints.load(said.append).step == 1
    assert len(said) == 1


def test_all_damaged_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        (checkpoints.save(state(step)) / "model.safetensors").write_bytes(b"")
    said = []
    with pytest.raises(RunError, match="every checkpoint is damaged") as refusal:
        checkpoints.load(said.append)
    assert len(said) == 2
    assert "--overwrite" in str(refusal.value)


def test_a_damaged_later_one_never_pushes_out_a_good_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    (checkpoints.save(state(9)) / "model.safetensors").write_bytes(b"")
    checkpoints.save(state(5))  # a run that had to go back trains over the same steps again
    assert checkpoints.load(silent).step == 5


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("IoError: no space"),
        RuntimeError("write failed"),
    ],
)
@pytest.mark.parametrize("writer", ["save_file", "torch.save"])
def test_a_failure_while_writing_leaves_the_older_ones(tmp_path, monkeypatch, failure, writer):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))

    def full(value, path, metadata=None):
        with open(path, "wb") as file:
            file.write(b"half")
        raise failure

    owner = torch if writer == "torch.save" else module
    monkeypatch.setattr(owner, writer.split(".")[-1], full)
    with pytest.raises(RunFailed, match="could not be written") as refusal:
        checkpoints.save(state(2))
    assert refusal.value.exit_code == 1
    assert "--resume" in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.load(silent).step == 1


@pytest.mark.parametrize("kept", [1, 2])
def test_a_kill_at_any_moment_leaves_a_loadable_one(tmp_path, monkeypatch, kept):
    """Stop at every call that touches the disk, as a kill would: what is left must load."""

    class Kill(BaseException):
        pass

    calls = [(module, "save_file"), (torch, "save"), (module, "digest"), (os, "fsync"), (os, "replace")]
    calls.append((files.shutil, "rmtree"))
    for moment in range(40):
        checkpoints = Checkpoints(tmp_path / str(moment), keep=kept)
        checkpoints.save(state(1))
        count = 0
        with monkeypatch.context() as patch:
            for owner, name in calls:
                original = getattr(owner, name)

                def counted(*args, _original=original, _moment=moment, **options):
                    nonlocal count
                    count += 1
                    if count > _moment:
                        raise Kill
                    return _original(*args, **options)

                patch.setattr(owner, name, counted)
            with contextlib.suppress(Kill):
                checkpoints.save(state(2))
        whole = count <= moment
        assert checkpoints.load(silent).step in ((2,) if whole else (1, 2))
        if whole:
            return
    raise AssertionError("the writing never came to its end")


def test_the_state_holds_a_checksum_of_every_file(tmp_path):
    path = Checkpoints(tmp_path).save(state(3))
    known = json.loads((path / "state.json").read_text())["files"]
    assert sorted([*known, "state.json"]) == sorted(path_.name for path_ in path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("target", ["..", ".", "step-00000002", "../samples"])
def test_a_link_at_the_place_of_a_checkpoint_is_replaced_and_not_followed(tmp_path, target):
    checkpoints, own = Checkpoints(tmp_path / "checkpoints"), tmp_path / "samples" / "own.txt"
    checkpoints.save(state(1))
    own.parent.mkdir()
    own.write_text("own")
    (tmp_path / "checkpoints" / "step-00000002").symlink_to(target)
    checkpoints.save(state(2))
    assert own.read_text() == "own"
    assert [path.name for path in checkpoints.paths()] == ["step-00000002", "step-00000001"]


def test_a_file_at_the_place_of_a_checkpoint_is_replaced(tmp_path):
    (tmp_path / "step-00000002").write_text("")
    Checkpoints(tmp_path).save(state(2))
    assert Checkpoints(tmp_path).load(silent).step == 2


def test_copies_under_other_names_stay_and_are_not_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for name in ("step-00000001.bak", "step-best"):
        shutil.copytree(checkpoints.save(state(1)), tmp_path / name)
    checkpoints.save(state(2))
    assert checkpoints.load(silent).step == 2
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001.bak", "step-best", "step-00000002"}


def test_steps_of_nine_digits_come_after_those_of_eight(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (99_999_999, 100_000_000):
        checkpoints.save(state(step))
    assert checkpoints.load(silent).step == 100_000_000
    assert len(checkpoints.paths()) == 2


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    checkpoints, read = Checkpoints(tmp_path, keep=1), module.read_json
    checkpoints.save(state(1))

    def slowly(path):
        if path.parent.name == "step-00000001":
            checkpoints.save(state(2))  # the run goes on, and removes the older one
        return read(path)

    monkeypatch.setattr(module, "read_json", slowly)
    assert checkpoints.load(silent).step == 2


def test_averaged_weights_alone_can_be_read_and_not_continued_with(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weights = {"w": torch.ones(2)}
    folder = checkpoints.save(Checkpoint(3, weights, weights, {}, {}))
    state = json.loads((folder / "state.json").read_text())
    for name in ("model.safetensors", "optimizer.pt"):
        (folder / name).unlink()
        del state["files"][name]
    (folder / "state.json").write_text(json.dumps(state))
    read = checkpoints.load(pytest.fail, to_train=False)
    assert (read.step, read.ema["w"].tolist(), read.model) == (3, [1.0, 1.0], {})
    with pytest.raises(RunError, match="every checkpoint is damaged"):
        checkpoints.load(lambda text: None)
