"""A prior whose samples condition a decoder, as recipes of exact networks: the marginal is that of theory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny import RING, refused, unidiff, write
from torch import nn

import unidiff as ud

# Embedding e ~ N(0, diag(S)) of 2 numbers, data x = K e + N(0, diag(P)) of 3: x ~ N(0, K S K' + P).
S, P = [0.9, 0.3], [0.05, 0.4, 0.2]
K = [[1.0, 0.5], [-0.6, 0.3], [0.2, -0.8]]
COUNT = 4000


class Gaussian(ud.Backbone):
    """E[x0 | u, e] of x0 ~ N(K e, diag(P)) on the straight path u = (1 - t) x0 + t eps; it has nothing to learn."""

    def __init__(self, shape, variance=(), gain=None, conditions=()):
        super().__init__(shape, conditions=conditions)
        self.variance, self.gain, self.unused = variance, gain, nn.Parameter(torch.zeros(1))

    def forward(self, x, c, **cond):
        values, t = self._values(cond, x), (c / 1000)[:, None]
        u, P = x * ((1 - t) ** 2 + t**2).sqrt(), torch.tensor(self.variance)  # the input has unit variance
        mean = torch.zeros_like(u) if self.gain is None else values["embedding"] @ torch.tensor(self.gain).T
        return mean + (1 - t) * P * (u - (1 - t) * mean) / ((1 - t) ** 2 * P + t**2) + 0 * self.unused


@dataclass(frozen=True)
class Embed(ud.Conditioning):
    """The embedding of data x: the first two coordinates. Only its name and shape matter here: nothing is learnt."""

    dropout: float = 0.1

    def built_for(self, data):
        return (ud.Embedding((2,)),)

    def conditions(self, x0, label, uniform):
        return {"embedding": x0[:, :2]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    np.save(folder / "e.npy", np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32))
    shared = {"process": {"type": "FlowMatching"}, "parameterization": {"type": "X0"}}
    shared |= {"training": {**RING["training"], "steps": 1}}
    shared |= {
        "sampling": {"solver": {"type": "UniPC", "order": 2}, "grid": {"type": "Tapered", "steps": 40}, "count": 4}
    }
    network = f"{__name__}:Gaussian"
    for name, file, backbone, more in (
        ("prior", "e.npy", {"variance": S}, {}),
        ("decoder", "x.npy", {"variance": P, "gain": K}, {"conditioning": {"type": f"{__name__}:Embed"}}),
    ):
        data = {"type": "ArrayFile", "path": str(folder / file)}
        recipe = {**shared, "data": data, "backbone": {"type": network, **backbone}, **more}
        path = write(folder, recipe, f"{name}.yaml")
        result = unidiff("run", path, "--out", folder / name, "--allow-imports")
        assert result.code == 0, result.err
    return folder


def recipe_of(runs, tmp_path, **second):
    stages = [{"run": str(runs / "prior")}, {"run": str(runs / "decoder"), **second}]
    return write(tmp_path, {"stages": stages, "count": COUNT, "batch": COUNT}, "system.yaml")


@pytest.mark.slow  # two runs are trained
def test_the_marginal_is_that_of_theory(runs, tmp_path):
    path = recipe_of(runs, tmp_path, condition="embedding")
    result = unidiff("run", path, "--out", tmp_path / "out", "--allow-imports")
    assert result.code == 0, result.err
    x = np.load(tmp_path / "out" / "samples.npy").astype(float)
    gain = np.array(K)
    expected = gain @ np.diag(S) @ gain.T + np.diag(P)
    # Five standard errors of the second moment of a normal, sqrt((S_ii S_jj + S_ij^2) / n). The bias of the solver
    # (order 2, 40 steps) is under a tenth of one.
    diagonal = np.diag(expected)
    error = np.sqrt((np.outer(diagonal, diagonal) + expected**2) / COUNT)
    assert (np.abs(x.T @ x / COUNT - expected) < 5 * error).all()
    # Without the prior's condition the covariance would be P alone, far outside.
    assert (np.abs(np.diag(P) - expected) > 20 * error).any()


@pytest.mark.slow  # as above
def test_what_does_not_fit_is_one_message_of_a_dry_run(runs, tmp_path):
    words = ("--out", tmp_path / "out", "--allow-imports", "--dry-run")
    for second, message in (
        (
            {},
            "got (2,). To condition on them as they are, use Identity('embedding'), or write",
        ),
        ({"condition": "image"}, "makes the condition 'image', and the model's are: embedding"),
        ({"condition": "no name"}, "condition must be a name"),
        (
            {"condition": "embedding", "conditioning": {"type": "Identity", "name": "embedding"}},
            "stages[1].condition: `conditioning` makes the condition already",
        ),
    ):
        said = refused("run", recipe_of(runs, tmp_path, **second), *words)
        assert message in said.replace("\n", " "), said
    turned = write(tmp_path, {"stages": [{"run": str(runs / "decoder")}, {"run": str(runs / "prior")}]})
    assert "stages[1]: it needs a `conditioning`" in refused("run", turned, *words)
    assert not (tmp_path / "out").exists()
