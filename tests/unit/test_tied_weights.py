"""Networks whose weights share memory: trained, saved once, resumed and read back bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import equal

import unidiff as ud
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted
from unidiff.training.tied import load_tied, without_ties


class Tied(torch.nn.Module):
    shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (torch.nn.Conv2d(1, 1, 3, padding=1) for _ in "ab")
        self.again = self.first  # a layer under two names
        self.second.weight = self.first.weight
        buffer = torch.arange(6.0)
        self.register_buffer("whole", buffer)
        self.register_buffer("part", buffer[2:4])
        self.register_buffer("turned", buffer.reshape(2, 3).t())

    def forward(self, x, c):
        return self.second(self.again(self.first(x).tanh()))


def fit(folder, stop=lambda: False):
    model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), Tied())
    settings = ud.Training(steps=5, batch=4, lr=1e-3, precision="fp32")
    return ud.train(
        model, ud.data.Digits().open(), ud.Denoising(), settings, checkpoints=Checkpoints(folder), stop=stop
    )


def test_a_resumed_run_is_the_whole_one(tmp_path):
    whole = fit(tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        fit(tmp_path / "parts", lambda: next(asked))
    parts = fit(tmp_path / "parts")
    assert equal(dict(whole.backbone.state_dict()), dict(parts.backbone.state_dict()))
    states = [Checkpoints(tmp_path / name).load(print) for name in ("whole", "parts")]
    assert all(equal(getattr(states[0], part), getattr(states[1], part)) for part in ("model", "ema", "optimizer"))
    assert parts.backbone.second.weight is parts.backbone.first.weight
    assert equal(dict(states[0].ema), dict(whole.backbone.state_dict()))
    file = load_file(tmp_path / "whole/step-00000005/ema.safetensors")
    assert set(file) == {"first.weight", "first.bias", "second.bias", "whole", "part", "turned"}


def test_every_weight_is_read_back_by_every_name(tmp_path):
    weights = Tied().state_dict() | {"empty": torch.zeros(0), "too": torch.zeros(0)}
    tensors, ties = without_ties(weights)
    assert ties == {
        "again.weight": "first.weight", "again.bias": "first.bias", "second.weight": "first.weight",
    }  # fmt: skip
    path = tmp_path / "w.safetensors"
    save_file(tensors, path, ties)
    read = load_tied(path)
    assert equal(read, dict(weights))
    assert read["again.weight"] is read["first.weight"]
