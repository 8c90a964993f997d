"""`unidiff evaluate`: tiny runs, folders and arrays; table, CSV, JSON and refusals."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIGITS, RING, refused, unidiff, write
from torch.nn import functional as F

import unidiff as ud
from unidiff.errors import DataError, ParameterError, RunError
from unidiff.evaluation import cost, network
from unidiff.evaluation.distances import Estimate
from unidiff.evaluation.frechet import fitted_frechet
from unidiff.evaluation.scores import Evaluation, Scores

FILES = ["evaluate.csv", "evaluate.json", "samples.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny run of points, and digits as an array and as images."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny = {**RING, "training": {**RING["training"], "steps": 2}}
    assert unidiff("run", write(folder, tiny), "--out", folder / "ring").code == 0
    pixels = ud.data.Digits().open().values[:40]
    np.save(folder / "copies.npy", pixels.numpy())
    broken = torch.zeros(25, 1, 8, 8)
    broken[3, 0, 2, 2] = torch.nan
    np.save(folder / "broken.npy", broken.numpy())
    (folder / "empty").mkdir()
    (folder / "images").mkdir()
    for number, image in enumerate(pixels[:25]):
        Image.fromarray(image[0].numpy()).save(folder / "images" / f"{number:02d}.png")
    return folder


@pytest.mark.slow  # a second or more
def test_an_array_and_a_folder_of_images(folder, tmp_path):
    array = folder / ("a_name_longer_than_a_column" * 3 + ".npy")
    shutil.copy(folder / "copies.npy", array)
    words = [array, folder / "images", "--data", "digits", "--count", 40, "--out", tmp_path / "out"]
    result = unidiff("evaluate", *words)
    assert result.code == 0, result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert max(len(line) for line in result.out.splitlines() if "+-" in line) <= 80, result.out
    content = json.loads((tmp_path / "out/evaluate.json").read_text())
    with (tmp_path / "out/evaluate.csv").open() as file:
        floor, array, images = csv.DictReader(file)
    assert [row["name"] for row in (floor, array, images)] == ["real data", *map(str, words[:2])]
    assert [row["count"] for row in (floor, array, images)] == ["40", "40", "25"]
    for line, row in zip((floor, array, images), (content["floor"], *content["rows"])):
        for name, measure in row["measures"].items():  # every number of the CSV is that of the JSON
            ends = (measure["value"], measure["error"], *measure["interval"])
            assert [float(line[name + end]) for end in ("", "_error", "_low", "_high")] == list(ends)
    # They are training images, read back bit for bit from both.
    assert [row["measures"]["memorization"]["value"] for row in content["rows"]] == [0, 0]
    assert content["rows"][0]["digest"].startswith("sha256:")
    features = content["features"]
    assert (features["network"], features["digest"]) == ("unidiff's digits", network.SHIPPED["digits"])
    assert content["reference"]["checksum"] == ud.data.Digits().open("test").checksum
    assert content["recipe"]["count"] == 40
    assert content["environment"]["unidiff"] == ud.__version__
    again = ud.load_recipe(write(tmp_path, {**content["recipe"]}, "again.yaml"))
    assert again.to_dict() == content["recipe"]
    with Image.open(tmp_path / "out/samples.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 20


@pytest.mark.slow  # a second or more
def test_a_folder_of_photographs(tmp_path):
    generator = np.random.default_rng(0)
    for folder, size, count in (("data/train", 32, 40), ("data/test", 32, 20), ("samples", 48, 20)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)  # blurred noise in colours
            Image.fromarray(pixels).resize((size, size)).save(tmp_path / folder / f"{number:02d}.png")
    data = f"{{type: ImageFolder, root: {tmp_path / 'data'}}}"
    words = [tmp_path / "samples", "--data", data, "--count", 20, "--out", tmp_path / "out"]
    result = unidiff("evaluate", *words, "--json")
    assert result.code == 0, result
    content = json.loads(result.out.splitlines()[-1])
    # Without a word about features, those of photographs: means of the channels behind the stem and three levels, and
    # three kinds of details of each colour.
    features = content["features"]
    assert (features["network"], features["digest"]) == ("unidiff's photos", network.SHIPPED["photos"])
    assert features["size"] == 24 + 24 + 48 + 72 + 9
    assert (content["reference"]["count"], content["rows"][0]["count"]) == (20, 20)
    for colours in (ud.data.CIFAR10(), ud.data.ImageFolder("x")):
        assert colours.images.features == "photos"
    assert not ud.data.ImageFolder("x", channels=1).features
    # There is no shipped network for one channel, and that of photographs does not take it.
    words[2], words[-1] = data.replace("}", ", channels: 1}"), tmp_path / "grey"
    assert "no shipped network" in refused("evaluate", *words)
    assert "takes samples of shape (3, 32, 32)" in refused("evaluate", *words, "--features", "photos")


@pytest.mark.slow  # a second or more
def test_a_run_under_several_solvers(folder, tmp_path):
    words = ["--solvers", "ddim@uniform,ancestral@uniform", "--nfe", "2,3", "--count", 30, "--out", tmp_path / "out"]
    result = unidiff("evaluate", folder / "ring", *words, "--csv", "--bits", 4)
    assert result.code == 0, result
    floor, *rows = csv.DictReader(io.StringIO(result.out))
    labels = [f"ring, {solver} @ Uniform, {nfe}" for solver in ("DDIM", "Ancestral") for nfe in (2, 3)]
    assert [row["name"] for row in rows] == labels
    assert [row["nfe"] for row in rows] == ["2", "3", "2", "3"]
    assert {row["features"] for row in rows} == {"pixels"}
    # An untrained model is far from the ring, real data are not.
    assert float(floor["frechet"]) < 0.1 < min(float(row["frechet"]) for row in rows)
    likelihood = unidiff("likelihood", folder / "ring", "--count", 4, "--bound", "--json").out
    for name in ("flow", "bound"):
        expected = json.loads(likelihood.splitlines()[-1])[name]["bits_per_dim"]
        assert {float(row[f"bits_{name}"]) for row in rows} == {expected}
    loaded = ud.load(folder / "ring")
    expected = json.loads((tmp_path / "out/evaluate.json").read_text())["rows"][0]
    assert (expected["digest"], expected["step"]) == (loaded.digest, loaded.step)


@pytest.mark.slow  # four evaluations
def test_a_recipe_and_python_give_the_same_numbers(folder, tmp_path, monkeypatch):
    recipe = {"evaluate": [str(folder / "copies.npy")], "data": {"type": "Digits"}, "count": 40, "features": "pixels"}
    path = write(tmp_path, recipe)
    assert "evaluate:" in unidiff("check", path).out
    monkeypatch.chdir(tmp_path)
    assert unidiff("run", path, "--dry-run").code == 0
    result = unidiff("evaluate", path, "--json")
    content = json.loads(result.out.splitlines()[-1])
    assert content["directory"] == "runs/tiny"
    x = ud.data.Digits().open().batch(torch.arange(40))
    found = ud.evaluate(x, ud.data.Digits(), features="pixels").to_dict()
    assert found["rows"][0]["measures"] == content["rows"][0]["measures"]
    assert found["floor"] == content["floor"]
    own = ud.evaluate({"a": x}, ud.data.Digits(), features=lambda x: x.flatten(1)).rows[0]
    assert own.measures == ud.evaluate({"a": x}, ud.data.Digits(), features="pixels").rows[0].measures


@pytest.mark.slow  # a training of a classifier
def test_the_features_of_a_classifier(tmp_path):
    tiny = {key: DIGITS[key] for key in ("data", "process")} | {"training": {**RING["training"], "steps": 2}}
    tiny["classifier"] = {"type": "UNetEncoder", "width": 8, "multipliers": [1, 2], "blocks": 1}
    assert unidiff("run", write(tmp_path, tiny), "--out", tmp_path / "judge").code == 0
    np.save(tmp_path / "x.npy", ud.data.Digits(16).open().values[:20].numpy())
    words = [tmp_path / "x.npy", "--data", "{type: Digits, size: 16}", "--features", tmp_path / "judge", "--json"]
    result = unidiff("evaluate", *words, "--out", tmp_path / "out")
    features = json.loads(result.out.splitlines()[-1])["features"]
    # The stem and the first level have 8 channels, the second 16.
    assert (features["size"], features["resized"]) == (8 + 8 + 16, True)
    assert features["digest"] == ud.load(tmp_path / "judge").digest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["copies.npy"], "--data: it is missing"),
        (["nowhere"], "nowhere: neither a run directory, nor a folder of images"),
        (["copies.npy", "copies.npy", "--data", "digits"], "copies.npy: this is named twice"),
        (["copies.npy", "--data", "digits", "--count", 5], "--count must be an integer from 20"),
        (
            ["copies.npy", "--data", "digits", "--features", "inception"],
            "--features must be 'digits', 'mnist', 'photos', 'pixels'",
        ),
        (["copies.npy", "--data", "digits", "--nfe", "5"], "copies.npy: --nfe is an option of runs"),
        (["copies.npy", "--data", "{type: Digits, size: 9}"], "must hold samples"),
        (["copies.npy", "--data", "dogs"], "unidiff: --data dogs: unknown dataset 'dogs'"),
        (["copies.npy", "--data", "copies.npy"], "--data '{type: ArrayFile, path: copies.npy}'"),
        (["copies.npy", "--data", "digits", "--class", "3"], "--guidance and the like are options of runs"),
        (["empty", "--data", "digits"], "empty: neither a run directory, nor a folder of images"),
        (["broken.npy", "--data", "digits"], "broken.npy contains NaN or infinity, first in sample 3"),
        (["copies.npy", "--data", "digits", "--json", "--csv"], "mutually exclusive"),
        (["ring", "--solvers", "ddim"], "--nfe: it is missing"),
        (["ring", "--data", "digits"], "--data must have samples of (2,)"),
        (["ring", "--features", "digits"], "features: unidiff's digits takes samples of shape (1, 8, 8)"),
        (["ring", "--split", "val"], "--split must be"),
    ],
)
def test_refusals(folder, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert said in refused("evaluate", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(folder.iterdir()) == before


def test_samples_that_cannot_be_measured():
    x = torch.zeros(20, 1, 8, 8)
    broken = x.clone()
    broken[3] = torch.nan
    found = ud.evaluate({"zeros": x, "broken": broken}, ud.data.Digits())
    assert found.rows[1].measures == {}
    assert "broken has samples that are not finite" in found.notes[0]
    assert len(found.to_csv().splitlines()) == 4
    with pytest.raises(ParameterError, match=r"samples\['samples'\] must be at least 20 samples"):
        ud.evaluate(x[:3], ud.data.Digits())
    with pytest.raises(ParameterError, match=r"no shipped network for .*3, 8, 8.*, or 'pixels'"):
        ud.evaluate(x, ud.data.CaptionedDigits())


def test_training_data_as_the_reference():
    real = ud.evaluation.real_data(ud.data.Digits(), 100, split="train", most=200)
    assert (len(real.reference), len(real.floor)) == (200, 100)
    assert not {*real.reference.rows.tolist()} & {*real.floor.rows.tolist()}
    of_classes = ud.evaluation.real_data(ud.data.Digits(), 40, classes=torch.tensor([3, 8]))
    labels = of_classes.floor.source.labels[of_classes.floor.rows]
    assert labels.bincount().tolist() == [0, 0, 0, 20, 0, 0, 0, 0, 20]


def test_too_few_real_samples_name_the_split_that_has_more(tmp_path):
    refusals = {
        (60, "test"): "test has 6 samples to evaluate with; at least 20 are needed. Use more data, or --split train.",
        (30, "test"): "test has 3 samples to evaluate with; at least 20 are needed. Use more data.",
        (30, "train"): "train has 27 samples to evaluate with; at least 40 are needed. Use more data.",
    }
    for (count, split), said in refusals.items():
        np.save(tmp_path / "x.npy", np.zeros((count, 2), np.float32))
        with pytest.raises(RunError) as error:
            ud.evaluation.real_data(ud.data.ArrayFile(str(tmp_path / "x.npy")), 20, split=split)
        assert str(error.value).endswith(said)


def test_the_shipped_networks_know_their_digits(monkeypatch):
    test = ud.data.Digits().open("test")
    found = ud.evaluation.load_features("digits")(test.batch(torch.arange(len(test))))
    accuracy = (found.probabilities.argmax(1) == test.labels).double().mean()
    assert accuracy > 0.92  # 0.946 when it was shipped
    assert found.values.shape == (297, 128)
    monkeypatch.setitem(network.SHIPPED, "digits", "sha256:0")
    network._load.cache_clear()
    with pytest.raises(DataError, match="sha256:0 was shipped"):
        ud.evaluation.load_features("digits")
    network._load.cache_clear()


def test_fine_details_by_hand():
    x = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    x[0, 0, :, ::2] = 1.0  # stripes: each block is 1 0 / 1 0, whose difference between columns is 1
    x[1, 1, ::2, ::2] = 1.0  # one pixel of each block: all three differences are 1 / 2
    x[2] = 7.0
    expected = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0.5, 0, 0.5], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    assert torch.equal(network.fine_details(x), expected)
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(200, 3, 32, 32, generator=generator, dtype=torch.float64)
    # 51,200 squares of each kind, of mean s^2 and standard deviation sqrt(2) s^2; five standard errors.
    squares = network.fine_details(noise).square().mean(0)
    assert ((squares / 0.01 - 1).abs() < 5 * (2 / 51200) ** 0.5).all()


@pytest.mark.slow  # 1,500 photographs through the network
def test_the_features_of_photographs_see_noise_blur_and_missing_classes():
    try:
        test, train = (ud.data.ImageFolder("cifar10-jpg").open(split) for split in ("test", "train"))
    except DataError:
        pytest.skip("UNIDIFF_DATA does not name a folder that holds cifar10-jpg/")
    rows, features = torch.arange(0, len(test), 4), ud.evaluation.load_features("photos")
    reference = features(test.batch(rows))
    # 0.61 when it was shipped; four standard errors of a share of 250 images are 0.12.
    assert (reference.probabilities.argmax(1) == test.labels[rows]).double().mean() > 0.49
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    parts = order[:250], order[250:500], order[train.labels[order] < 5][:250]
    real, other, five = (train.batch(part) for part in parts)
    noise = 0.1 * torch.randn(real.shape, generator=torch.Generator().manual_seed(1))
    blurred = F.avg_pool2d(F.pad(real, (0, 1, 0, 1), mode="replicate"), 2, 1)
    sets = real, other, (real + noise).clamp(-1, 1), blurred, five
    distances = [fitted_frechet(features(x).values, reference.values) for x in sets]
    floor = max(distances[:2])  # two sets of one distribution
    assert all(distance > 1.3 * floor for distance in distances[2:])  # 30.6, 19.2 and 14.3, where real ones are at 9.2


def test_features_are_kept_with_their_scale(tmp_path, monkeypatch):
    x = ud.data.Digits().open().batch(torch.arange(40))
    arguments = {"shape": [1, 8, 8], "width": 8, "multipliers": [1, 2], "blocks": 1, "classes": 10}
    classifier = ud.NeuralClassifier(ud.FlowMatching(), ud.UNetEncoder(**arguments)).eval()
    found = network.save_features(classifier, arguments, tmp_path / "mine.safetensors", x.split(25))
    monkeypatch.setattr(network, "_FOLDER", tmp_path)
    monkeypatch.setitem(network.SHIPPED, "mine", found)
    values = ud.evaluation.load_features("mine")(x).values
    # The weights were rounded to float16, by 2^-11 of each; some layers add up to well below 1 %. The last three are
    # the details.
    torch.testing.assert_close(values.std(0), torch.ones(32 + 3, dtype=torch.float64), rtol=0.01, atol=0)
    details = network.fine_details(x).double()
    torch.testing.assert_close(values[:, 32:], details / details.std(0), rtol=1e-5, atol=0)


def test_energy_is_counted_where_it_can_be_read(tmp_path, monkeypatch):
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("1000000\n")
    monkeypatch.setattr(cost, "_ENERGY", tmp_path)
    result, found = cost.measured(lambda: counter.write_text("4000000"), 500)
    assert (result, found["joules_per_1000"]) == (7, 6.0)  # 3 J for 500
    assert found.keys() == {"seconds", "cpu_seconds", "joules_per_1000"}
    monkeypatch.setattr(cost, "_ENERGY", tmp_path / "nowhere")
    assert "joules_per_1000" not in cost.measured(lambda: None, 500)[1]


@pytest.mark.slow  # a training of a model of images
def test_a_model_of_classes_has_data_of_those_classes(tmp_path):
    tiny = {**DIGITS, "conditioning": {"type": "Labels"}, "training": {**RING["training"], "steps": 2, "batch": 4}}
    assert unidiff("run", write(tmp_path, tiny), "--out", tmp_path / "run").code == 0
    words = ["evaluate", tmp_path / "run", "--class", "3,8", "--count", 20, "--nfe", 2, "--out", tmp_path / "out"]
    assert unidiff(*words).code == 0
    content = json.loads((tmp_path / "out/evaluate.json").read_text())
    row, labels = content["rows"][0], ud.data.Digits().open("test").labels
    assert row["conditions"] == "classes 3, 8 in turn"
    # As many of each class as there are of the rarer one, and of these the classifier finds nearly all.
    each = min(int((labels == k).sum()) for k in (3, 8))
    assert content["reference"]["count"] == 2 * each
    assert sum(row["classes"]["expected"][k] for k in (3, 8)) > 1.7 * each
    assert sum(row["classes"]["expected"]) == 2 * each


@pytest.mark.slow  # imports diffusers, trains on latents
def test_a_model_of_latents_is_held_against_images(tmp_path):
    ud.codec.AutoencoderKL(latent_channels=2, channels=(8, 8)).build(1).save(tmp_path / "codec")
    latent = {
        "type": "Latent",
        "data": {"type": "Digits", "size": 16},
        "codec": str(tmp_path / "codec"),
        "cache": False,
    }
    tiny = {**RING, "data": latent, "training": {**RING["training"], "steps": 1, "batch": 4}}
    result = unidiff("run", write(tmp_path, tiny), "--out", tmp_path / "run")
    assert result.code == 0, result
    words = [tmp_path / "run", "--count", 20, "--nfe", 2, "--out", tmp_path / "out"]
    assert "latent model" in refused("evaluate", *words, "--bits", 2)
    result = unidiff("evaluate", *words, "--json")
    content = json.loads(result.out.splitlines()[-1])
    assert (content["reference"]["data"], content["features"]["resized"]) == ("Digits test", True)
    assert content["rows"][0]["measures"]["frechet"]["value"] > content["floor"]["measures"]["frechet"]["value"]


@pytest.mark.parametrize("command", ["evaluate", "compare", "run", "sample", "likelihood", "check", "export", "tune"])
def test_a_link_that_leads_to_itself_is_one_message(tmp_path, command):
    (tmp_path / "loop").symlink_to("loop")
    more = {"tune": ["--nfe", 5], "export": [tmp_path / "model"]}.get(command, [])
    message = refused(command, tmp_path / "loop", *more)
    assert "loop" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop"]


def test_titles_of_columns_lose_the_end_that_all_share():
    names = [f"{run}, Ancestral @ Tapered, 3 steps" for run in ("ddpm_digits_classes", "ncsn_digits")]
    scores = [Scores(name, 10, {"frechet": Estimate(1.0, 0.1)}) for name in ["real data", *names]]
    titles = [title for table in Evaluation(tuple(scores[1:]), scores[0], {}).tables(200) for title in table[0]]
    assert titles == ["", "real data", "ddpm_digits_classes", "ncsn_digits"]
    alone = Evaluation((scores[1],), scores[0], {})  # nothing to tell apart: the end of the name stays
    assert next(iter(alone.tables(200)))[0][2].endswith("Tapered, 3 steps")
