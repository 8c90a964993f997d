"""`unidiff inpaint` and `unidiff edit`: what they write, what they keep, and what they refuse in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIGITS, RING, refused, unidiff, write

import unidiff as ud
from unidiff.data.user_image import read_mask
from unidiff.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8x8 digits, one of points, and pictures."""
    home = tmp_path_factory.mktemp("altering")
    training = {**DIGITS["training"], "steps": 2, "preview_every": 0, "tensorboard": False}
    classes = {**DIGITS, "training": training, "conditioning": {"type": "Labels", "dropout": 0.2}}
    for name, recipe in (("run", {**DIGITS, "training": training}), ("classes", classes), ("ring", RING)):
        assert unidiff("run", write(home, recipe, f"{name}.yaml"), "--out", home / name).code == 0
    digit = ((ud.data.Digits().open().batch(torch.tensor([3]))[0, 0] + 1) * 127.5).round().byte().numpy()
    Image.fromarray(digit).save(home / "digit.png")
    np.save(home / "digit.npy", (digit[None] / 127.5 - 1).astype(np.float32))
    hole = np.zeros((8, 8), np.uint8)
    hole[2:6, 4:] = 255
    Image.fromarray(hole).save(home / "hole.png")
    Image.fromarray(np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)).save(home / "ramp.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(home / "black.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(home / "tall.png")
    np.save(home / "bytes.npy", digit[None].astype(np.float32))
    np.save(home / "small.npy", np.zeros((1, 4, 4), np.float32))
    np.save(home / "nan.npy", np.full((1, 8, 8), np.nan, np.float32))
    (home / "text.png").write_text("no picture")
    (home / "text.npy").write_text("no array")
    return home


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize(
    ("image", "repeats"),
    [("digit.npy", 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in [("digit.png", 1), ("digit.png", 2)])],
)
def test_inpaint_keeps_what_is_black(folder, tmp_path, image, repeats):
    array, out = tmp_path / "x.npy", tmp_path / "x.png"
    words = ["inpaint", folder / "run", folder / image, folder / "hole.png", "--count", 3, "--repeats", repeats]
    result = unidiff(*words, "--array", array, "--out", out, "--json")
    assert result.code == 0, result
    facts = json.loads(result.out)
    assert (facts["count"], facts["samples"]) == (3, str(out))
    assert facts["nfe"] == (4 if repeats == 1 else 7)  # 3 steps to t_min, twice, and a denoise
    x, given = np.load(array), np.load(folder / "digit.npy")
    hole = np.asarray(Image.open(folder / "hole.png")) > 0
    assert x.shape == (3, 1, 8, 8)
    # A byte becomes a float32 in one way here and in another there: one rounding of a number below 1.
    rounding = 2**-23 if image == "digit.png" else 0.0
    assert np.abs(x[..., ~hole] - given[:, ~hole]).max() <= rounding
    assert np.abs(x[0] - x[1])[..., hole].max() > 1e-3
    assert Image.open(out).width > 100


def test_an_image_of_another_size_is_announced(folder, tmp_path):
    Image.fromarray(np.zeros((9, 20), np.uint8)).save(tmp_path / "wide.png")
    words = ("edit", folder / "run", tmp_path / "wide.png", "--count", 1, "--out", tmp_path / "x.png")
    message = "wide.png is 20 x 9 pixels; its central square is resized to 8 x 8, as the model's images."
    assert message in unidiff(*words).err
    assert "resized" not in unidiff(*words[:2], folder / "digit.png", *words[3:]).err


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_a_mask_is_of_any_dtype(folder, tmp_path, dtype):
    hole = np.asarray(Image.open(folder / "hole.png")) > 0
    np.save(tmp_path / "hole.npy", hole.astype(dtype))
    read = read_mask(tmp_path / "hole.npy", folder / "digit.npy", (1, 8, 8))
    assert torch.equal(read, torch.from_numpy(hole))
    np.save(tmp_path / "bytes.npy", np.asarray(Image.open(folder / "hole.png")))
    with pytest.raises(DataError, match=r"values in \[0, 1\], got values from 0 to 255"):
        read_mask(tmp_path / "bytes.npy", folder / "digit.npy", (1, 8, 8))


def test_edit_goes_from_the_picture_to_a_sample(folder, tmp_path):
    given, found = np.load(folder / "digit.npy"), {}
    for strength in (0, 0.3, 1):
        array = tmp_path / f"{strength}.npy"
        words = ["edit", folder / "run", folder / "digit.png", "--strength", strength, "--count", 2]
        result = unidiff(*words, "--array", array, "--out", tmp_path / "x.png")
        assert result.code == 0, result
        assert "2 samples" in result.out
        found[strength] = np.load(array)
    assert np.abs(found[0] - given).max() <= 2**-23  # a byte becomes a float32 in two ways
    assert (
        unidiff("sample", folder / "run", "--count", 2, "--array", tmp_path / "s.npy", "--out", tmp_path / "s.png").code
        == 0
    )
    assert (found[1] == np.load(tmp_path / "s.npy")).all()
    assert np.abs(found[0.3] - given).max() > 1e-3


def test_edit_by_a_map_keeps_what_is_black(folder, tmp_path):
    array = tmp_path / "x.npy"
    words = ["edit", folder / "run", folder / "digit.png", "--map", folder / "ramp.png", "--strength", 0.9]
    assert unidiff(*words, "--array", array, "--out", tmp_path / "x.png").code == 0
    x = np.load(array)
    assert x.shape == (8, 1, 8, 8)  # the default count
    assert np.abs(x[..., 0, 0] - np.load(folder / "digit.npy")[..., 0, 0]).max() <= 2**-23


@pytest.mark.cases(1)
@pytest.mark.parametrize("command", ["edit", "inpaint"])
def test_classes_and_guidance_are_those_of_the_library(folder, tmp_path, command):
    """Two classes in turn, guided; and each sample depends on its class."""
    mask = [folder / "hole.png"] if command == "inpaint" else []
    words = [command, folder / "classes", folder / "digit.npy", *mask, "--count", 3, "--out", tmp_path / "x.png"]
    array = tmp_path / "x.npy"
    result = unidiff(*words, "--class", "3,8", "--guidance", 2, "--array", array, "--json")
    assert result.code == 0, result
    facts = json.loads(result.out)
    assert (facts["classes"], facts["guidance"], facts["classifier"]) == ([3, 8], 2.0, None)
    run, image = ud.load(folder / "classes", device="cpu"), torch.from_numpy(np.load(folder / "digit.npy"))
    known = torch.from_numpy(np.asarray(Image.open(folder / "hole.png")) == 0)
    change, what = (ud.edit, 0.6) if command == "edit" else (ud.inpaint, known)
    sampling, model = run.recipe.sampling, ud.ClassifierFree(run.denoiser, 2.0)

    def drawn(label: list[int]) -> torch.Tensor:
        return change(model, image, what, sampling.solver, sampling.grid, 3, label=torch.tensor(label)).x.clamp(-1, 1)

    assert torch.equal(torch.from_numpy(np.load(array)), drawn([3, 8, 3]))
    assert not torch.equal(drawn([3, 8, 3])[1], drawn([3, 3, 3])[1])
    assert "the classes of" in refused(*words, "--class", 10)


def test_bad_input_is_refused_in_one_sentence(folder, tmp_path):
    run, digit, hole = folder / "run", folder / "digit.png", folder / "hole.png"
    out = ["--out", tmp_path / "x.png"]
    assert "tall.png is 8 x 9 pixels" in refused("inpaint", run, digit, folder / "tall.png", *out)
    assert "black everywhere" in refused("inpaint", run, digit, folder / "black.png", *out)
    assert "no such file" in refused("inpaint", run, digit, folder / "none.png", *out)
    assert "not a readable image" in refused("inpaint", run, digit, folder / "text.png", *out)
    assert "--repeats must be an integer from 1 to 1000, got 0" in refused(
        "inpaint", run, digit, hole, "--repeats", 0, *out
    )
    adams = ["--set", "sampling.solver=ExponentialAdams"]
    assert "--solver ancestral" in refused("inpaint", run, digit, hole, "--repeats", 3, *adams, *out)
    for name, words in {
        "bytes.npy": "values from 0 to 239",
        "nan.npy": "got NaN or infinity",
        "small.npy": "must have shape (1, 8, 8), as the model's samples, got (1, 4, 4)",
        "text.npy": "cannot be read as a .npy file",
        "text.png": "not a readable image",
        "none.png": "no such file",
    }.items():
        assert words in refused("edit", run, folder / name, *out)
    for strength in ("nan", "1.5", "-1"):
        assert "--strength must be a number from 0" in refused("edit", run, digit, "--strength", strength, *out)
    assert "only signals, images, volumes and videos" in refused("edit", folder / "ring", digit, *out)
    assert "not a run directory" in refused("edit", folder, digit, *out)
    assert "--count must be an integer from 1 to 10000000, got 0" in refused("edit", run, digit, "--count", 0, *out)
    assert "is a directory" in refused("edit", run, digit, "--out", tmp_path)
    assert not (tmp_path / "x.png").exists()
