"""Samples that are not finite are named in one warning, at the line that asked for them, by all that draws samples."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import unidiff as ud
from unidiff.solver.finite import not_finite


class Broken(ud.GaussianMixture):
    """A mixture whose prediction is NaN for the samples of these rows."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(ud.VPSDE(), [[0.0, 0.0]], 0.04)
        self.rows = rows

    def forward(self, u, level, **cond):
        prediction = super().forward(u, level, **cond)
        bad = torch.zeros(len(u), 1)
        bad[self.rows] = math.nan
        return ud.Prediction(prediction.x0 + bad, prediction.eps + bad, level)


IMAGE = torch.zeros(2)
DRAWN = {
    "sample": lambda model: ud.sample(model, "ddim", 3, seeds=4),
    "edit": lambda model: ud.edit(model, IMAGE, 0.5, "ddim", 3, seeds=4),
    "inpaint": lambda model: ud.inpaint(model, IMAGE, torch.tensor([1, 0]), "ddim", 3, seeds=4),
    "decode": lambda model: ud.decode(model, torch.zeros(4, 2), "ddim", 3),
    "cascade": lambda model: ud.Cascade([ud.Stage(model, ud.DDIM(), ud.Uniform(3))]).sample(4),
}
every = pytest.mark.parametrize("name", DRAWN)


@every
def test_broken_samples_are_named_once_at_the_line_that_asked(name):
    with pytest.warns(UserWarning, match="not finite") as seen:
        DRAWN[name](Broken([1, 3]))
    assert [str(one.message) for one in seen] == [
        "2 of 4 samples are not finite (numbers 1, 3). Use more steps or less guidance."
    ]
    assert seen[0].filename == __file__


@every
def test_finite_samples_are_drawn_without_a_word(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DRAWN[name](Broken([]))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], None),
        ([6], "1 of 8 samples are not finite (number 6). Use more steps or less guidance."),
        (
            [0, 1, 2, 3, 5, 7],
            "6 of 8 samples are not finite (numbers 0, 1, 2, 3, 5, ...). Use more steps or less guidance.",
        ),
        (
            list(range(8)),
            "8 of 8 samples are not finite. Check the model: training may have diverged. "
            "Otherwise use more steps or less guidance.",
        ),
    ],
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_the_sentence(rows, said, value):
    x = torch.zeros(8, 1, 3)
    x[rows, 0, 2] = value
    assert not_finite(x) == said
