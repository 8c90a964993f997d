"""Contrastive encoders: trained by a recipe, read back, and used to guide from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import refused, shipped_with, unidiff, write

import unidiff as ud
from unidiff.errors import RecipeError

DATA = {"type": "CaptionedDigits", "copies": 1}
PROCESS = {"type": "DDPM", "T": 1000, "schedule": {"type": "Cosine"}}
TRAINING = {"steps": 2, "batch": 4, "lr": 1e-3, "ema": 0.5, "precision": "fp32", "tensorboard": False, "report": False}
PAIRS = {
    "data": DATA,
    "process": PROCESS,
    "contrastive": {"type": "ContrastiveUNet", "size": 4, "width": 8, "text_width": 8, "heads": 2, "depth": 1},
    "training": TRAINING,
}
PLAIN = {
    "data": DATA,
    "process": PROCESS,
    "parameterization": {"type": "V"},
    "backbone": {"type": "MLP", "width": 8, "depth": 1},
    "training": {**TRAINING, "preview_every": 0},
    "sampling": {"grid": {"type": "Uniform", "steps": 2}, "count": 2},
}


@pytest.mark.slow  # 4 s: two trainings, and samples from the command line
def test_an_encoder_is_trained_read_back_and_guides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, recipe in (("pairs", PAIRS), ("plain", PLAIN)):
        result = unidiff("run", write(tmp_path, recipe, f"{name}.yaml"), "--out", name)
        assert result.code == 0, result.err
    report = json.loads((tmp_path / "pairs/manifest.json").read_text())
    # A fifth of the 60 pairs of digit and ink is held out, with five grounds each; 297 images do not show all.
    assert 50 <= report["captions"] <= 60
    for name in ("caption_of_image", "image_of_caption"):
        assert [*report[name]] == ["0.001", "0.1", "0.25", "0.5", "0.75"]
    encoder = ud.load_contrastive("pairs")
    assert encoder.conditions == ud.Captions().built_for(ud.data.CaptionedDigits())
    vectors = encoder.texts(caption=torch.tensor([[0, 1, 2, 3, 4], [0, 2, -1, -1, -1]]))
    torch.testing.assert_close(vectors.square().sum(1), torch.ones(2))

    # An unconditional model takes the caption for its guide alone.
    words = ["sample", "plain", "--count", 1, "--guidance", 2, "--classifier", "pairs", "--json", "--array", "x.npy"]
    said = ["--set", "cond.caption=[a red three on blue, a green one on white]"]
    result = unidiff(*words, *said)
    assert result.code == 0, result.err
    assert json.loads(result.out)["count"] == 2
    assert "Set one with --set cond.caption=VALUE" in refused(*words)
    assert "'tree' is not one of its words" in refused(*words, "--set", "cond.caption=a red tree")
    assert "not of a classifier or a contrastive encoder" in refused(*words[:7], "plain", *said)
    assert "the training of a contrastive encoder; it does not generate samples" in refused("sample", "pairs")
    with pytest.raises(RecipeError, match="not of a contrastive encoder"):
        ud.load_contrastive("plain")


class Session:
    """What a report asks of a training that is over."""

    def poll(self) -> None:
        """Nothing."""

    def trained(self) -> tuple[None, None]:
        return None, None


def test_the_shares_of_a_report_are_those_of_an_encoder_that_is_known(tmp_path, monkeypatch):
    # It knows the captions of the images, in the order in which they are asked for, but for the last quarter.
    task = ud.load_recipe(write(tmp_path, PAIRS))
    monkeypatch.setattr("unidiff.tasks.contrastive.ContrastiveReport", lambda *parts: parts)
    own, asked = [], []

    class Known(torch.nn.Module):
        process = task.process

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def texts(self, *, caption):
            test = task.data.open("test")
            order = torch.randperm(len(test), generator=torch.Generator().manual_seed(task.seed))
            _, captions = test.examples(order[:1000])
            found, inverse = captions.unique(dim=0, return_inverse=True)
            assert torch.equal(found, caption)
            wrong = torch.arange(len(inverse)) >= 0.75 * len(inverse)
            own.append(torch.where(wrong, (inverse + 1) % len(found), inverse))
            return torch.eye(len(found))

        def images(self, u, level):
            start = sum(asked) % len(own[0])
            asked.append(len(u))
            return torch.eye(int(own[0].max()) + 1)[own[0][start : start + len(u)]]

    *_, captions, by_image, by_caption = task.report(Known(), Session())
    assert captions == int(own[0].max()) + 1
    right = round(float((torch.arange(len(own[0])) < 0.75 * len(own[0])).double().mean()), 4)
    assert set(by_image.values()) == {right}
    assert all(share >= 0.75 for share in by_caption.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"type": "Digits"}}, r"has no captions"),
        ({"training": {**TRAINING, "batch": 1}}, r"training\.batch must be at least 2, two pairs to tell apart, got 1"),
        ({"contrastive": {"type": "UNetEncoder"}}, r"expected a pair encoder, got UNetEncoder, an encoder"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        ud.load_recipe(write(tmp_path, {**PAIRS, **changes}))


def test_the_shipped_encoder_knows_the_noise_of_the_model():
    (name,) = shipped_with("contrastive")
    assert ud.load_recipe(name).process == ud.load_recipe("captioned_digits").process
