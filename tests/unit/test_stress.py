"""The campaign of `make stress`: a fault that is planted is counted, in the right column, and none is invented."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest
from stress import cases, faults, inputs, soak
from stress.cases import Part, Table, campaign
from stress.command import FAULTS, Verdict, run, snapshot

from unidiff.errors import RunError


def judged(program, codes=(0, 1, 2), **options):
    verdict = Verdict("test/0/0")
    verdict.judge(run("x", program=program, **options), codes)
    return dict(verdict.found)


def fails():
    raise RuntimeError("unexpected")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def says(text, code=0):
    def program():
        print(text)
        raise SystemExit(code)

    return program


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (fails, {"tracebacks": 1}),
        (dies, {"tracebacks": 1}),
        (says("kept in a file", 70), {"tracebacks": 1}),
        (says("frame #0: c10::Error"), {"tracebacks": 1}),
        (says("", 3), {"wrong exit codes": 1}),
        (says("", 2), {"wrong exit codes": 1}),  # without a word
        (says("a\x1b]0;owned\x07"), {"escape sequences": 1}),
        (says("loss 0.5\tä\n"), {}),
    ],
)
def test_a_planted_fault_is_counted_in_its_column(program, expected):
    assert judged(program) == expected
    assert set(expected) <= set(FAULTS)


def busy():
    while True:
        pass


@pytest.mark.parametrize("program", [lambda: time.sleep(600), busy], ids=["waits", "computes"])
def test_a_hang_is_counted(program):
    assert judged(program, patience=0.1) == {"hangs over 5 s": 1}


def test_the_words_of_the_command_line_and_its_errors_arrive():
    result = run("describe", "DDP")
    assert (result.code, result.err.count("unidiff:")) == (2, 1)


def three_files(folder):
    def program():
        for name in "abc":
            (folder / name).write_text(name)
        os.replace(folder / "a", folder / "d")

    return program


def test_a_process_is_killed_before_each_operation_in_turn(tmp_path):
    states = []
    for n in range(1, 6):
        folder = tmp_path / str(n)
        folder.mkdir()
        states.append((run(program=three_files(folder), prepare=faults.kill_at(n)).code, sorted(os.listdir(folder))))
    assert states == [(-9, []), (-9, ["a"]), (-9, ["a", "b"]), (-9, ["a", "b", "c"]), (0, ["b", "c", "d"])]


def test_an_operation_is_denied_and_counted(tmp_path):
    result = run(program=three_files(tmp_path), prepare=faults.deny_at(2, errno.ENOSPC, 1))
    assert "No space left on device" in result.err
    assert os.listdir(tmp_path) == ["a"]
    run(program=three_files(tmp_path), prepare=faults.count_into(tmp_path / "count"))
    assert (tmp_path / "count").read_text() == "4"


def wrong(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    Path("left").write_text("x")
    if index == 1:
        verdict.add("lost", "planted")
    if index == 2:
        raise KeyError("a mistake of the campaign")
    if index == 3:
        os._exit(1)
    verdict.notes += [str(draw.random())]


def test_the_table_counts_cases_and_what_each_found(tmp_path, capsys):
    part, table = Part("p", 4, 4, wrong), Table(tmp_path / "log")
    for own, verdict in campaign([(part, index) for index in range(4)], 7, tmp_path, workers=2):
        table.add(own.name, verdict)
    assert table.rows["p"] == {"tried": 4, "lost": 1, "wrong exit codes": 2}
    assert not table.clean
    assert len((tmp_path / "log").read_text().splitlines()) == 4
    printed = capsys.readouterr().out
    assert "REPEAT=p/7/1\n" in printed
    assert printed.count("THE CAMPAIGN ITSELF") == 2
    # Alone, a case draws the same numbers again, and its folder is gone.
    again = cases.tried(part, 7, 1, tmp_path)
    assert all(note in printed for note in again.notes)
    clean = Table()
    clean.add("p", Verdict("p/0/0"))
    assert clean.clean


@pytest.mark.slow  # imports every public module
def test_what_is_left_behind_is_counted(tmp_path, monkeypatch):
    """The command that refuses a bad recipe is made to leave a file."""

    def careless(*words, **options):
        Path("left.txt").write_text("x")
        raise RunError("bad input")

    part = Part("keys", 1, 1, inputs.key)
    assert not cases.tried(part, 0, 0, tmp_path).found
    monkeypatch.setattr("unidiff.cli.app.command_line", careless)
    assert cases.tried(part, 0, 0, tmp_path).found == {"left behind": 1}


@pytest.mark.slow  # imports every public module
def test_every_key_and_option_is_reached():
    from unidiff.recipe.registry import PUBLIC
    from unidiff.run.task import Task

    keys = {tuple(name for name in path if isinstance(name, str)) for _, path in inputs.all_keys()}
    for own in (("process", "schedule", "beta_min"), ("training", "lr"), ("codec", "channels"), ("domain", "cells")):
        assert own in keys
    classes = {name for _, path in inputs.all_keys() for name in path if isinstance(name, type)}
    assert classes > {*PUBLIC.choices(__import__("unidiff").Process).values()}
    assert len(PUBLIC.choices(Task)) > 4
    assert ("--array", True) in inputs.all_options()["sample"]
    assert ("--resume", False) in inputs.all_options()["run"]


def test_links_and_pipes_are_listed_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert {Path(name).name for name in snapshot(tmp_path)} == {"pipe", "link"}


def test_the_slope_of_a_line_is_its_own():
    """Points of 100 + 0.01 t MB: 36 MB per hour, without an error but rounding, of 20 values of about 100."""
    seconds = [float(t) for t in range(20)]
    rise, error = soak.slope(seconds, [100 + 0.01 * t for t in seconds])
    assert rise == pytest.approx(36, abs=3600 * 20 * 100 * 2.2e-16 * 20)
    assert error < 1e-6


def test_the_parts_are_listed(capfd):
    from stress.__main__ import main

    assert main(["--list"]) == 0
    assert "kills: 1000 cases" in capfd.readouterr().out
