"""Captioned digits: what a caption says is what the image shows; captions as conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import unidiff

import unidiff as ud
from unidiff.condition.sequence import Tokens
from unidiff.errors import DataError, ParameterError

DATA = ud.data.CaptionedDigits(copies=2)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_caption_says_what_the_image_shows(split):
    source, digits = DATA.open(split), ud.data.Digits().open(split)
    assert len(source) == 2 * len(digits)
    x, captions = source.examples(torch.arange(len(source)))
    for image, caption, grey, label in zip(
        x, captions, digits.batch(torch.arange(len(digits))).repeat(2, 1, 1, 1), digits.labels.repeat(2)
    ):
        a, ink, digit, on, ground = (DATA.words[number] for number in caption)
        assert (a, digit, on) == ("a", DATA.DIGITS[label], "on")
        first, last = (torch.tensor(DATA.COLOURS[name])[:, None, None] for name in (ground, ink))
        assert not torch.equal(first, last)
        # lerp and this sum round at most three operations on numbers up to 2: 3 * 2^-23 * 2.
        torch.testing.assert_close(image, first + (grey + 1) / 2 * (last - first), rtol=0, atol=1e-6)


def test_pairs_of_the_test_split_are_never_trained_on():
    pairs = [
        {(int(c[1]), int(c[2])) for c in DATA.open(split).examples(torch.arange(len(DATA.open(split))))[1]}
        for split in ("train", "test")
    ]
    assert not pairs[0] & pairs[1]
    # Per residue of -digit mod 5, inks 0..5 have residues 0, 2, 4, 1, 3, 0 of 2 ink: one ink, but two for residue 0.
    assert (len(pairs[0]), len(pairs[1])) == (48, 12)


def test_captions_are_dropped_whole():
    x, caption = DATA.open().examples(torch.arange(4))
    uniform = torch.tensor([0.0, 0.09, 0.1, 0.9], dtype=torch.float64)[:, None]
    made = ud.Captions(dropout=0.1).conditions(x, caption, uniform)["caption"]
    assert (made[:2] == -1).all()
    assert torch.equal(made[2:], caption[2:])


def test_a_caption_is_read_by_its_words():
    (condition,) = ud.Captions().built_for(DATA)
    assert isinstance(condition, Tokens)
    assert condition.parse("A Red three on blue").tolist() == [0, 2, 11, 1, 4]
    assert condition.parse("").tolist() == []
    with pytest.raises(ParameterError, match="caption: 'tree' is not one of its words, a, on, red"):
        condition.parse("a red tree")
    with pytest.raises(ParameterError, match="caption must be at most 5 words, got 6"):
        condition.parse("a red three on a blue")
    for value in (3, None, [0.5], ["a", "red"], [[0, 1]]):
        with pytest.raises(ParameterError, match="must be words, such as 'a', got "):
            condition.parse(value)
    with pytest.raises(ParameterError, match="word_list"):
        ud.Caption(5, 3)


def test_data_without_captions_are_refused():
    with pytest.raises(ParameterError, match=r"conditioning: Digits\(size=8\) has no captions"):
        ud.Captions().built_for(ud.data.Digits())
    with pytest.raises(DataError, match="Digits train has no captions"):
        ud.Captions().check(ud.data.Digits().open(), None)


@pytest.mark.slow  # 4 s: a recipe of text is trained, drawn from and resumed
def test_a_recipe_of_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["training.steps=2", "training.batch=4", "sampling.count=2", "backbone.width=8", "data.copies=1"]
    words = [word for change in short for word in ("--set", change)]
    assert (
        unidiff(
            "run", "captioned_digits", "--out", "run", *words, "--set", "sampling.grid={type: Uniform, steps: 2}"
        ).code
        == 0
    )
    said = [
        unidiff("sample", "run", "--count", 1, "--set", f"cond.caption={text}", "--array", f"{n}.npy").code
        for n, text in enumerate(("a red three on blue", '"a red three on blue"', "[0, 2, 11, 1, 4]"))
    ]
    assert said == [0, 0, 0]
    assert len({(tmp_path / f"{n}.npy").read_bytes() for n in range(3)}) == 1  # as words, in JSON, as numbers
    # A list of captions, as YAML or JSON, is a list of samples: each with its own seed, and so that of a caption alone.
    for text in ("[a green one on red, a red three on blue]", '["a green one on red", [0, 2, 11, 1, 4]]'):
        assert unidiff("sample", "run", "--count", 1, "--set", f"cond.caption={text}", "--array", "both.npy").code == 0
        run, words = ud.load("run"), ud.Captions().built_for(DATA)[0]
        caption = torch.stack([words.parse("a green one on red"), words.parse("a red three on blue")])
        x = run.sample(seeds=2, caption=caption).x.clamp(-1, 1)
        torch.testing.assert_close(torch.from_numpy(np.load("both.npy")), x, rtol=0, atol=1e-6)  # written as float32
    for words, message in (
        (("cond.caption=a red tree on blue",), "--set cond.caption=a red tree on blue: 'tree' is not one of its words"),
        (("cond.caption=[a red three, a tree]",), "'tree' is not one of its words"),
        (("cond.caption=a", "negative.caption=[a, on]", "--guidance=2"), "must be one value, for all samples"),
    ):
        refused = unidiff("sample", "run", *(part for w in words for part in ((w,) if w[0] == "-" else ("--set", w))))
        assert refused.code == 2
        assert message in refused.err


@pytest.mark.parametrize(
    ("condition", "one", "several"),
    [
        (ud.Label(10), 3, [3, 7]),
        (ud.Scalar(), 0.5, [0.5, 1, 0.25]),
        (ud.Tokens(4, 9), [1, 2], [[1, 2], [3], []]),
        (ud.Embedding((2,)), [0.5, 1], [[0.5, 1], [1, 0]]),
        (ud.Embedding((3, 2)), [[0.5, 1]], [[[0.5, 1]], [[1, 0], [1, 1]]]),
        (ud.Image(1, (2, 2)), [[[0, 1], [1, 0]]], [[[[0, 1], [1, 0]]], [[[1, 1], [1, 0]]]]),
        (ud.Caption(3, word_list=("a", "b")), "a b", ["a b", "b", [0]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ud.Condition) else "",
)
def test_a_list_of_values_has_one_axis_more_than_a_value(condition, one, several):
    assert condition.several(one) == [one]
    assert condition.several(several) == several
    rows = torch.cat([condition.check(condition.parse(value)[None], 1) for value in several])
    assert torch.equal(rows, condition.check(rows, len(several)))
    assert ud.Named("y").several([[1, 2], [3, 4]]) == [[[1, 2], [3, 4]]]  # of which nothing is known
