"""`unidiff compare`: files, table and refusals of the command, on exact models and on tiny trained runs."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch
from PIL import Image
from tiny import DIGITS, RING, refused, unidiff, write

import unidiff as ud
from unidiff.cli import compare as command
from unidiff.conditioning.base import Examples
from unidiff.errors import ParameterError
from unidiff.evaluation.reference import Flow
from unidiff.run.records import DataFacts, Manifest
from unidiff.solver.base import OneStep
from unidiff.tasks.comparison_models import _reference
from unidiff.tasks.generation import Conditioned

FILES = ["compare.csv", "compare.json", "errors.png", "samples.png"]
EXACT = {"data": {"type": "Ring"}, "process": {"type": "DDPM", "T": 50}, "solvers": ["ddim", "ances"], "nfe": [2, 4]}
EXACT = {**EXACT, "grid": {"type": "Uniform"}, "count": 20}
WORDS = ["--solvers", "ddim@uniform,ancestral@uniform", "--nfe", "2,4", "--count", 30]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    quick = {**RING["training"], "steps": 2}
    for name, recipe in {"ring": RING, "digits": DIGITS, "other": {**RING, "process": {"type": "NCSN"}}}.items():
        tiny = {**recipe, "training": {**recipe["training"], **quick, "batch": 4}}
        assert unidiff("run", write(folder, tiny), "--out", folder / name).code == 0
    wide = {**RING, "data": {"type": "Ring", "count": 300, "radius": 0.5}, "training": quick}
    assert unidiff("run", write(folder, wide), "--out", folder / "wide").code == 0
    return folder


@pytest.mark.slow  # a second or more
def test_an_exact_model(tmp_path):
    result = unidiff("compare", write(tmp_path, EXACT), "--out", tmp_path / "out")
    assert result.code == 0, result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.yaml"]
    lines = result.out.splitlines()
    assert lines[0].split() == ["solver", "evaluations", "seconds", "rms", "order", "energy", "sliced", "W2"]
    assert [line.split("  ")[0] for line in lines[1:6]] == 2 * ["DDIM @ Uniform"] + 2 * ["Ancestral @ Uniform"] + [
        "true samples"
    ]
    assert "comparing 4/4" in result.err
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    with (tmp_path / "out/compare.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(line["solver"], int(line["nfe"])) for line in table] == [
        (row["solver"], row["nfe"]) for row in facts["rows"]
    ]
    assert {line["model"] for line in table} == {"exact"}
    assert facts["recipe"] == ud.load_recipe(tmp_path / "tiny.yaml").to_dict()
    assert facts["environment"]["unidiff"] == ud.__version__
    for name, size in {"errors.png": (1382, 737), "samples.png": None}.items():
        with Image.open(tmp_path / "out" / name) as picture:
            # A page wide, with two panels; two solvers by two counts and the true flow, 176 dots each.
            assert size in (None, picture.size)
            assert picture.width > 3 * 176
            assert picture.height > 2 * 176
            assert len(set(picture.convert("L").tobytes())) > 20


def test_options_replace_values_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, EXACT, "mine.yaml")
    words = ["--solvers", "ddim:0.5@native,ancestral", "--nfe", "3", "--seed", 5, "--set", "process.T=9", "--json"]
    result = unidiff("compare", "mine.yaml", *words)
    facts = json.loads(result.out.splitlines()[-1])
    assert facts["directory"] == "runs/mine"
    assert [(row["label"], row["nfe"]) for row in facts["rows"]] == [
        ("DDIM(eta=0.5) @ Native", 9),
        ("Ancestral @ Uniform", 3),
    ]
    assert (facts["recipe"]["process"]["T"], facts["recipe"]["seed"], facts["recipe"]["count"]) == (9, 5, 20)
    assert sorted(path.name for path in (tmp_path / "runs/mine").iterdir()) == FILES


def test_a_comparison_is_not_overwritten_by_accident(tmp_path):
    path, out = write(tmp_path, EXACT), tmp_path / "out"
    words = ["compare", path, "--nfe", "2", "--solvers", "ancestral", "--out", out]
    assert unidiff(*words).code == 0
    (out / "mine.txt").write_text("kept")
    before = (out / "compare.json").read_text()
    assert "--overwrite" in refused(*words)
    assert (out / "compare.json").read_text() == before
    assert unidiff(*words, "--overwrite", "--seed", 3).code == 0
    assert json.loads((out / "compare.json").read_text())["recipe"]["seed"] == 3
    assert (out / "mine.txt").read_text() == "kept"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    assert "not a comparison" in refused("compare", path, "--out", tmp_path / "full", "--overwrite")


def test_the_directory_that_one_is_in(tmp_path, monkeypatch):
    write(tmp_path, EXACT)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = unidiff("compare", "../tiny.yaml", "--nfe", "2", "--solvers", "ancestral", "--out", ".")
    assert result.code == 0, result
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "tiny.yaml"]


@pytest.mark.parametrize("failing", ["unidiff.plot.save_table", "unidiff.plot.save_curves"])
def test_a_failure_leaves_no_half_of_it(tmp_path, monkeypatch, failing):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = write(tmp_path, EXACT)
    monkeypatch.setattr(failing, full)
    result = unidiff("compare", path, "--nfe", "2", "--solvers", "ancestral", "--out", tmp_path / "out")
    assert result.code == 1
    assert "No space left" in result.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("unidiff.evaluation.compare.draw_samples", interrupted)
    words = ["--solvers", "ancestral", "--out", tmp_path / "out"]
    assert unidiff("compare", write(tmp_path, EXACT), *words).code == 130
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_notes_say_what_was_left_out(tmp_path):
    words = ["--solvers", "ancestral,annealed:5", "--nfe", "2,4", "--out", tmp_path / "out"]
    result = unidiff("compare", write(tmp_path, EXACT), *words)
    note = "AnnealedLangevin(steps_per_level=5) @ Uniform is left out at 2, 4 evaluations: its smallest run takes 6."
    assert result.code == 0
    assert f"Note: {note}" in result.err
    assert json.loads((tmp_path / "out/compare.json").read_text())["notes"] == [note]


@pytest.mark.parametrize("solvers", ["ancestral", "ddim,ancestral"])
def test_samples_that_are_no_numbers(tmp_path, monkeypatch, solvers):
    monkeypatch.setattr(OneStep, "finish", lambda self, denoiser, u, t, noise: u / 0.0)
    monkeypatch.setattr("unidiff.evaluation.compare.reference_flow", lambda *a, **k: Flow(torch.zeros(20, 2), 0.0, 1))
    result = unidiff("compare", write(tmp_path, EXACT), "--solvers", solvers, "--out", tmp_path / "out")
    assert result.code == 0, result
    assert "20 of 20 samples are not finite" in result.err
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    assert all(row["rms"] is row["energy"] is None for row in facts["rows"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


# ---------------------------------------------------------------------------------------------- trained runs


@pytest.mark.slow  # 7 s
def test_a_trained_run_of_points(runs, tmp_path):
    result = unidiff("compare", runs / "ring", *WORDS, "--out", tmp_path / "out", "--json", "--device", "cpu")
    assert result.code == 0, result
    facts = json.loads(result.out.splitlines()[-1])
    assert len(facts["rows"]) == 4
    assert (tmp_path / "out/compare.csv").read_text().splitlines()[1].startswith("ring,")
    assert facts["reference"].startswith("Ring test, 300 samples, sha256:")
    assert facts["features"] is None
    assert facts["baseline"]["energy"] is not None
    assert 0 < facts["flow_errors"][""] < facts["rows"][0]["rms"]
    # A row of the table is what `unidiff.sample` draws with the run's weights.
    run = ud.load(runs / "ring", device="cpu")
    x = ud.sample(run.denoiser, ud.DDIM(), ud.Uniform(4), (2,), 30).x
    test = ud.data.Ring(count=300).open("test").values
    assert facts["rows"][1]["energy"] == pytest.approx(ud.evaluation.energy_distance(x, test).value, abs=1e-6)


@pytest.mark.slow  # 6 s: the reference flow of images
def test_a_trained_run_of_images(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.tasks.comparison_models._TOLERANCE", 10.0)  # the first doubling is enough
    result = unidiff("compare", runs / "digits", *WORDS, "--out", tmp_path / "out")
    assert result.code == 0, result
    assert result.out.splitlines()[0].endswith("features")
    assert "9 linear discriminants of Digits train" in result.out
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    assert facts["reference"].startswith("Digits test, 297 samples")
    assert all(row["features"] is not None for row in facts["rows"])
    assert facts["followed"] == 30
    with Image.open(tmp_path / "out/samples.png") as picture:
        assert min(picture.size) > 2 * 176


@pytest.mark.slow  # 3 s: reference flows of two runs, twice
def test_several_runs(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.tasks.comparison_models._TOLERANCE", 10.0)
    words = ["compare", runs / "ring", runs / "other", *WORDS, "--nfe", "3", "--out", tmp_path / "out"]
    result = unidiff(*words)
    assert result.code == 0, result
    assert [line.split()[0] for line in result.out.splitlines()[:5]] == ["model", "ring", "ring", "other", "other"]
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    assert [model["label"] for model in facts["model"]] == ["ring", "other"]
    assert set(facts["flow_errors"]) == {"ring", "other"}
    listed = {
        "runs": [str(runs / "ring"), str(runs / "other")],
        "solvers": WORDS[1].split(","),
        "nfe": [3],
        "count": 30,
    }
    again = unidiff("compare", write(tmp_path, listed), "--out", tmp_path / "again", "--json")
    assert json.loads(again.out.splitlines()[-1])["recipe"] == facts["recipe"]


def test_models_of_different_data_are_refused(runs, tmp_path):
    said = refused("compare", runs / "ring", runs / "wide", *WORDS, "--out", tmp_path / "out")
    assert f"{runs / 'ring'} was trained on Ring(" in said
    assert f"{runs / 'wide'} was trained on Ring(" in said
    assert "radius=0.5" in said
    assert not (tmp_path / "out").exists()


def test_a_stand_in_is_other_data(runs, tmp_path, monkeypatch):
    manifests = {
        "ring": {"name": "Ring train", "checksum": "sha256:1"},
        "other": {"name": "Digits", "checksum": "md5:2"},
    }
    monkeypatch.setattr(
        "unidiff.run.directory.RunDirectory.read_manifest",
        lambda self: Manifest(data=DataFacts(count=1, shape=[2], **manifests[self.path.name])),
    )
    said = refused("compare", runs / "ring", runs / "other", *WORDS, "--out", tmp_path / "out")
    assert "was trained on Ring train (sha256:1)" in said
    assert "was trained on Digits (md5:2)" in said


# ---------------------------------------------------------------------------------------------- mistakes


def test_a_mistake_is_one_message(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = write(tmp_path, EXACT)
    same = runs / "digits" / ".." / "ring"
    assert "runs must be a list that names each run once" in refused("compare", runs / "ring", same, *WORDS)
    with pytest.raises(ParameterError, match=r"runs must be a list that names each run once"):
        ud.tasks.SolverComparison(runs=(runs / "ring", same), solvers=("ddim",))
    assert "there is no solver 'ddimm'. Did you mean 'ddim'?" in refused("compare", recipe, "--solvers", "ddimm")
    assert "--solvers: " in refused("compare", runs / "ring", "--solvers", "ddimm")
    assert "integers separated by commas" in refused("compare", recipe, "--nfe", "5;6")
    assert "--nfe must be an integer from 1 to 1000000, got 0" in refused("compare", recipe, "--nfe", "0")
    assert "--steps 5: --nfe is given too" in refused("compare", recipe, "--steps", "5", "--nfe", "5")
    assert "--steps must be an integer from 1 to 1000000, got 0" in refused("compare", recipe, "--steps", "0")
    assert "--count must be an integer from 20 to 10000000, got 3" in refused("compare", recipe, "--count", 3)
    assert "not a run directory" in refused("compare", tmp_path)
    assert "not a run directory" in refused("compare", runs / "ring", recipe, *WORDS)
    assert "neither a file nor a shipped recipe" in refused("compare", "nowhere.yaml")
    assert "this option changes a recipe" in refused("compare", runs / "ring", *WORDS, "--set", "count=30")
    assert "has no `solvers` to compare" in refused("compare", "ddpm_digits")
    assert "must be one of auto, cpu" in refused("compare", recipe, "--device", "gpu")
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"solvers": ["ddim", "heunn"]}, "solvers: 'heunn': there is no solver 'heunn'"),
        ({"solvers": []}, "solvers"),
        ({"solvers": [{"type": "DDIM", "etta": 1}]}, "solvers[0].etta: unknown key. Did you mean 'eta'?"),
        ({"solvers": [3]}, "solvers[0]"),
        ({"nfe": [0]}, "nfe must be an integer from 1 to 1000000, got 0"),
        ({"nfe": []}, "nfe"),
        ({"process": None}, "process: it is missing"),
        ({"data": None}, "data: it is missing"),
        ({"data": {"type": "TwoMoons"}}, "is not a mixture of Gaussians"),
        ({"runs": ["runs/a"]}, "data: a trained run has its own"),
        ({"count": 5}, "count must be an integer from 20 to 10000000, got 5"),
        ({"step": 5}, "step: unknown key. Did you mean 'steps'?"),
    ],
)
def test_mistakes_in_the_recipe_are_shown_in_place(tmp_path, change, said):
    written = {"solvers": EXACT["solvers"], **EXACT, **change}
    path = write(tmp_path, dict(sorted(written.items(), key=lambda item: item[0] != "solvers")))
    for words in (["compare", path], ["check", path]):
        message = refused(*words)
        assert said in message
        assert "tiny.yaml:" in message


def test_the_recipe_holds_solvers_of_both_kinds(tmp_path):
    path = write(tmp_path, {**EXACT, "solvers": ["ddim@uniform", {"type": "DDIM", "eta": 0.5}, {"type": "Ancestral"}]})
    comparing = ud.load_recipe(path)
    assert comparing.solvers == ("ddim@uniform", ud.DDIM(eta=0.5), ud.Ancestral())
    (tmp_path / "again.yaml").write_text(comparing.to_yaml())
    assert ud.load_recipe(tmp_path / "again.yaml") == comparing
    text = unidiff("check", path).out
    assert "# Valid. Nothing is trained" in text
    (tmp_path / "again.yaml").write_text(text)
    assert ud.load_recipe(tmp_path / "again.yaml") == comparing
    assert json.loads(unidiff("check", path, "--json").out)["recipe"] == comparing.to_dict()
    assert type(comparing) is ud.tasks.SolverComparison
    with pytest.raises(ParameterError, match="ddimm"):
        ud.tasks.SolverComparison(solvers=("ddimm",), data=ud.data.Ring(), process=ud.DDPM())


@pytest.mark.slow  # 1 s: a comparison, as by `unidiff compare`
def test_run_takes_the_recipe_of_a_comparison(tmp_path):
    path = write(tmp_path, {**EXACT, "solvers": ["ddim@uniform"], "nfe": [3], "count": 20})
    words = ("run", path, "--out", tmp_path / "out")
    assert json.loads(unidiff(*words, "--dry-run", "--json").out)["status"] == "dry run"
    assert not (tmp_path / "out").exists()
    found = json.loads(unidiff(*words, "--json").out)
    kept = json.loads((tmp_path / "out/compare.json").read_text())
    assert found == {"status": "finished", "directory": str(tmp_path / "out"), **kept}
    assert "does not train a model" in refused(*words, "--resume")


def test_a_table_in_a_terminal(monkeypatch, capsys):
    model, options = ud.GaussianMixture(ud.DDPM(), *ud.data.Ring().mixture), {"grid": ud.Uniform(), "tolerance": 1e-1}
    found = ud.compare(model, ["ddim"], [3], (2,), 20, **options)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command._print_table(found)
    shown = capsys.readouterr().out
    assert "DDIM @ Uniform" in shown
    assert "┃" in shown
    monkeypatch.setenv("COLUMNS", "50")
    command._print_table(found)
    assert "…" not in capsys.readouterr().out  # names are folded


# ---------------------------------------------------------------------------------------------- conditions

QUICK = ["--solvers", "ancestral@uniform", "--nfe", "2", "--count", 30, "--device", "cpu"]


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory):
    """Runs with classes, the same without dropout, and with images."""
    folder = tmp_path_factory.mktemp("conditioned")
    training = {**DIGITS["training"], "steps": 2, "preview_every": 0, "tensorboard": False}
    for name, conditioning in {
        "classes": {"type": "Labels", "dropout": 0.2},
        "certain": {"type": "Labels", "dropout": 0.0},
        "images": {"type": "SuperResolution", "factor": 2, "dropout": 0.2},
    }.items():
        recipe = write(folder, {**DIGITS, "training": training, "conditioning": conditioning}, f"{name}.yaml")
        assert unidiff("run", recipe, "--out", folder / name).code == 0
    (folder / "digit.png").write_bytes(b"")
    Image.fromarray((torch.arange(64).reshape(8, 8) * 4).byte().numpy()).save(folder / "digit.png")
    return folder


def compared(monkeypatch, folder, *words):
    """The files' facts and what `unidiff.compare` returned to the command."""
    found = []

    def keep(*arguments, **options):
        found.append(ud.compare(*arguments, **options))
        return found[0]

    monkeypatch.setattr("unidiff.tasks.comparison_models.compare", keep)
    result = unidiff("compare", *words, *QUICK, "--out", folder / "out")
    assert result.code == 0, result
    return json.loads((folder / "out/compare.json").read_text()), found[0], result.out


