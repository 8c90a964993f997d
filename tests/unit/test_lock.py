"""One process at a time: who holds a lock is named, and a dead process holds none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from unidiff import lock
from unidiff.errors import RunError
from unidiff.lock import LOCK, check_free, locked


@pytest.fixture(params=["flock", "no flock"])
def kind(request, monkeypatch):
    """A file system with flock, and one without."""
    monkeypatch.setattr(lock, "_PAUSE", 0)
    if request.param == "no flock":
        if lock.fcntl is None:
            pytest.skip("as above on this system")

        def flock(descriptor, how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(lock.fcntl, "flock", flock)
    return request.param


def left_behind(folder: Path, **changes: object) -> None:
    """The lock file of a process that was killed, which no process is."""
    record = {"process": 2**22 + 1, "host": "here", "machine": lock.machine(), "since": "2020-01-01T00:00:00+00:00"}
    (folder / LOCK).write_text(json.dumps({**record, **changes}))


def test_who_holds_it_is_named_and_nothing_is_changed(kind, tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder) as held:
        content = (folder / LOCK).read_bytes()
        for attempt in (lambda: check_free(folder), lambda: locked(folder).__enter__()):
            with pytest.raises(RunError) as error:
                attempt()
            record = json.loads(content)
            assert f"in use by process {os.getpid()} on {record['host']}, since {record['since']}" in str(error.value)
            assert (f"If it is gone, remove {folder / LOCK}" in str(error.value)) == (kind == "no flock")
        assert (folder / LOCK).read_bytes() == content
        assert not held.is_lost()
    assert list(folder.iterdir()) == []
    check_free(folder)


def test_the_lock_of_a_dead_process_is_taken_over(kind, tmp_path):
    left_behind(tmp_path)
    check_free(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", [{"machine": "another0"}, {"process": os.getpid()}])
def test_without_flock_the_record_decides(kind, tmp_path, record):
    left_behind(tmp_path, **record)
    if kind == "flock":  # the system would know of a living one
        with locked(tmp_path):
            pass
        return
    for attempt in (lambda: check_free(tmp_path), lambda: locked(tmp_path).__enter__()):
        with pytest.raises(RunError, match=r"in use by process \d+ on here, since 2020.* If it is gone, remove"):
            attempt()
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("content", ["", "null", "[" * 5000, '{"process": 1}', '{"process": -1, "host": "\\u001b[2J"}'])
def test_a_record_that_cannot_be_read_is_another_process(tmp_path, monkeypatch, content):
    with locked(tmp_path):
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(RunError, match="in use by another process"):
            check_free(tmp_path)


def test_what_is_not_a_lock_file_is_neither_followed_nor_changed(kind, tmp_path):
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "run" / LOCK
    path.parent.mkdir()
    for plant in (
        lambda: path.symlink_to("../mine"),
        lambda: path.symlink_to("nowhere"),
        lambda: os.link(tmp_path / "mine", path),
        lambda: os.mkfifo(path),
        path.mkdir,
    ):
        plant()
        with pytest.raises(RunError, match="Remove it"):
            check_free(path.parent)
        with pytest.raises(RunError), locked(path.parent):
            pass
        path.rmdir() if path.is_dir() else path.unlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (path.parent / "nowhere").exists()


@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_directory_that_is_gone_is_noticed_and_the_next_one_is_left_alone(tmp_path, fate):
    folder = tmp_path / "run"
    with locked(folder) as held:
        folder.rename(tmp_path / "moved")
        if fate == "deleted":
            (tmp_path / "moved" / LOCK).unlink()
            (tmp_path / "moved").rmdir()
        if fate == "replaced":
            folder.mkdir()
            left_behind(folder)
        assert held.is_lost()
    assert folder.exists() == (fate == "replaced")
    assert not folder.exists() or (folder / LOCK).exists()


def test_a_lock_file_that_is_removed_by_hand_ends_nothing(tmp_path):
    with locked(tmp_path) as held:
        (tmp_path / LOCK).unlink()
        assert not held.is_lost()


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be created or locked"), locked(tmp_path / "file" / "b"):
        pass
