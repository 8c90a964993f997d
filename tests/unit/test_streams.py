"""Standard streams that are closed, full or gone end no command, and lose nothing but words."""

from __future__ import annotations

import importlib
import io
import json
import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest
from tiny import RING, Forked, write

from unidiff.cli import main
from unidiff.cli.last_resort import write_report
from unidiff.cli.streams import usable_streams
from unidiff.errors import RunFailed

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")


def full(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, name, io.TextIOWrapper(io.FileIO("/dev/full", "w"), encoding="utf-8"))


@needs_full
def test_a_full_standard_error_is_passed_over(monkeypatch):
    full(monkeypatch, "stderr")
    with usable_streams():
        for _ in range(3):
            print("progress", file=sys.stderr, flush=True)


@needs_full
def test_a_full_standard_output_is_one_sentence(monkeypatch):
    full(monkeypatch, "stdout")
    error = io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setattr(sys, "argv", ["unidiff", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, error.getvalue().count("unidiff: standard output cannot be written to")) == (1, 1)
    full(monkeypatch, "stdout")
    with usable_streams(), pytest.raises(RunFailed, match="No space left"):
        print("results", flush=True)


def test_a_closed_stream_leads_nowhere_and_comes_back(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with usable_streams():
        print("words")
        print("words", file=sys.stderr)
        assert sys.stdin.read() == ""
    assert (sys.stdin, sys.stdout, sys.stderr) == (None, None, None)


def test_without_any_folder_the_last_resort_still_answers(monkeypatch):
    def gone():
        raise FileNotFoundError("gone")

    monkeypatch.setattr("tempfile.gettempdir", gone)
    monkeypatch.setattr("os.getcwd", gone)
    assert "could not be written to a file" in write_report(KeyError("x"))


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("os.getcwd", gone)
    monkeypatch.setattr(sys, "argv", ["unidiff", "list"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "the working directory was deleted" in capsys.readouterr().err


@pytest.mark.slow
def test_a_closed_terminal_stops_a_run_with_its_checkpoint(tmp_path):
    """Slow: a process of its own."""
    run, (ours, theirs) = tmp_path / "run", pty.openpty()
    recipe = write(tmp_path, {**RING, "training": {**RING["training"], "steps": 10**6, "checkpoint_every": 10**6}})
    process = Forked("run", recipe, "--out", run, terminal=os.ttyname(theirs))
    deadline = time.monotonic() + 1200
    while not (run / "metrics.jsonl").exists():
        assert process.returncode is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.close(theirs)
    os.close(ours)
    os.kill(process.pid, signal.SIGHUP)  # which the kernel sends to the leader of a session
    process.communicate(timeout=1200)
    assert process.returncode == 128 + signal.SIGHUP
    assert len(list((run / "checkpoints").glob("step-*"))) == 1
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"


def test_a_library_that_cannot_be_loaded_is_no_fault_of_ours(tmp_path, monkeypatch, capsys):
    (tmp_path / "not_loading.py").write_text("raise ValueError('SOME_VARIABLE must be ON or OFF')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "unidiff.cli.app.command_line", lambda *words, **options: importlib.import_module("not_loading")
    )
    monkeypatch.setattr(sys, "argv", ["unidiff", "describe"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "a library cannot be loaded (ValueError: SOME_VARIABLE must be ON or OFF)" in capsys.readouterr().err
