"""The command line: fast help, one message per mistake, results on standard output."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIGITS, RING, Forked, metrics, refused, unidiff, write

import unidiff as ud
from unidiff.cli import app as app_module
from unidiff.cli import console as console_module
from unidiff.cli.console import Console
from unidiff.cli.likelihood import _print
from unidiff.cli.run import _directory
from unidiff.cli.signals import Interruption, StopOnSignal
from unidiff.cli.summaries import summaries
from unidiff.errors import UnidiffError
from unidiff.figures.registry import FIGURES
from unidiff.recipe.shipped import shipped_recipes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    recipe = {**DIGITS, "training": {**DIGITS["training"], "steps": 2, "tensorboard": False, "preview_every": 0}}
    assert unidiff("run", write(folder, recipe), "--out", folder / "run").code == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")


# --- without torch ---


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["--version"], ["list"], ["list", "process"], ["sampel"]]
)
def test_nothing_imports_torch_before_it_must(words):
    program = (
        "import sys\nfrom unidiff.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'numpy', 'scipy', 'accelerate', 'diffusers', 'matplotlib', 'sklearn'}\n"
        "    heavy &= set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert "AssertionError" not in process.stderr
    assert process.returncode == (2 if words == ["sampel"] else 0)


# --- list, describe, check ---


def test_list():
    text = unidiff("list").out
    assert all(f"  {name} " in text for name in ud.EXPORTS)
    assert all(f"  {name} " in text for name in shipped_recipes())
    found = json.loads(unidiff("list", "--json").out)
    assert set(found["process"]) >= {"DDPM", "NCSN"}
    assert all(summary for names in found.values() for summary in names.values())
    assert set(found["recipes"]) == set(shipped_recipes())
    assert list(json.loads(unidiff("list", "solver", "--json").out)) == ["solver"]
    assert unidiff("list", "--").out == text  # which typer reads
    assert unidiff("list", "--", "solver").out == unidiff("list", "solver").out
    kinds = refused("list", "sampler").split("Kinds: ")[1].rstrip(".\n").split(", ")
    assert set(kinds) == set(found)


@pytest.mark.parametrize("columns", [30, 80])
def test_list_and_help_are_no_wider_than_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = unidiff("list").out
    assert all(len(line) <= columns or " " not in line.strip() for line in text.splitlines())  # a name is not broken
    words = " ".join(text.split())
    assert all(
        f" {name} {summary}" in words for name, summary in json.loads(unidiff("list", "--json").out)["grid"].items()
    )
    help_text = unidiff("--help").out
    assert "..." not in help_text.replace("[ARGS]...", "")
    assert columns < 80 or max(map(len, help_text.splitlines())) <= columns


def test_colours_in_a_terminal_only(monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    message = "x.yaml:1:2: no\n    1 | a\x1b[31m: 3\n      | ^"
    console_module.say_error("unidiff", message)
    assert capsys.readouterr().err == "unidiff: x.yaml:1:2: no\n    1 | a\\x1b[31m: 3\n      | ^\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console_module.say_error("unidiff", message)
    coloured = capsys.readouterr().err
    assert coloured.startswith("\x1b[1;31munidiff:\x1b[0m x.yaml")
    assert coloured.count("\x1b[") == 4  # of others, it is written out
    for variable, value in {"NO_COLOR": "1", "TERM": "dumb"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            console_module.say_error("unidiff", message)
            assert "\x1b" not in capsys.readouterr().err


@pytest.mark.slow  # 1 s: it parses every source
def test_first_lines_are_those_of_the_docstrings():
    commands = {path.split(".")[1]: f"cli.{path.split('.')[0]}" for path in app_module._FUNCTIONS.values()}
    names = {**ud.EXPORTS, **commands}
    trees = {
        module: ast.parse(Path(ud.__path__[0], *module.split(".")).with_suffix(".py").read_text())
        for module in {*names.values()}
    }
    for name, summary in summaries(names).items():
        (node,) = [own for own in trees[names[name]].body if getattr(own, "name", None) == name]
        assert summary == (ast.get_docstring(node) or "").split("\n")[0]


@pytest.mark.cases(15)
@pytest.mark.parametrize("name", ud.EXPORTS)
def test_describe_every_public_name(name):
    text = unidiff("describe", name)
    assert text.code == 0, text
    assert text.out.startswith(f"{name}(")
    assert "<" not in text.out.splitlines()[0]
    facts = json.loads(unidiff("describe", name, "--json").out)
    assert facts["name"] == name
    assert facts["doc"]
    assert text.out.rstrip().endswith(f"In the docs: {facts['page']}")
    for row in facts.get("parameters", ()):
        assert row["name"] in text.out
        assert row["doc"], f"{name}.{row['name']} is not described in the docstring"


def test_describe_recipes_and_mistakes():
    for name, path in shipped_recipes().items():
        assert unidiff("describe", name).out.strip() == path.read_text().strip()
        assert json.loads(unidiff("describe", name, "--json").out)["doc"] == path.read_text()
    assert unidiff("describe", "annealed_langevin").out.startswith("AnnealedLangevin(")
    assert "Did you mean NCSN" in refused("describe", "NSCN")
    assert "Did you mean DDPM or" in refused("describe", "ddpn")
    assert "Interval" in refused("describe", "INTERVALL")
    assert "unidiff list" in refused("describe", "qqqqqq")


def test_check(tmp_path):
    path = write(tmp_path, RING)
    text = unidiff("check", path, "--set", "training.steps=3").out
    assert "steps: 3" in text
    assert "parameters" in text.splitlines()[-1]
    (tmp_path / "resolved.yaml").write_text(text)  # what it prints is a recipe
    assert ud.load_recipe(tmp_path / "resolved.yaml") == ud.load_recipe(path, ["training.steps=3"])
    facts = json.loads(unidiff("check", path, "--json").out)
    assert facts["parameters"] == ud.load_recipe(path).count_weights()
    assert facts["recipe"]["process"]["T"] == 50
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []


# --- mistakes ---

MISTAKES = {
    "unknown key": (["--set", "training.stepz=3"], "steps"),
    "wrong type": (["--set", "training.steps=soon"], "integer"),
    "steps 0": (["--set", "training.steps=0"], "from 1 to"),
    "width -1": (["--set", "backbone.width=-1"], "width"),
    "sigma_min above sigma_max": (["--set", "process={type: NCSN, sigma_min: 2, sigma_max: 1}"], "> sigma_min"),
    "seed": (["--set", "seed=-1"], "from 0 to"),
    "parts that do not fit": (["--set", "backbone=UNet"], "backbone"),
    "unknown part": (["--set", "process=DPM"], "DDPM"),
    "foreign code": (["--set", "process=os:system"], "--allow-imports"),
    "not an override": (["--set", "training.steps"], "training.steps"),
    "device": (["--device", "gpu"], "must be one of auto, cpu"),
    "batch": (["--set", "training.batch=9", "--set", "training.accumulate=2"], "divisor"),
    "wandb": (["--set", "training.wandb=mine"], "unidiff-diffusion[wandb]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(ud.data.Ring, "open", lambda *args: pytest.fail("data were read before the mistake was found"))
    words, expected = MISTAKES[mistake]
    write(tmp_path, RING)
    assert expected in refused("run", "tiny.yaml", *words)
    if words[0] == "--set" and mistake != "wandb":
        assert expected in refused("check", "tiny.yaml", *words)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_broken_files(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: {type: Ring\ntraining: [")
    assert "broken.yaml:2" in refused("run", broken)
    broken.write_text("")
    assert "empty" in refused("run", broken)
    broken.write_bytes(b"data: \xff")
    assert "UTF-8" in refused("run", broken)
    assert "directory" in refused("run", tmp_path)
    assert "Did you mean 'ncsn_digits'" in refused("run", "ncsn_digit")


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "x", "--count", "3"],
        ["sample", "x", "--count", "many"],
        ["nothing"],
        ["run", "x", "--set"],
        ["list", "a", "b"],
    ],
)
def test_usage_errors(words):
    result = unidiff(*words)
    assert result.code == 2
    assert "Error: " in result.err
    assert "Traceback" not in result.err


def test_an_unexpected_error_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(ud.data.Ring, "open", lambda self: 1 / 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "ZeroDivisionError" in refused("run", write(tmp_path, RING), "--out", tmp_path / "run", code=70)
    (report,) = tmp_path.glob("unidiff-error-*.txt")
    assert "Traceback" in report.read_text()


def test_a_process_that_does_not_speak_lets_the_first_speak(monkeypatch):
    waited = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(app_module.time, "sleep", waited.append)
    result = unidiff("check", "nowhere.yaml")
    assert result.code == 2
    assert result.err.startswith("unidiff (process 1): nowhere.yaml: neither a file nor a shipped recipe")
    assert waited == [5.0]


def test_a_warning_is_one_note(tmp_path):
    """A file that is left out of a folder of images: a sentence, without the path and line of the code."""
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("L", (8, 8), 9).save(tmp_path / f"photos/{name}.png")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    data = {"type": "ImageFolder", "root": str(tmp_path / "photos"), "size": 8, "channels": 1}
    training = {**DIGITS["training"], "batch": 2}
    result = unidiff("run", write(tmp_path, {**DIGITS, "data": data, "training": training}), "--dry-run")
    assert result.code == 0, result
    assert result.err.count("Left out of") == 1
    assert re.search(
        r"^Note: Left out of \S+photos: 1 without the extension of a readable image format \(1 x \.txt\)\.$",
        result.err,
        re.MULTILINE,
    )
    assert "Warning" not in result.err


def test_a_warning_of_another_package_keeps_its_origin(tmp_path, monkeypatch):
    def noisy(*args, **options):
        warnings.warn_explicit("not ours", UserWarning, "elsewhere.py", 7)
        raise UnidiffError("stopped")

    monkeypatch.setattr("unidiff.run.task.load_recipe", noisy)
    with pytest.warns(UserWarning, match="not ours"):
        assert "Note" not in refused("check", write(tmp_path, RING))


# --- run ---


@pytest.mark.slow  # two seconds; what a run prints is seen by the others of this file
def test_run_prints_where_everything_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, RING)
    result = unidiff("run", "tiny.yaml")
    assert result.code == 0
    for expected in ("Ring train, 300 samples", "parameters", "final loss", "runs/tiny/samples/grid.png", "runs/tiny/"):
        assert expected in result.out
    assert Path("runs/tiny/samples/grid.png").is_file()
    lines = result.err.splitlines()
    assert lines[0].startswith("training 1/8")
    assert any(line.startswith("training 8/8, loss ") and line.endswith(" left") for line in lines)
    assert any(line.startswith("sampling 4/4") for line in lines)
    # The run's own recipe: resumed in place, or begun anew elsewhere.
    assert unidiff("run", "runs/tiny/recipe.yaml", "--resume").code == 0
    assert unidiff("run", "runs/tiny/recipe.yaml", "--out", "again").code == 0
    assert metrics(Path("again")) == metrics(Path("runs/tiny"))


def test_where_a_run_goes():
    assert _directory(Path("ncsn_digits"), False) == Path("runs/ncsn_digits")
    assert _directory(Path("recipes/my.run.yaml"), False) == Path("runs/my.run")
    assert _directory(Path("/far/away/recipe.yaml"), True) == Path("/far/away")
    assert _directory(Path("/far/away/recipe.yaml"), False) == Path("runs/away")


def test_dry_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, RING)
    result = unidiff("run", "tiny.yaml", "--dry-run")
    assert result.code == 0
    assert "nothing was written" in result.out
    facts = json.loads(unidiff("run", "tiny.yaml", "--dry-run", "--json").out)
    assert (facts["status"], facts["data"]["count"]) == ("dry run", 300)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_json_is_the_last_line_of_standard_output(tmp_path):
    result = unidiff("run", write(tmp_path, RING), "--out", tmp_path / "run", "--json")
    summary = json.loads(result.out.splitlines()[-1])
    assert len(result.out.splitlines()) == 1
    assert summary["status"] == "finished"
    assert Path(summary["samples"]).is_file()
    assert "training 8/8" in result.err


@pytest.mark.slow  # processes of their own
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    """A real SIGINT to a real process, then the very command that it printed."""
    path = write(tmp_path, {**RING, "training": {**RING["training"], "steps": 3000, "log_every": 1}}, "a recipe.yaml")
    run = tmp_path / "run"
    process = Forked("run", path, "--out", run, "--json", "--set", "training.lr_final=0.5")
    log, begun = run / "metrics.jsonl", time.monotonic()
    while not log.exists() or log.read_bytes().count(b"\n") < 5:
        assert process.returncode is None, process.communicate()
        assert time.monotonic() < begun + 1200
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in err
    stopped = json.loads(out.splitlines()[-1])
    assert stopped["status"] == "interrupted"
    assert f"Stopped after step {stopped['step']}" in err
    assert stopped["step"] == metrics(run)[-1]["step"] >= 5
    command = shlex.split(err.split("Go on with: ")[1].splitlines()[0])
    assert command[0] == "unidiff"
    assert command[-1] == "--resume"
    checkpoint = json.loads((run / f"checkpoints/step-{stopped['step']:08d}/state.json").read_text())
    assert checkpoint["step"] == stopped["step"]
    assert unidiff(*command[1:], "--dry-run").code == 0  # the same recipe: it would be accepted


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_ask_once_and_ctrl_c_insists(name):
    number = getattr(signal, name)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    before = [*map(signal.getsignal, signal.valid_signals())]
    stop = StopOnSignal()
    with stop.listening():
        with pytest.raises(Interruption, match=f"{name} before the first step") as ended:  # nothing to wait for yet
            signal.raise_signal(number)
        assert ended.value.exit_code == 128 + number
        assert not stop()
        signal.raise_signal(number)
        for again in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            signal.raise_signal(getattr(signal, again))
        with pytest.raises(Interruption, match="again"):
            signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)  # the checkpoint is being written
        assert (stop.number, stop.exit_code) == (number, 128 + number)
    assert [*map(signal.getsignal, signal.valid_signals())] == before


def test_ignored_signals_stay_ignored():
    """As `nohup` asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnSignal().listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow  # two seconds: processes that are interrupted
