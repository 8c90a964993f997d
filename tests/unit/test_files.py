"""Files and folders are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from crash import Killed, killed_at
from safetensors import SafetensorError

from unidiff import files
from unidiff.errors import RunError
from unidiff.files import digest, digest_of, whole_file, whole_files, whole_folder
from unidiff.machine import machine
from unidiff.writable import require_file, require_writable


class Stop(Exception):
    """Stands for whatever ends a block early."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.txt", "no_suffix", "n" * 250 + ".npy"])
def test_a_file_is_replaced_when_the_block_ends_and_kept_when_it_fails(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_text("old")
    with pytest.raises(Stop), whole_file(target) as partial:  # noqa: PT012 - what fails is the block
        assert partial.suffix == target.suffix
        partial.write_text("half")
        raise Stop
    assert target.read_text() == "old"
    assert names(tmp_path) == [name]
    with whole_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == [name]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a") as partial:
            partial.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_at_the_target_is_replaced_and_what_it_points_to_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    with whole_file(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"


def test_the_temporary_file_is_made_anew_and_never_through_a_planted_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "known")
    (tmp_path / "mine").write_text("mine")
    planted = files._beside(tmp_path / "a.txt")
    assert planted.name.startswith(files.PARTIAL)
    planted.symlink_to("mine")
    with pytest.raises(FileExistsError), whole_file(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_content_is_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    with whole_file(tmp_path / "a") as partial:
        partial.write_text("x")
    assert calls == ["fsync", "replace", "fsync"]  # the content, the name, the folder that holds the name


def test_a_folder_replaces_the_older_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "x" / "folder"
    with pytest.raises(Stop), whole_folder(target):
        raise Stop
    assert names(tmp_path) == []  # the parent that had been made is removed
    for content in ("one", "two"):
        with whole_folder(target) as partial:
            (partial / content).write_text(content)
    assert names(target) == ["two"]
    assert names(tmp_path / "x") == ["folder"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_replaced_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    target, calls, replace = tmp_path / "folder", [0], os.replace
    target.mkdir()
    (target / "old").write_text("old")

    def fails(source: Path, to: Path) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError("disk")
        replace(source, to)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):  # noqa: PT012 - what fails is the block
        patch.setattr(os, "replace", fails)
        patch.setattr(files, "_exchanged", lambda *folders: False)  # as on other systems than Linux
        with whole_folder(target) as partial:
            (partial / "new").write_text("new")
    assert names(tmp_path) == ["folder"]
    assert names(target) == ["old"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_killed_at_any_operation_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    target, found = tmp_path / ("f" * 255), set[str]()
    if not exchange:
        monkeypatch.setattr(files, "_exchanged", lambda *folders: False)

    def write(name: str) -> None:
        with whole_folder(target) as partial:
            (partial / name).write_text(name)

    for moment in range(100):
        write("old")
        with suppress(Killed), killed_at(moment) as done:
            write("new")
        with monkeypatch.context() as patch:
            patch.setattr(files, "is_alive", lambda process: False)  # the killed process was this one
            if target.exists():  # without an exchange there is a moment at which it is not
                assert names(target) in (["old"], ["new"])
                found.update(names(target))
            else:
                assert not exchange
                found.add("none")
                with pytest.raises(Stop), whole_folder(target):
                    raise Stop
                assert names(target) == ["old"]
            write("third")
        assert (names(target), len(names(tmp_path))) == (["third"], 1)
        if len(done) <= moment:
            assert found == ({"old", "new"} if exchange else {"old", "new", "none"})
            return
    pytest.fail("it was killed at every moment")


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with whole_folder(tmp_path / "link") as partial:
        (partial / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["new"]


def test_files_reach_a_folder_together_the_mark_last_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").write_text("other")
    moved: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b))[1])
    for stop in (True, False):
        try:
            with whole_files(tmp_path, "a.json") as partial:
                (partial / "a.json").write_text("mark")
                (partial / "b.bin").write_text("content")
                if stop:
                    raise Stop
        except Stop:
            assert names(tmp_path) == ["other"]
    assert moved == ["b.bin", "a.json"]
    assert names(tmp_path) == ["a.json", "b.bin", "other"]


def test_digests(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one block of 1 MiB
    (tmp_path / "a").write_bytes(content)
    expected = "sha256:" + hashlib.sha256(content).hexdigest()
    assert digest(tmp_path / "a") == expected == digest_of([content[:7], content[7:]])


def test_where_nothing_can_be_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("file", "broken"):
        with pytest.raises(RunError, match=rf"{name} is not a directory\. Choose another path"):
            require_writable(tmp_path / name / "folder")
    with pytest.raises(RunError, match="cannot be used"):
        require_writable(tmp_path / ("n" * 300))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 10**6))
    with pytest.raises(RunError, match=r"3 MB are needed, but only 1 MB are free"):
        require_writable(tmp_path, needed=3 * 10**6)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RunError, match="no permission to write in"):
        require_writable(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "there" / "target"

    def fill(content: str) -> None:
        with whole_folder(target) if kind == "folder" else whole_files(target, "z") as partial:
            for name in ("a", "z"):
                (partial / name).write_text(content)

    for moment in range(100):
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        if moment % 2:
            fill("old")
        with suppress(Killed), killed_at(moment // 2) as done:
            fill("new")
        left = {path.name: path.read_text() for path in target.glob("[az]")}
        if kind == "folder":  # whole, or, for a moment, under another name
            assert left in ({"a": "old", "z": "old"}, {"a": "new", "z": "new"}, {})
        elif left.get("z") == "new":
            assert left["a"] == "new"
        fill("next")
        assert {path.name: path.read_text() for path in target.glob("[az]")} == {"a": "next", "z": "next"}
        if moment % 2 and len(done) <= moment // 2:
            return
    raise AssertionError("the writing never came to its end")


def test_what_dead_processes_left_is_removed_and_what_is_in_the_making_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("mine")
    mine, dead = f"{files.PARTIAL}{machine()}", f"{2**22 + 1:x}"
    elsewhere, older = f"{files.PARTIAL}00000000-{os.getpid():x}-00000000", f"{files.PARTIAL}0123456789abcdef"
    stay = ["mine", f"{mine}-{os.getpid():x}-00000000", elsewhere, older, f"{files.PARTIAL}notes.txt"]
    for name in (*stay[1:], f"{mine}-{dead}-00000000.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / f"{mine}-{dead}-00000001").mkdir()
    (tmp_path / f"{mine}-{dead}-00000001" / "a").write_text("x")
    (tmp_path / f"{mine}-{dead}-00000002").symlink_to("mine")
    with whole_file(tmp_path / "new") as partial:
        partial.write_text("x")
    assert names(tmp_path) == sorted([*stay, "new"])
    for name in (elsewhere, older):  # two days old
        os.utime(tmp_path / name, (0, 0))
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted({*stay, "new"} - {elsewhere, older})


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_file_is_not_replaced_by_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with pytest.raises(OSError, match="Not a regular file"), whole_file(tmp_path / name):
            pass
    assert names(tmp_path) == ["a", "link"]


def test_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name, to in (("in", "b"), ("out", "../b"), ("loop", "loop"), ("down", ".")):
        (tmp_path / "run" / name).symlink_to(to)
    inside = {"a", "a/b", "a/../b", "in", "down/down/b", "loop"}
    for name in (*inside, "..", "../b", "/", "/etc/hostname", "out", "out/b", "a/../../run2"):
        assert files.is_inside(tmp_path / "run" / name, tmp_path / "run") == (name in inside), name


@pytest.mark.parametrize("door", [whole_file, whole_folder, lambda path: whole_files(path, "last")])
def test_an_error_of_safetensors_is_one_of_the_system(door, tmp_path):
    with pytest.raises(OSError, match="File too large"), door(tmp_path / "model"):
        raise SafetensorError("I/O error: File too large (os error 27)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_a_name_that_is_free_when_it_is_whole(tmp_path, monkeypatch, links):
    def free():
        return next(path for path in (tmp_path / f"{n}.png" for n in range(9)) if not path.exists())

    def write(path):
        path.write_text("ours")
        (tmp_path / "0.png").write_text("theirs")  # while it was written

    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    assert files.save_new(write, free) == tmp_path / "1.png"
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["theirs", "ours"]


@pytest.mark.parametrize(("name", "problem"), [
    ("x" * 300, "this name cannot be used"), (".", "this is a directory"), ("fifo", "this is a device or a pipe"),
    ("none/x", "does not exist"), ("/proc/x", "this is a device"), ("stdout", "this is a device"),
])  # fmt: skip
def test_what_is_no_name_of_a_file_is_refused(tmp_path, name, problem):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "stdout").symlink_to("/proc/self/maps")  # as /dev/stdout is one to what may be a file
    with pytest.raises(RunError, match=f"^--out .*{problem}"):
        require_file(tmp_path / name, "--out")


def test_a_path_without_room_for_an_unfinished_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def limited(path: Path) -> os.stat_result:
        if len(os.fspath(path)) > len(str(tmp_path)) + 40:
            raise OSError(errno.ENAMETOOLONG, "File name too long", str(path))
        return lstat(path)

    monkeypatch.setattr(os, "lstat", limited)
    with pytest.raises(RunError, match=r"cannot be used \(File name too long\)"):
        require_file(tmp_path / "x.npy", "--array")


def test_a_file_of_another_kind_is_not_replaced(tmp_path):
    kind = {"a .npy array": b"\x93NUMPY"}
    for name, content in (
        ("array", b"\x93NUMPY\x01"),
        ("empty", b""),
        ("recipe.npy", b"data: Ring"),
        ("short", b"\x93"),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("array", "empty", "new"):
        require_file(tmp_path / name, "--array", kind)
    for name in ("recipe.npy", "short"):
        with pytest.raises(RunError, match=r"^--array .*: the file that is there is not a \.npy array\. .*--overw"):
            require_file(tmp_path / name, "--array", kind)
        require_file(tmp_path / name, "--array")
