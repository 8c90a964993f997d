"""`unidiff new`: a recipe for a folder of images, which says what is in it and is valid."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import refused, unidiff

import unidiff as ud
from unidiff.tasks.own_images import ImageSurvey, own_recipe, survey


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two classes of five colour images of 20 x 30 pixels, and grey ones without classes."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    for path in [f"my pets/{kind}/{number}.png" for kind in ("cat", "dog") for number in range(5)]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    Path("grey").mkdir()
    for number in range(3):
        Image.fromarray(pixels[..., 0]).convert("RGB").resize((100, 90)).save(f"grey/{number}.png")
    return tmp_path


def test_a_recipe_says_what_is_in_the_folder(home):
    result = unidiff("new", "my pets")
    assert result.code == 0, result
    assert "my pets: 10 colour images (9 to train on, 1 held out), 2 classes (cat, dog), the short side" in result.out
    task = ud.load_recipe("my_pets.yaml")
    assert task.data == ud.data.ImageFolder("my pets", 16, 3)  # none is enlarged
    assert task.backbone.arguments["classes"] == 2
    assert task.training.batch == 9  # every tenth image is held out
    assert unidiff("new", "grey").code == 0
    assert ud.load_recipe("grey.yaml").data == ud.data.ImageFolder("grey", 32, 1)
    assert ud.load_recipe("grey.yaml").conditioning is None


def test_options_choose(home):
    words = ("--size", 24, "--grey", "--no-classes", "--flip", "--steps", 7, "--out", "other.yaml")
    assert unidiff("new", "my pets", *words).code == 0
    task = ud.load_recipe("other.yaml")
    assert task.data == ud.data.ImageFolder("my pets", 24, 1, flip=True)
    assert (task.conditioning, task.training.steps) == (None, 7)


def test_questions_in_a_terminal(home, monkeypatch):
    answers = iter(["my pets", 8, False])
    monkeypatch.setattr("typer.prompt", lambda *question, **options: next(answers))
    monkeypatch.setattr("typer.confirm", lambda *question, **options: next(answers))
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert unidiff("new").code == 0
    task = ud.load_recipe("my_pets.yaml")
    assert (task.data.size, task.conditioning) == (8, None)


def test_mistakes_are_one_message_and_no_file(home, monkeypatch):
    monkeypatch.setattr(sys, "stdin", type("File", (), {"isatty": lambda self: False})())
    Path("grey.yaml").write_text("mine")
    Path("empty").mkdir()
    Path("broken").mkdir()
    for number in range(3):
        Path(f"broken/{number}.png").write_bytes(Path("grey/1.png").read_bytes() if number == 1 else b"no image")
    before = sorted(home.rglob("*"))
    for words, message in [
        ([], "Name the folder of your images"),
        (["none"], "none: no such folder"),
        (["grey.yaml", "--out", "x.yaml"], "grey.yaml: this is a file"),
        (["empty"], "contains no images"),
        (["broken"], "broken/0.png is not a readable image"),
        (["broken"], "broken/2.png is not a readable image"),
        (["grey"], "grey.yaml: there is a file of this name, which is not overwritten"),
        (["grey", "--out", "x.txt"], "a recipe is a file .yaml"),
        (["grey", "--out", "x.yaml", "--classes"], "--classes: not every image of grey lies in a subfolder"),
        (["grey", "--out", "x.yaml", "--size", 3], "--size must be an integer from 8 to 8192, got 3"),
        (
            ["grey", "--out", "x.yaml", "--size", 50],
            "--size 50: the recipe would not be valid. Choose a multiple of 16",
        ),
    ]:
        assert message in refused("new", *words), words
    assert sorted(home.rglob("*")) == before
    assert Path("grey.yaml").read_text() == "mine"


def test_the_shipped_recipe_is_what_new_writes(tmp_path):
    found = ImageSurvey("photos", 10_000, 32, False, ())
    (tmp_path / "photos.yaml").write_text(
        own_recipe(found, size=found.size, channels=3, flip=False, classes=(), steps=2000, name="photos")
    )
    changes = ["data.fallback=digits"]
    assert ud.load_recipe(tmp_path / "photos.yaml", changes) == ud.load_recipe("photos")


def test_names_cannot_write_keys(tmp_path):
    folder = tmp_path / "a\nseed: 3 #"
    (folder / "x").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "x" / f"{number}.png")
    found = survey(str(folder))
    text = own_recipe(found, size=8, channels=1, flip=False, classes=("b\nseed: 4",), steps=1, name="x")
    (tmp_path / "x.yaml").write_text(text)
    task = ud.load_recipe(tmp_path / "x.yaml")
    assert (task.seed, task.data.root) == (0, str(folder))