@pytest.mark.slow  # 5 s
def test_classes_and_guidance_are_those_of_the_library(conditioned, tmp_path, monkeypatch):
    words = ["--class", "3,8", "--guidance", 2]
    facts, found, text = compared(monkeypatch, tmp_path, conditioned / "classes", *words)
    assert (facts["classes"], facts["guidance"], facts["classifier"]) == ([3, 8], 2.0, None)
    assert "conditions: classes 3, 8 in turn, guidance 2" in text
    model, label = ud.load(conditioned / "classes", device="cpu").denoiser, torch.tensor([3, 8] * 15)
    test = ud.data.Digits().open("test")
    rows = [(test.labels == k).nonzero().flatten() for k in (3, 8)]
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    each = min(map(len, rows))  # as many of each class as there are of the rarer
    rows = torch.cat([order[test.labels[order] == k][:each] for k in (3, 8)]).sort().values
    assert facts["reference"].startswith(f"Digits test, {2 * each} samples")
    options = {"reference_data": test.batch(rows), "label": label, "dtype": torch.float32}
    own = ud.compare(ud.ClassifierFree(model, 2.0), "ancestral@uniform", [2], seeds=30, **options)
    assert torch.equal(found.rows[0].x, own.rows[0].x)
    assert facts["rows"][0]["energy"] == own.rows[0].distances.energy.value
    plain = ud.compare(model, "ancestral@uniform", [2], seeds=30, **options)
    assert not torch.equal(found.rows[0].x, plain.rows[0].x)


