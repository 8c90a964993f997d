"""A bar for `progress=True`: each function that reports progress draws it, ends it, and computes the same."""

from __future__ import annotations

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

MODEL = ud.GaussianMixture(ud.VPSDE(), [[-0.5], [0.5]], 0.01)
TRACE = ud.ExactTrace()
X = torch.zeros(2, 1).double()


def train(progress):
    torch.manual_seed(0)
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((1,), width=8, depth=1))
    settings = ud.Training(steps=2, batch=2, tensorboard=False)
    averaged = ud.train(model, X.float(), ud.Denoising(), settings, progress=progress)
    return torch.cat([weight.flatten() for weight in averaged.parameters()])


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize(
    ("title", "total", "run"),
    [
        ("sample", 3, lambda progress: ud.sample(MODEL, grid=3, seeds=2, progress=progress).x),
        ("edit", 2, lambda progress: ud.edit(MODEL, X[0], 0.8, "ddim@uniform", 2, progress=progress).x),
        pytest.param(
            "compare",
            1,
            lambda progress: ud.compare(MODEL, ["ddim"], [2], seeds=20, progress=progress).rows[0].x,
            marks=pytest.mark.slow,  # three reference flows
        ),
        (
            "log likelihood",
            1000,  # thousandths of the flow
            lambda progress: ud.log_likelihood(MODEL, X, TRACE, progress=progress).log_prob,
        ),
        ("train", 2, train),
    ],
    ids=str,
)
def test_a_bar_is_drawn_to_its_end(title, total, run, capsys):
    with_bar = run(True)
    drawn = capsys.readouterr().err
    assert title in drawn
    assert f"{total}/{total}" in drawn
    told = []
    assert torch.equal(run(lambda done, steps: told.append((done, steps))), with_bar)
    assert told[-1] == (total, total)
    assert torch.equal(run(False), with_bar)
    assert capsys.readouterr().err == ""


def test_what_is_no_bar_is_rejected_and_an_error_ends_it(capsys):
    with pytest.raises(ParameterError, match="progress must be a function or true or false or None, got 1"):
        ud.sample(MODEL, progress=1)
    with pytest.raises(ParameterError, match="steps must be"):
        ud.sample(MODEL, grid=0, progress=True)
    assert ud.sample(MODEL, grid=2, progress=True).nfe == 2  # a bar that was left open would forbid a second one
