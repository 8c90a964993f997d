"""`unidiff reproduce`: every figure in its small form, the number that it must show, and refusals."""

from __future__ import annotations

import ast
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import in_process, refused, unidiff

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.evaluation import bootstrap
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import EXACT, ImageModel, open_model
from unidiff.figures.registry import FIGURES, figure_named
from unidiff.figures.reproduce import draw_figures, function_of
from unidiff.figures.script import main

SCRIPTS = Path(__file__).parents[2] / "examples" / "papers"
RUNS = Path(__file__).parents[1] / "data" / "before" / "runs"


def drawn(name: str, folder: Path, model: ImageModel | None = None) -> Findings:
    """What the script of a figure finds in its quick form; the optimum for the digits unless a model is given."""
    figure = FIGURES[name]
    taken = (model or open_model(EXACT),) if figure.model else ()
    findings = function_of(figure)(*taken, folder / "figure.png", quick=True, seed=0)
    with Image.open(folder / "figure.png") as picture:
        assert min(picture.size) > 60
        assert len(set(picture.convert("L").tobytes())) > 20
    json.dumps({**findings.numbers}, allow_nan=False)
    return findings


def test_every_script_is_of_figures_and_every_figure_has_its_function():
    functions = {
        (path.name, node.name)
        for path in SCRIPTS.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(("higham_", "thesis_", "slides_"))
    }
    assert functions == {(figure.file, figure.function) for figure in FIGURES.values()}
    assert {path.name for path in SCRIPTS.glob("*.py")} == {figure.file for figure in FIGURES.values()}


def test_figures_are_listed():
    result = unidiff("reproduce")
    assert result.code == 0
    assert all(figure.name in result.out and figure.shows in result.out for figure in FIGURES.values())
    assert max(map(len, result.out.splitlines())) <= 120
    rows = json.loads(unidiff("reproduce", "--json").out)["figures"]
    assert [row["figure"] for row in rows] == [*FIGURES]
    assert all(row["seconds"] >= row["quick_seconds"] > 0 for row in rows)


def test_the_docs_show_every_figure_with_its_command():
    page = (SCRIPTS.parents[1] / "docs" / "figures.md").read_text()
    for name in FIGURES:
        assert f"unidiff reproduce {name}\n" in page
        assert f"](images/figures/{name}.png)" in page