def test_without_options_all_classes_are_drawn_in_turn(conditioned, tmp_path, monkeypatch):
    facts, found, text = compared(monkeypatch, tmp_path, conditioned / "classes")
    assert "conditions: classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 in turn" in text
    assert facts["classes"] is facts["guidance"] is None
    model = ud.load(conditioned / "classes", device="cpu").denoiser
    x = ud.sample(model, ud.Ancestral(), ud.Uniform(2), seeds=30, label=torch.arange(30) % 10).x
    assert torch.equal(found.rows[0].x, x)


def test_a_test_image_for_each_sample(conditioned, tmp_path, monkeypatch):
    facts, found, text = compared(monkeypatch, tmp_path, conditioned / "images", "--guidance", 1.5)
    assert "conditions: test images in turn, 30 of them, guidance 1.5" in text
    assert facts["reference"].startswith("Digits test, 297 samples")
    run = ud.load(conditioned / "images", device="cpu")
    image = run.recipe.conditioning.examples(run.recipe.data, 30, None).cond["image"]
    x = ud.sample(ud.ClassifierFree(run.denoiser, 1.5), ud.Ancestral(), ud.Uniform(2), seeds=30, image=image).x
    assert torch.equal(found.rows[0].x, x)


def test_images_of_the_user_have_no_reference(conditioned, tmp_path, monkeypatch):
    facts, found, text = compared(monkeypatch, tmp_path, conditioned / "images", "--image", conditioned / "digit.png")
    assert facts["images"] == [str(conditioned / "digit.png")]
    assert facts["reference"] is facts["rows"][0]["energy"] is facts["baseline"]["energy"] is None
    assert "energy, sliced W2" not in text
    run = ud.load(conditioned / "images", device="cpu")
    picture = (torch.arange(64).reshape(1, 8, 8) * 4).float() / 127.5 - 1
    image = run.recipe.conditioning.from_user(picture, (1, 8, 8)).expand(30, 1, 8, 8)
    assert torch.equal(found.rows[0].x, ud.sample(run.denoiser, ud.Ancestral(), ud.Uniform(2), seeds=30, image=image).x)


