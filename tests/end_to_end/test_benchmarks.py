"""Each script of benchmarks/ starts: with `--help`, or imported where it has no options; the short ones run, too."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny import in_process

import unidiff as ud

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
WITHOUT_OPTIONS = ("caption_judge", "inpainting", "inverse", "joint_conditions", "kept_model", "rows")
# Arguments of those that need no run and no data: tiny, so the numbers say nothing.
TINY = {
    "bound": "--steps 2 --seeds 2 --width 8 --count 4",
    "couplings": "--steps 2 --batch 8 --samples 20",
    "likelihood": "--samples 1 --probes 2 --tolerances 1e-2",
    "latent_step": "--size 8 --width 8 --batch 2 --steps 1",
}


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS[0].parent)  # some import another, as in a shell


def run(script: Path, *words: str):
    return in_process(lambda: runpy.run_path(str(script), run_name="__main__"), script, *words)


@pytest.mark.slow  # 3 s: seventeen scripts with their imports
@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_starts(script):
    if script.stem in WITHOUT_OPTIONS:
        assert runpy.run_path(str(script), run_name="imported")
        return
    result = run(script, "--help")
    assert result.code == 0
    assert "usage:" in result.out


@pytest.mark.slow  # 5 s in all: they train and sample
@pytest.mark.parametrize("name", TINY)
def test_a_short_benchmark_finishes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(next(path for path in BENCHMARKS if path.stem == name), *TINY[name].split())
    assert result.code in (0, None)
    assert result.out.strip()


GPU = next(path for path in BENCHMARKS if path.stem == "gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_nothing_is_measured_or_written(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text("# On a GPU")
    result = run(GPU, "--docs", page)
    assert (result.code, result.out.count("\n")) == (0, 1)
    assert "There is no CUDA device here" in result.out
    assert page.read_text() == "# On a GPU"
    assert run(GPU, "--seconds", 0).code == 2


@pytest.fixture
def gpu(monkeypatch):
    """benchmarks/gpu.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_gpu", GPU)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # a process of its own
def test_the_tests_of_a_card_are_counted(gpu, tmp_path):
    (tmp_path / "test_some.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    setting = gpu.Setting(torch.device("cpu"), tmp_path / "test_some.py")
    first, second = gpu.tests(setting, 600.0)
    assert first.remark.startswith("1 passed, 1 failed, 0 skipped in ")
    assert (second.what, second.remark) == ("test_bad", "assert 1 == 2")
    (none,) = gpu.tests(setting, 1e-3)
    assert none.remark.startswith("0 passed, 0 failed, 0 skipped so far, and stopped after ")


@pytest.mark.slow  # 5 s: it trains ten networks and samples from six
def test_the_table_of_a_card_is_made_and_replaces_the_last_one(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # 20 s of a C++ compiler
    monkeypatch.setitem(gpu.PARTS, "tests", (0.4, lambda setting, seconds: iter(())))
    page = tmp_path / "gpu.md"
    page.write_text("# On a GPU\n\nBefore.\n")

    def rows() -> list[list[str]]:
        result = in_process(gpu.main, GPU, "--device", "cpu", "--seconds", "0.1", "--docs", page)
        assert result.code == 0, result.err
        text = page.read_text()
        assert result.out.strip() in text
        assert text.startswith("# On a GPU\n\nBefore.\n")
        assert text.count("ms per step") == text.count("table begins") == text.count("table ends") == 1
        return [line.strip("| ").split(" | ") for line in result.out.splitlines() if line.startswith("| ")][2:]

    found = rows()
    parts = [row[0] for row in found]
    numbers = {"training": 5, "sampling": 10, "recipe": 4, "MNIST": 1}
    assert {part: parts.count(part) for part in numbers} == numbers
    failed = [row for row in found if "Error" in row[-1]]
    assert len(failed) == 4
    assert all("CudaGraphs needs a model on a CUDA device" in row[-1] for row in failed)
    assert "500 epochs: " in found[-1][-1]

    page.write_text(page.read_text() + "\nAfter.\n")
    monkeypatch.setattr(ud, "train", lambda *args, **options: 1 / 0)
    assert len([row for row in rows() if row[-1] == "ZeroDivisionError: division by zero"]) == 10
    assert page.read_text().endswith("\nAfter.\n")


def test_a_table_replaces_the_last_one():
    rows = runpy.run_path(str(GPU.parent / "rows.py"))
    once = rows["replaced"]("# Page\n", "one", "make bench")
    assert rows["replaced"](once + "end\n", "two", "make bench") == once.replace("one", "two") + "end\n"
    row = rows["Row"]("efficiency", 2.0, 3.0, 0.75, 0.9, least=True)
    assert not row.met
    assert rows["table"]([row, row._replace(ratio=0.95, number=True)]).splitlines()[1:] == [
        "efficiency       2 s        3 s   0.75  >= 0.9   no",
        "efficiency  2.00e+00   3.00e+00   0.95  >= 0.9  yes",
    ]


@pytest.mark.slow  # 4 s: it trains a judge and draws
def test_a_held_back_judge_agrees_with_the_shipped_features():
    script = runpy.run_path(str(BENCHMARKS[0].parent / "held_back_judge.py"))
    known, held_back = script["halves"]()
    assert not {*known.tolist()} & {*held_back.tolist()}
    worse = {"worse": script["disturbed"](ud.load("shipped:ncsn_digits", device="cpu"))}
    sets = script["ladder"](worse, [3, 30], 40)
    judge = script["train_judge"]("convolutional", known, 60)
    for found in (script["scores"](sets, None, known), script["scores"](sets, judge, held_back)):
        distances = [found[row]["frechet"] for row in ("real data", "worse, 30", "worse, 3")]
        assert distances == sorted(distances)
        assert found["real data"]["confidence"] > found["worse, 3"]["confidence"]