@pytest.mark.slow  # a second or more
def test_figure_7_and_figures_of_one_noise(tmp_path):
    result = unidiff("reproduce", "higham-7", "higham-6", "--run", EXACT, "--quick", "--out", tmp_path / "out")
    assert result.code == 0, result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("higham-6.json", "higham-6.png", "higham-7.json", "higham-7.png")
    ]
    seven, six = (json.loads((tmp_path / f"out/higham-{number}.json").read_text()) for number in (7, 6))
    assert seven["holds"]
    assert six["holds"]
    assert seven["summary"] in result.out
    assert seven["model"] is None
    # The energy of each profile is R to rounding; the last share is 1 / (1 + sum of the others), 1 - 8e-4.
    assert seven["numbers"]["R"] == pytest.approx([11.15] * 4, rel=1e-13)
    assert seven["numbers"]["share_of_phi_1"][-1] == pytest.approx(0.99918822969169, rel=1e-10)
    # The optimum denoises an image that was noised a little to itself, and draws data points otherwise: the images
    # are at 0, or not nearer than the image's nearest neighbour.
    numbers = six["numbers"]
    assert max(numbers["distances_from_early"]) < 1e-3
    assert min(numbers["distances"]) >= numbers["nearest_training_image"] - 1e-3
    assert six["model"]["checksum"] == ud.data.Digits().open().checksum
    assert six["quick"]
    assert "unidiff" in six["environment"]

    message = refused("reproduce", "higham-6", "--run", EXACT, "--out", tmp_path / "out")
    assert "higham-6.png: this figure is already there. Replace it with --overwrite." in message
    assert "is not a directory" in refused("reproduce", "higham-7", "--out", tmp_path / "out/higham-7.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["higham4"], "must be a figure, got 'higham4'. Did you mean higham-4"),
        (["--all", "higham-4"], "--all: it draws all figures. Leave it out, or higham-4."),
        (["higham-7", "--run", EXACT], "--run: higham-7 is drawn without a run. Leave it out."),
        (["higham-3", "--run", "nowhere"], "nowhere: not a run directory."),
        (["higham-3", "--run", RUNS / "classifier"], "it does not generate samples"),
        (["slides-guidance", "--run", EXACT], "guidance needs a model that is conditioned on classes, with dropout"),
        (["higham-1", "--seed", "-1"], "--seed must be an integer from 0 to 549755813888, got -1"),
    ],
)
def test_refusals(words, message, tmp_path):
    assert message in refused("reproduce", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_in_python(tmp_path):
    with pytest.raises(ParameterError, match="name must be a figure, got 'figure 7'"):
        ud.reproduce("figure 7", out=tmp_path)
    figure = figure_named("slides-schedules")
    found = ud.reproduce(figure.name, EXACT, out=tmp_path, quick=True)
    assert found.findings.holds
    assert found.to_dict()["numbers"]["linear"]["hundredth"] == pytest.approx(0.674, abs=0.002)
    with pytest.raises(RunError, match="already there"):
        ud.reproduce(figure.name, EXACT, out=tmp_path)


def test_a_figure_that_does_not_show_what_it_must(tmp_path):
    figure, missed = FIGURES["higham-7"], Findings("R = 3", False, {}, "R is 11.15.")

    def higham_7(path: Path, *, quick: bool, seed: int) -> Findings:
        path.write_bytes(b"a picture")
        return missed

    (found,) = draw_figures([figure], None, tmp_path, functions={figure.name: higham_7})
    assert (found.findings, found.image.read_bytes()) == (missed, b"a picture")
    done = in_process(lambda: main("A script.", higham_7), "script.py", "--out", tmp_path)
    assert "does not show: R = 11.15 is kept" in str(done.code)

    def broken(path: Path, *, quick: bool, seed: int) -> Findings:
        path.write_bytes(b"half a pict")
        raise OSError("No space left on device")

    with pytest.raises(RunError, match="No space left on device"):
        list(draw_figures([figure], None, tmp_path, overwrite=True, functions={figure.name: broken}))
    assert found.image.read_bytes() == b"a picture"


def test_seeds_of_more_than_32_bits_differ():
    model = open_model(EXACT)
    rows = {tuple(model.chosen(5, seed).tolist()) for seed in (0, 2**32, 2**39)}
    assert len(rows) == 3
    own = torch.randperm(len(model.source), generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.chosen(5, 3), own[:5])  # and those of less stay as they were


@pytest.mark.parametrize("name", ["higham-5", "higham-6"])
def test_noise_is_not_nine_images(name, tmp_path, monkeypatch):
    model = open_model(EXACT)
    noise = 2 * torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(ImageModel, "denoised", lambda *arguments, **cond: noise)
    monkeypatch.setattr("unidiff.plot.save_table", lambda *arguments: None)
    findings = function_of(FIGURES[name])(model, tmp_path / "figure.png", quick=True, seed=0)
    assert not findings.holds


def test_of_all_figures_those_that_a_run_is_not_fit_for_are_drawn_from_their_own_model(tmp_path):
    names: list[str] = []
    notices: list[str] = []

    def name_of(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
        names.append(model.name)
        path.write_bytes(b"a picture")
        return Findings("", True, {}, "")

    figures = [FIGURES[name] for name in ("higham-3", "slides-guidance")]
    functions = {figure.name: name_of for figure in figures}
    list(draw_figures(figures, EXACT, tmp_path, functions=functions, lenient=True, notice=notices.append))
    assert names == [EXACT, "shipped:ddpm_digits_classes"]
    (notice,) = notices
    assert notice.startswith("slides-guidance is drawn from shipped:ddpm_digits_classes: exact:digits: guidance needs")


@pytest.mark.slow  # the optimum for the digits, a dozen times
@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.model])
def test_figures_of_images(name, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "resamples", partial(bootstrap.resamples, draws=5))
    digits = ud.data.Digits()
    if name == "slides-guidance":  # needs classes: a Gaussian around the mean of each
        source = digits.open()
        images = source.batch(torch.arange(len(source)))
        means = torch.stack([images[source.labels == own].mean(0) for own in range(10)])
        model = ImageModel("classes", ud.GaussianMixture(ud.DDPM(100), means, 0.2), digits)
        numbers = drawn(name, tmp_path, model).numbers
        spread = numbers["distance_within_a_class"]
        # The guided score of equal Gaussians leads away from the mean of the means, and is as steep: away from other
        # classes, all the more so with a larger weight.
        assert numbers["agreement"]["3"] >= numbers["agreement"]["0"] > 0.5
        assert all(value > 0 for value in spread.values())
        return
    if name == "thesis-4.1":  # the optimum has copies of the training data, and no test images
        model = ImageModel("normal", ud.GaussianMixture(ud.DDPM(20), torch.zeros(1, 1, 8, 8), 0.6), digits)
        bits = drawn(name, tmp_path, model).numbers["bits_per_dim"]
        assert bits["Gaussian fit"]["mean"] == pytest.approx(fitted_gaussian(digits), abs=0.15)
        # N(0, v) of each pixel, with x^2 = E x^2 + a little: log2(255 / 2) + log2(2 pi v) / 2 + E x^2 / (2 v log 2).
        x = digits.open("test").batch(torch.arange(297))
        v = 0.6
        expected = (
            math.log2(255 / 2) + math.log2(2 * math.pi * v) / 2 + float(x.square().mean()) / (2 * v * math.log(2))
        )
        error = float(x.square().flatten(1).mean(1).std()) / (2 * v * math.log(2)) / 8**0.5
        assert abs(bits["flow"]["mean"] - expected) < 5 * error + 0.01
        return
    found = drawn(name, tmp_path)
    if name == "thesis-4.2":  # of the optimum the differences are small
        frechet = found.numbers["frechet"]
        assert frechet["eta = 0"]["5"] < frechet["sigma-hat"]["5"]
        return
    assert found.holds, found.summary


