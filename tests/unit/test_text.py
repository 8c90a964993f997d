"""Text of others is harmless in a terminal, a caption and a log; what nobody foresaw is kept whole in a file."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile

import matplotlib
import pytest
from tiny import RING, refused, unidiff, write

from unidiff import plot
from unidiff.cli import main
from unidiff.cli.last_resort import run_directory, write_report
from unidiff.data import listing as left_out
from unidiff.errors import ParameterError, RunError
from unidiff.plot import appearance
from unidiff.run.directory import RunDirectory
from unidiff.run.load import load
from unidiff.text import clean, count_of, first_line, joined_name, operand, rows_of

HOSTILE = "\x1b]0;title\a\x1b[2J"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, naïve, 数\nsecond line", "plain, naïve, 数\nsecond line"),
        (HOSTILE, r"\x1b]0;title\x07\x1b[2J"),
        ("a\rb\tc\x9b2J", r"a\rb\tc\x9b2J"),  # 0x9b is an escape sequence in one byte
        ("name\udcff", r"name\udcff"),  # a byte that is not UTF-8
        ("abc\u202efdp.exe", r"abc\u202efdp.exe"),  # turned round by a terminal
    ],
)
def test_no_control_character_survives(text, expected):
    assert clean(text) == expected
    assert clean(clean(text)) == expected


def test_long_words_and_lines_lose_their_middle():
    word, line = "a" * 100_000 + "b", "ab " * 100_000
    assert len(clean(word)) < 400
    assert (clean(word)[0], clean(word)[-1]) == ("a", "b")
    assert len(clean(line)) < 5000
    assert clean("a" * 300) == "a" * 300


def test_frames_of_other_languages_are_left_out():
    error = RuntimeError("value cannot be converted\nException raised from f at x.cpp:1\nframe #0: c10::Error")
    assert first_line(error) == "value cannot be converted"
    assert first_line(MemoryError()) == "MemoryError"


# --- the command line ---


def test_a_key_of_a_recipe_does_not_reach_the_terminal_raw(tmp_path):
    path = write(tmp_path, RING)
    path.write_text(path.read_text() + r'"\e]0;title\a\e[2J": 1' + "\n")
    assert r"\x1b]0;title\x07\x1b[2J: unknown key" in refused("check", path)
    result = unidiff(f"sam{HOSTILE}ple")
    assert (result.code, "\x1b" in result.err) == (2, False)


def test_too_many_open_files_are_the_limit_of_the_system(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise OSError(24, "Too many open files", "METADATA")

    assert unidiff("run", write(tmp_path, RING), "--out", tmp_path / "run").code == 0
    monkeypatch.setattr("unidiff.tasks.parts.load_generation", broken)
    message = refused("sample", tmp_path / "run", code=1)
    assert message == "unidiff: too many open files (METADATA). Raise the limit, `ulimit -n 1024` for example.\n"


def test_what_nobody_foresaw_is_kept_in_a_file_and_has_code_70(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise KeyError("an inner " + HOSTILE)

    path = write(tmp_path, RING)
    assert unidiff("run", path, "--out", tmp_path / "run").code == 0
    monkeypatch.setattr("unidiff.tasks.parts.load_generation", broken)
    monkeypatch.setenv("UNIDIFF_DEBUG", "0")
    message = refused("sample", tmp_path / "run", code=70)
    (report,) = (tmp_path / "run").glob("unidiff-error-*.txt")
    assert str(report) in message
    assert "\x1b" not in message
    text = report.read_text()
    assert "Traceback" in text
    assert "raise KeyError" in text
    assert f"'sample', '{tmp_path / 'run'}'" in text
    shown = unidiff("sample", tmp_path / "run", "--debug")
    assert (shown.code, "raise KeyError" in shown.err) == (70, True)


def test_a_run_that_is_not_there_is_named_without_escape_sequences(tmp_path):
    result = unidiff("check", write(tmp_path, {**RING, "start": HOSTILE}))
    assert (result.code, "\x1b" in result.out) == (0, False)


@pytest.mark.parametrize("missing", ["getcwd", "gettempdir", "__str__"])
def test_the_last_resort_needs_nothing(tmp_path, monkeypatch, missing):
    """Neither a working directory, nor one for temporary files, nor an error that can be shown."""

    class Odd(Exception):
        def __str__(self):
            return 1 / 0 if missing == "__str__" else "odd"

    run_directory.set(None)

    def gone(*args):
        raise FileNotFoundError(2, "gone")

    if missing != "__str__":
        monkeypatch.setattr(os if missing == "getcwd" else tempfile, missing, gone)
    said = write_report(Odd())
    assert said.startswith("an unexpected error, Odd: odd" if missing != "__str__" else "an unexpected error, Odd: Odd")
    assert ("It could not be written" in said) == (missing == "gettempdir")


def test_a_deleted_working_directory_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the working directory was deleted. Change to another one." in refused("run", "ddpm_digits")


def test_a_traceback_and_a_warning_hold_no_escape_sequences(tmp_path, monkeypatch):
    """The warning comes through a decorator of contextlib, whose file a stack level points at."""

    @contextlib.contextmanager
    def block():
        yield

    @block()
    def load(*args, **options):
        warn = compile("import warnings\nwarnings.warn(words, stacklevel=2)", left_out.__file__, "exec")
        exec(warn, {"words": HOSTILE})
        raise RunError(HOSTILE)

    path = write(tmp_path, RING)
    monkeypatch.setattr("unidiff.run.task.load_recipe", load)
    result = unidiff("check", path, "--debug")
    assert (result.code, "Traceback" in result.err, "\x1b" in result.err) == (2, True, False)
    assert r"Note: \x1b]0;title\x07\x1b[2J" in result.err.splitlines()


def test_letters_that_an_output_has_not_are_written_by_their_codes(monkeypatch):
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(bytes_out, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["unidiff", "check", "ü"])
    with pytest.raises(SystemExit) as end:
        main()
    sys.stderr.flush()
    assert end.value.code == 2
    assert rb"\xfc: neither a file nor a shipped recipe" in bytes_out.getvalue()


# --- run directories ---


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_made(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")
    assert "must be UTF-8" in refused("run", write(tmp_path, RING), "--out", name)
    assert not os.path.exists(name)
    with pytest.raises(RunError, match="must be UTF-8"):
        load(name)
    assert RunDirectory(tmp_path / "ü$").name == "ü$"


# --- figures ---


def test_a_formula_in_a_title_is_text(tmp_path):
    """`$\\frac{$` is no formula that matplotlib can read, and `$x$` one that it would draw in italics."""
    title = r"out_$\frac{$ $x$" + f"{HOSTILE}\udcff"
    plot.save_loss_curve([1, 2], [1.0, 0.5], tmp_path / "loss.png", title)
    curve = plot.Curve("a", title, [1.0, 2.0], [1.0, 0.5], [0.0, 0.0])
    plot.save_curves([plot.Panel(title, title, [curve], None, "")], title, tmp_path / "curves.png", title)


def test_a_backend_of_a_notebook_does_not_matter(monkeypatch):
    """Whether matplotlib is imported is for a process of its own to show; see the slow test."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    appearance.import_matplotlib()
    assert os.environ["MPLBACKEND"] == "module://matplotlib_inline.backend_inline"
    assert matplotlib.get_backend().lower() == "agg"


