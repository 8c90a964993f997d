"""Text of others is harmless in a terminal, a caption and a log; what nobody foresaw is kept whole in a file."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import matplotlib
import pytest
from tiny import RING, refused, unidiff, write

from unidiff import plot
from unidiff.cli import main
from unidiff.errors import RunError
from unidiff.plot import figure as figure_module
from unidiff.run.directory import RunDirectory
from unidiff.run.load import load
from unidiff.text import clean, first_line

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
    monkeypatch.setattr("unidiff.tasks.generation.load_generation", broken)
    message = refused("sample", tmp_path / "run", code=1)
    assert message == "unidiff: too many open files (METADATA). Raise the limit, `ulimit -n 1024` for example.\n"


def test_what_nobody_foresaw_is_kept_in_a_file_and_has_code_70(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise KeyError("an inner " + HOSTILE)

    path = write(tmp_path, RING)
    assert unidiff("run", path, "--out", tmp_path / "run").code == 0
    monkeypatch.setattr("unidiff.tasks.generation.load_generation", broken)
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
    figure_module._import_matplotlib()
    assert os.environ["MPLBACKEND"] == "module://matplotlib_inline.backend_inline"
    assert matplotlib.get_backend().lower() == "agg"


@pytest.mark.slow  # imports PyTorch in processes of their own
@pytest.mark.parametrize(
    ("backend", "used"), [("module://no.such", "module://no.such"), ("nonsense", ""), ("svg", "svg")]
)
def test_the_backend_of_the_environment_is_kept_if_there_is_one(tmp_path, backend, used):
    program = (
        "from unidiff import plot\nfrom pathlib import Path\nimport os\n"
        f"plot.save_loss_curve([1, 2], [1.0, 0.5], Path({str(tmp_path / 'loss.png')!r}), 'x')\n"
        f"import matplotlib\nassert os.environ['MPLBACKEND'] == {backend!r}\n"
        f"assert matplotlib.rcParams._get('backend') == {used!r} or not {used!r}"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert (tmp_path / "loss.png").is_file()