def fitted_gaussian(data: ud.data.Dataset) -> float:
    """Bits per dimension of test images with noise over their bins, under a Gaussian of training images with it."""
    width = 2 / 255
    train, test = (part.batch(torch.arange(len(part))).flatten(1).double() for part in (data.open(), data.open("test")))
    covariance = train.T.cov() + width**2 / 12 * torch.eye(64)
    centred, inverse = test - train.mean(0), covariance.inverse()
    quadratic = ((centred @ inverse) * centred).sum(1).mean() + width**2 / 12 * inverse.trace()
    nats = (quadratic + torch.logdet(2 * math.pi * covariance)) / 2
    return float(nats / 64 - math.log(width)) / math.log(2)


@pytest.mark.slow  # a training, and thousands of Langevin steps
@pytest.mark.parametrize("name", ["thesis-3.1", "thesis-3.2"])
def test_figures_of_two_gaussians(name, tmp_path):
    assert drawn(name, tmp_path).holds


@pytest.mark.slow  # a network
def test_any_run_of_images_will_do(tmp_path):
    result = unidiff("reproduce", "higham-2", "higham-6", "--run", RUNS / "heat", "--quick", "--out", tmp_path)
    assert result.code in (0, 1), result  # a tiny network need not show anything
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert json.loads((tmp_path / "higham-2.json").read_text())["model"]["step"] > 0