def test_ctrl_c_before_training_and_while_sampling(tmp_path, run, monkeypatch):
    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)

    def terminated(*args, **options):
        signal.raise_signal(signal.SIGTERM)

    for place, told in ((interrupted, (130, "SIGINT")), (terminated, (143, "SIGTERM"))):
        with monkeypatch.context() as patch:
            patch.setattr(ud.data.Ring, "open", place)
            result = unidiff("run", write(tmp_path, RING), "--out", tmp_path / "run")
        assert result.code == told[0]
        assert result.err == f"unidiff: interrupted by {told[1]} before the first step; nothing new was saved.\n"
        assert not (tmp_path / "run").exists()
    before = sorted((run / "samples").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("unidiff.run.load.draw_samples", interrupted)
        result = unidiff("sample", run)
    assert (result.code, result.err) == (130, "unidiff: interrupted by SIGINT.\n")
    assert sorted((run / "samples").iterdir()) == before


# --- sample ---


def test_sample(run, tmp_path):
    array, picture = tmp_path / "x.values", tmp_path / "x.png"
    words = ["--count", 3, "--array", array, "--out", picture, "--json"]
    result = unidiff("sample", run, *words, "--set", "sampling.solver=ancestral", "--set", "sampling.seed=5")
    facts = json.loads(result.out.splitlines()[-1])
    values = np.load(array)
    assert (values.shape, values.dtype) == ((3, 1, 8, 8), np.float32)
    assert np.abs(values).max() <= 1
    assert (facts["count"], facts["nfe"], facts["step"], facts["stand_in"]) == (3, 4, 2, None)
    assert (facts["array"], facts["samples"]) == (str(array), str(picture))
    assert picture.is_file()
    assert "sampling 4/4" in result.err
    expected = ud.load(run, ["sampling.solver=ancestral", "sampling.seed=5", "sampling.count=3"]).sample().x
    assert torch.equal(torch.from_numpy(values), expected.clamp(-1, 1))


def test_sample_numbers_its_pictures(run):
    first, second = (unidiff("sample", run).out.split(": ")[1].strip() for _ in range(2))
    assert [Path(path).name for path in (first, second)] == ["drawn-001.png", "drawn-002.png"]
    assert Path(second).is_file()


def test_sample_refuses(run, tmp_path, monkeypatch):
    assert "only `sampling`" in refused("sample", run, "--set", "training.steps=3")
    assert "not a run directory" in refused("sample", tmp_path)
    assert "does not exist" in refused("sample", run, "--array", tmp_path / "none" / "x.npy")
    assert "this is a directory" in refused("sample", run, "--out", tmp_path)
    (tmp_path / "x.yaml").write_text("mine: 1")
    (picture := tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for option in ("--array", "--out"):
        assert re.search(r"is not a|must be the name of a \.png", refused("sample", run, option, tmp_path / "x.yaml"))
        assert "cannot be used" in refused("sample", run, option, tmp_path / ("x" * 300))
        assert "does not exist" in refused("sample", run, option, tmp_path / ("x/" * 3000 + "x"))
    assert (tmp_path / "x.yaml").read_text() == "mine: 1"
    both = ["--array", tmp_path / "y.png", "--out", f"{tmp_path}/{tmp_path.name}/../y.png"]
    (tmp_path / tmp_path.name).mkdir()
    assert "--array writes to this file" in refused("sample", run, *both)
    for file in (run / "recipe.yaml", next(run.rglob("optimizer.pt"))):
        assert "It is part of a run" in refused("sample", run, "--array", file, "--overwrite")
    for words in (("sample", run, "--image", picture), ("edit", run, picture), ("inpaint", run, run / "x", picture)):
        assert "the samples are made from this file" in refused(*words, "--out", picture)
    monkeypatch.chdir(tmp_path)
    assert "~ is no directory here" in refused("run", "ddpm_digits", "--out", "~/run")
    assert "from 1 to" in refused("sample", run, "--count", 0)
    assert "must be one of auto" in refused("sample", run, "--device", "tpu")
    assert "Did you mean 'DDIM'" in refused("sample", run, "--set", "sampling.solver=DDIMM")
    monkeypatch.setattr(os, "access", lambda place, mode: mode == os.R_OK)
    assert "no permission" in refused("sample", run)


def test_a_recipe_that_was_edited_after_training_draws_no_other_samples(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "run")
    recipe, text = twin / "recipe.yaml", (twin / "recipe.yaml").read_text()
    recipe.write_text(f"# Mine.\n{text}")
    assert ud.load(twin).step == 2
    recipe.write_text(text.replace("{type: Eps", "{type: V"))
    problem = "the file has been edited since the run began: parameterization.type was 'Eps', is 'V'"
    for words in (("sample", twin), ("likelihood", twin)):
        assert f"{recipe}: {problem}" in refused(*words)
    entries = json.loads((twin / "manifest.json").read_text())
    (twin / "manifest.json").write_text(json.dumps({**entries, "recipe_yaml": "a: ["}))
    for command in ("sample", "resume"):
        assert f"{twin}: `recipe_yaml` in manifest.json" in refused(command, twin)


def test_paths_that_are_too_long_are_one_message(run, tmp_path):
    recipe, names = write(tmp_path, RING), ("x" * 300, "/".join(["y" * 200] * 30))
    for path in names:
        for words in (
            ("run", recipe, "--out", path),
            ("run", recipe, "--out", path, "--resume"),
            ("resume", path),
            ("check", path),
            ("sample", path),
            ("compare", path),
            ("evaluate", path),
            ("export", run, path),
            ("export", path, tmp_path / "model"),
            ("edit", run, path),
            ("run", recipe, "--out", tmp_path / "run", "--set", f"start={path}"),
            ("run", recipe, "--out", tmp_path / "run", "--set", f"teacher={path}"),
        ):
            refused(*words)
    assert not (tmp_path / "run").exists()


def test_sample_points_keep_their_values(tmp_path):
    """Points have no [-1, 1] to be cut to."""
    wide = {**RING, "data": {"type": "Ring", "count": 100, "radius": 3.0}}
    assert unidiff("run", write(tmp_path, wide), "--out", tmp_path / "run").code == 0
    assert unidiff("sample", tmp_path / "run", "--count", 20, "--array", tmp_path / "x.npy").code == 0
    values = torch.from_numpy(np.load(tmp_path / "x.npy"))
    assert values.shape == (20, 2)
    assert torch.equal(values, ud.load(tmp_path / "run", ["sampling.count=20"]).sample().x)


def test_a_disk_that_is_full_after_sampling(run, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unidiff.plot.save_samples", full)
    assert "No space left" in refused_after_progress("sample", run, "--out", tmp_path / "x.png")


def refused_after_progress(*words):
    result = unidiff(*words)
    assert result.code == 1
    assert result.err.count("unidiff:") == 1
    assert "Traceback" not in result.err
    return result.err


# --- likelihood ---


@pytest.mark.slow  # 2 s: many evaluations
def test_likelihood_of_pictures(run):
    rough = ["--tolerance", 0.02]
    result = unidiff("likelihood", run, "--count", 3, "--probes", 2, "--bound", "--seed", 4, "--json", *rough)
    facts = json.loads(result.out)
    assert (facts["data"], facts["count"], facts["levels"], facts["step"]) == ("Digits test", 3, 256, 2)
    assert facts["stand_in"] is None
    assert "likelihood 1000/1000" in result.err  # thousandths of the flow
    assert "bound 50/50" in result.err
    loaded, x = ud.load(run), ud.data.Digits().open("test").batch(torch.arange(3))
    options = {"levels": 256, "seeds": [4, 5, 6]}
    flow = ud.log_likelihood(loaded.denoiser, x, ud.Hutchinson(2), rtol=0.02, atol=0.02, **options)
    bound = ud.variational_bound(loaded.denoiser, x, ud.Native(), **options)
    assert (facts["flow"]["nats"], facts["flow"]["nats_error"]) == flow.nats
    assert (facts["flow"]["bits_per_dim"], facts["flow"]["nfe"]) == (flow.bits.mean, flow.nfe)
    assert facts["flow"]["probe_error"] > 0
    assert facts["bound"]["bits_per_dim"] == bound.bits.mean
    assert len(facts["bound"]["terms"]) == 51
    assert sum(mean for mean, _ in facts["bound"]["terms"]) == pytest.approx(-facts["bound"]["nats"])
    words = ["likelihood", run, "--count", 1, "--bound", "--steps", 3, *rough]
    small = json.loads(unidiff(*words, "--decoder", "small", "--json").out)["bound"]
    lower = ud.variational_bound(loaded.denoiser, x[:1], ud.Uniform(3), levels=256, decoder_variance=0.0)
    assert (small["decoder"], small["nats"]) == ("small", lower.nats.mean)
    text = unidiff(*words).out
    assert "Digits test, 1 sample, 256 levels" in text
    assert "decoder (large)" in text
    assert "nan" not in text


@pytest.mark.slow  # 6 s: exact traces, and a bound of 1,000 steps
def test_likelihood_of_points(tmp_path):
    recipe = {**RING, "process": {"type": "FlowMatching"}, "parameterization": {"type": "Velocity"}}
    assert unidiff("run", write(tmp_path, recipe), "--out", tmp_path / "run").code == 0
    words = ["likelihood", tmp_path / "run", "--count", 5, "--exact", "--tolerance", 1e-4]
    facts = json.loads(unidiff(*words, "--bound", "--json").out)
    assert facts["levels"] is None
    assert facts["bound"]["grid"] == "Uniform(steps=1000)"
    source = ud.data.Ring(count=300).open("test")
    denoiser = ud.load(tmp_path / "run").denoiser
    expected = ud.log_likelihood(denoiser, source.batch(torch.arange(5)), ud.ExactTrace(), rtol=1e-4, atol=1e-4)
    assert facts["flow"]["nats"] == expected.nats.mean
    assert "probe_error" not in facts["flow"]
    facts = json.loads(unidiff(*words[:2], "--count", 1, "--json").out)
    assert facts["flow"]["nats_error"] is None
    everything = json.loads(unidiff(*words[:2], "--count", 10**6, "--json").out)
    assert everything["count"] == len(source)


def test_likelihood_refuses(run, tmp_path):
    assert "not a run directory. Pass a directory that `unidiff run` wrote." in refused("likelihood", tmp_path)
    assert "shipped:ddpm_digits is the model of this name" in refused("likelihood", "ddpm_digits")
    assert "It is a recipe: `unidiff run compare_exact`." in refused("likelihood", "compare_exact")
    assert "--probes must be an integer from 1" in refused("likelihood", run, "--probes", 0)
    assert "--tolerance must be a number >= 6e-08" in refused("likelihood", run, "--tolerance", 1e-30)
    assert "--count must be an integer from 1 to 4611686018427387904, got 0" in refused("likelihood", run, "--count", 0)
    assert "probes must be an integer from 1 to 1000000, got 0" in refused("likelihood", run, "--probes", 0)
    assert "other than these 9 levels" in refused("likelihood", run, "--levels", 9, "--count", 2)
    assert "or 0 for continuous data" in refused("likelihood", run, "--levels", 9, "--count", 2)
    assert "--levels must be 0 for continuous data" in refused("likelihood", run, "--levels", 1)
    for tolerance in (-1, "nan"):
        assert "--tolerance must be a number > 0" in refused("likelihood", run, "--tolerance", tolerance)
    assert "--probes 2: the exact divergence uses no probes" in refused("likelihood", run, "--exact", "--probes", 2)
    assert "--steps 3: this is an option of the bound" in refused("likelihood", run, "--steps", 3)
    assert "--decoder small: this is an option of the bound" in refused("likelihood", run, "--decoder", "small")
    assert "--decoder must be large or small or learned" in refused("likelihood", run, "--bound", "--decoder", "1")
    assert "this model predicts no variance" in refused("likelihood", run, "--bound", "--decoder", "learned")
    assert "must be one of auto" in refused("likelihood", run, "--device", "tpu")
    assert "steps must be " in refused("likelihood", run, "--bound", "--steps", 0)


def test_columns_of_a_likelihood_stay_apart(capsys):
    numbers = {"nats": -123456789.25, "nats_error": 98765432.5, "bits_per_dim": 12345678.5, "bits_per_dim_error": 1e6}
    row = {**numbers, "nfe": 123456789, "seconds": 123456.7}
    _print(
        {
            "data": "X",
            "count": 2,
            "levels": None,
            "flow": row,
            "bound": {**row, "decoder": "small", "terms": [(1.0, 0.1)] * 3},
        }
    )
    lines = capsys.readouterr().out.splitlines()[1:4]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        ["nats", "bits per dimension", "evaluations", "seconds"],
        *[[n, "-123456789.25 +- 98765432.50", "12345678.5000 +- 1000000.0000", "123456789", "123456.7"]
          for n in ("flow", "bound")],
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1


# --- what a person sees ---


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    with Console() as console:
        for step in range(1, 5):
            console.progress("train", step, 4, 0.25 if step == 2 else None)
        console.notice("brackets [1, 2] and [bold] stay")
        console.progress("sample", 3, 3)
    shown = screen.getvalue()
    assert "training" in shown
    assert "4/4" in shown
    assert "loss 0.2500" in shown
    assert "sampling" in shown
    assert "brackets [1, 2] and [bold] stay" in shown


def test_a_line_every_ten_seconds_elsewhere(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    with Console() as console:
        for step in range(1, 101):
            console.progress("train", step, 100, 0.5 if step == 20 else None)
            now += 1
        console.notice("[this] is so")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert [line.split(",")[0] for line in lines[:-1]] == [f"training {s}/100" for s in (*range(1, 100, 10), 100)]
    assert lines[3] == "training 31/100, loss 0.5000, 30 s, 69 s left"
    assert lines[-1] == "Note: [this] is so"


# --- the package ---


def test_the_wheel_holds_the_recipes(tmp_path):
    """Built by the backend that pip would call, in this process and without the network."""
    build = pytest.importorskip("hatchling.builders.wheel")
    (built,) = build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(built).namelist()
    assert {f"unidiff/recipes/{name}.yaml" for name in shipped_recipes()} <= set(names)
    assert {f"unidiff/examples/papers/{figure.file}" for figure in FIGURES.values()} <= set(names)
    weights = {path.relative_to(ROOT).as_posix() for path in (ROOT / "unidiff").rglob("*.safetensors")}
    assert len(weights) >= 6  # of the feature networks and of the shipped models
    assert weights <= set(names)
    assert {"unidiff/py.typed", "unidiff/__init__.pyi", "unidiff/cli/run.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "recipes", "docs"))]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "unidiff = unidiff.cli:main" in zipfile.ZipFile(built).read(entry).decode()


@pytest.mark.slow  # mypy reads the package
def test_type_checkers_see_the_classes(tmp_path):
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "use.py"
    program.write_text("import unidiff as ud\nprocess: ud.DDPM = ud.DDPM(T=10)\nprocess.T = 'many'\nud.DPPM()\n")
    config = tmp_path / "mypy.ini"  # torch is left out: reading it would take most of a minute
    config.write_text("[mypy]\nfollow_imports = skip\n[mypy-unidiff.*]\nfollow_imports = silent\n")
    out, _, _ = api.run([f"--config-file={config}", "--python-executable", sys.executable, str(program)])
    assert "DPPM" in out
    assert "use.py:3" in out
    assert "use.py:2" not in out