@pytest.mark.slow  # a second or more
def test_bad_conditions_are_one_message_and_no_file(conditioned, runs, tmp_path):
    classes, images, digit = conditioned / "classes", conditioned / "images", conditioned / "digit.png"
    for words, message in {
        (classes, "--class", "3,12"): "--class 3,12: the classes of",
        (classes, "--class", "three"): "are 0 to 9, got 'three'",
        (classes, "--guidance", "nan"): "--guidance nan",
        (classes, "--image", digit): "is not conditioned on images",
        (classes, "--mask", digit): "is not conditioned on images",
        (classes, "--classifier", classes): "--guidance",
        (classes, images): "under different conditions (label and image)",
        (classes, conditioned / "certain", "--guidance", 2): "was trained with dropout 0",
        (images, "--class", 3): "is conditioned on images, not on classes",
        (images, "--mask", digit): "a mask needs an image",
        (images, "--image", conditioned / "none.png"): "no such file",
        (runs / "digits", "--class", 3): "is not conditioned on classes",
        (runs / "digits", "--guidance", 2): "guidance requires a condition",
    }.items():
        assert message in refused("compare", *words, *QUICK, "--out", tmp_path / "out"), words
    for option in (("--class", 0), ("--guidance", 2), ("--image", digit)):
        said = refused("compare", write(tmp_path, EXACT), *option, "--out", tmp_path / "out")
        assert f"{option[0]}: this recipe compares solvers on an exact model" in said
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.slow  # 2 s: comparisons, with their figures
def test_a_recipe_names_the_same_conditions(conditioned, tmp_path, monkeypatch):
    run = conditioned / "classes"
    recipe = {"runs": [str(run)], "solvers": ["ancestral@uniform"], "nfe": [2], "count": 30}
    chosen = {"classes": [3, 8], "guidance": 2.0, "interval": [0.0, 0.6], "threshold": 0.9}
    path = write(tmp_path, {**recipe, "conditions": chosen})
    facts, found, text = compared(monkeypatch, tmp_path, path)
    assert "conditions: classes 3, 8 in turn, guidance 2" in text
    assert (facts["classes"], facts["interval"]) == ([3, 8], [0.0, 0.6])
    model, label = ud.load(run, device="cpu").denoiser, torch.tensor([3, 8] * 15)
    guided = ud.DynamicThreshold(ud.GuidanceInterval(ud.ClassifierFree(model, 2.0), 0.0, 0.6), 0.9)
    x = ud.sample(guided, ud.Ancestral(), ud.Uniform(2), seeds=30, label=label).x
    assert torch.equal(found.rows[0].x, x[: len(found.rows[0].x)])
    # Options of the command line replace those of the recipe, and what was used is in the recipe of the results.
    facts, found, _ = compared(monkeypatch, tmp_path, path, "--class", "5", "--overwrite")
    assert facts["classes"] == facts["recipe"]["conditions"]["classes"] == [5]
    x = ud.sample(guided, ud.Ancestral(), ud.Uniform(2), seeds=30, label=label.fill_(5)).x
    assert torch.equal(found.rows[0].x, x[: len(found.rows[0].x)])


