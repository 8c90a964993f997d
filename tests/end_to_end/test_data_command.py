"""`unidiff data`: samples as files that `edit` and `inpaint` read back."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from tiny import RING, refused, unidiff, write

import unidiff as ud
from unidiff.data.export import centre_mask, write_sample
from unidiff.data.user_image import read_image, read_mask


def test_a_sample_comes_back_as_it_was(tmp_path):
    image, mask, array = tmp_path / "x.png", tmp_path / "mask.png", tmp_path / "x.npy"
    facts = json.loads(unidiff("data", "digits", "--index", 3, "--out", image, "--mask", mask, "--json").out)
    source = ud.data.Digits().open("test")
    assert (facts["count"], facts["shape"], facts["labels"]) == (297, [1, 8, 8], [int(source.labels[3])])
    x = source.batch(torch.tensor([3]))[0]
    # A byte becomes a float32 in one way here and in another there: one rounding of a number below 1.
    torch.testing.assert_close(read_image(image, (1, 8, 8)), x, atol=2**-23, rtol=0)
    free = torch.zeros(8, 8, dtype=torch.bool)
    free[2:6, 2:6] = True
    assert read_mask(mask, image, (1, 8, 8)).equal(free)
    assert unidiff("data", "Digits", "--index", 3, "--out", array).code == 0
    np.testing.assert_array_equal(np.load(array), x.numpy())


def test_colours_and_odd_sizes(tmp_path):
    x = torch.randint(0, 256, (3, 5, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    write_sample(x, tmp_path / "x.png")
    read = torch.from_numpy(np.array(Image.open(tmp_path / "x.png"))).movedim(-1, 0)
    assert read.equal(((x + 1) * 127.5).round().byte())
    assert centre_mask((1, 5)).tolist() == [[-1, 1, 1, 1, -1]]
    assert centre_mask((3, 5, 4)).shape == (1, 5, 4)


def test_a_folder_and_the_data_of_recipes_and_runs(tmp_path):
    words = ("data", write(tmp_path, RING), "--set", "data.count=7", "--split", "train")
    out = unidiff(*words, "--index", 2, "--count", 3, "--out", tmp_path / "points").out
    assert out.startswith("Ring train: 7 samples of shape (2,)\n")
    assert sorted(path.name for path in (tmp_path / "points").iterdir()) == [
        f"ring-train-0000{row}.npy" for row in (2, 3, 4)
    ]
    assert "ring-train-00003.npy: there is a file" in refused(*words, "--index", 3, "--out", tmp_path / "points")
    assert "Digits test: 297 samples of shape (1, 8, 8), 10 classes" in unidiff("data", "shipped:ncsn_digits").out
    assert "shape (1, 16, 16)" in unidiff("data", "digits", "--size", 16).out


def test_mistakes_are_one_message_and_no_file(tmp_path):
    run = "shipped:ddpm_digits"
    folder = tmp_path / "new"
    for words, message in [
        ([run, "--index", 297, "--out", folder], "--index must be an integer from 0 to 296, got 297"),
        ([run, "--count", 298, "--out", folder], "--count must be at most 297 from --index 0, got 298"),
        ([run, "--split", "val"], "--split must be test or train"),
        ([run, "--count", 2, "--out", tmp_path / "x.png"], "a file holds one sample"),
        ([run, "--out", tmp_path / "x.png", "--mask", f"{tmp_path}/./x.png"], "--out writes to this file"),
        ([run, "--out", tmp_path / "x.jpg"], "name a file .png or .npy, or a folder"),
        (["digits", "--size", 3], "--size 3 must be an integer from 8 to 8192"),
        (["ring", "--out", tmp_path / "x.png"], "samples of shape (2,) are not images"),
        (["ring", "--mask", tmp_path / "x.npy"], "cannot be inpainted"),
        (["Digit"], "neither a run, a recipe nor a data set. Did you mean 'Digits'?"),
        (["eigenmodes"], "has no data of its own"),
        (["ImageFolder"], "data.root: missing required key"),
    ]:
        assert message in refused("data", *words), words
    (tmp_path / "x.png").write_text("mine")
    assert "not a PNG image. Choose another file" in refused("data", run, "--out", tmp_path / "x.png")
    write_sample(torch.zeros(1, 8, 8), tmp_path / "photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    for words in (["--out", tmp_path / "photo.png"], ["--mask", tmp_path / "photo.png"]):
        assert "photo.png: there is a file of this name. Replace it with" in refused("data", run, *words)
    assert (tmp_path / "photo.png").read_bytes() == before
    assert unidiff("data", run, "--out", tmp_path / "photo.png", "--overwrite").code == 0
    assert (tmp_path / "photo.png").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "x.png"]