@pytest.mark.slow  # imports PyTorch in a process of its own, and matplotlib in two
def test_the_backend_of_the_environment_is_kept_if_there_is_one(tmp_path):
    program = """
import os, sys
from pathlib import Path
from unidiff import plot

import contourpy, dateutil.parser, dateutil.rrule, kiwisolver, pyparsing  # of matplotlib, for both
import PIL.PngImagePlugin

assert "matplotlib" not in sys.modules
for backend, used in [("module://no.such", "module://no.such"), ("nonsense", "")]:
    if not (child := os.fork()):
        os.environ["MPLBACKEND"] = backend
        plot.save_loss_curve([1, 2], [1.0, 0.5], Path(f"loss-{used[-3:]}.png"), "x")
        import matplotlib
        assert os.environ["MPLBACKEND"] == backend
        assert matplotlib.rcParams._get("backend") == used or not used
        break
    assert os.waitpid(child, 0)[1] == 0, backend
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert len([*tmp_path.glob("*.png")]) == 2


def test_messages_of_errors_have_no_control_characters():
    for error in (RunError("a\x1b[2Jb\nc"), ParameterError("steps", "a\x1b[2Jb\nc")):
        assert str(error).endswith("a\\x1b[2Jb\nc")
    assert error.problem == "a\\x1b[2Jb\nc"


def test_a_path_is_never_an_option():
    assert [operand(path) for path in ("-x", "--out/a", "a-b", "./-x", "")] == ["./-x", "./--out/a", "a-b", "./-x", ""]


def test_names_of_files_about_many_things_fit_a_file_system():
    assert joined_name(["compare", "a", "b"]) == "compare-a-b"
    long = joined_name(["compare", "é" * 200])  # two bytes each
    assert (len(long.encode()), long) == (200, "compare-" + "é" * 96)


def test_one_is_not_many_and_a_shape_has_no_stars():
    assert [count_of(n, "sample") for n in (0, 1, 1438)] == ["0 samples", "1 sample", "1,438 samples"]
    assert (rows_of((1, 8, 8)), rows_of((2,), "B")) == ("(N, 1, 8, 8)", "(B, 2)")