@pytest.mark.slow  # a second or more
def test_a_dry_run_reads_the_runs_that_a_recipe_names(conditioned, runs, tmp_path):
    classes, images = str(conditioned / "classes"), str(conditioned / "images")
    recipe = {"runs": [classes], "solvers": ["ddim"], "nfe": [2], "count": 30}
    assert unidiff("run", write(tmp_path, recipe), "--dry-run", "--out", tmp_path / "out").code == 0
    for changes, message in (
        ({"runs": [str(tmp_path / "none")]}, "none: not a run directory"),
        ({"runs": [classes, images]}, "under different conditions"),
        ({"runs": [classes, str(runs / "ring")]}, "models of different data cannot be compared"),
        ({"conditions": {"classes": [12]}}, "conditions.classes: the classes of"),
        ({"conditions": {"weaker": images}}, "weaker: this is an option of guidance. Set its scale with `guidance`"),
        ({"runs": [images], "conditions": {"classes": [1]}}, "is conditioned on images, not on classes"),
        ({"conditions": {"cond": {"pitch": 1}}}, "conditions.cond.pitch: the model has no condition of this name"),
        ({"runs": [], **EXACT, "conditions": {"guidance": 2.0}}, "samples of an exact model have none"),
        ({"runs": [], **EXACT, "solvers": ["ddim@native"], "process": {"type": "VPSDE"}}, "solvers must be one that"),
    ):
        path = write(tmp_path, {**recipe, **changes})
        assert message in refused("run", path, "--dry-run", "--out", tmp_path / "out").replace("\n", " "), changes
    assert not (tmp_path / "out").exists()


def test_few_samples_are_no_reference():
    both = Conditioned(ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], 1.0), Examples({"label": torch.tensor([0, 1])}))
    for each, expected in ((4, None), (5, (10, 2))):
        source = ud.TensorSource(torch.zeros(2 * each, 2), "few", labels=torch.arange(2 * each) % 2)
        for model in (both, both._replace(examples=Examples({}))):
            found = _reference(source, model, 100)
            assert (found if found is None else found.shape) == expected
