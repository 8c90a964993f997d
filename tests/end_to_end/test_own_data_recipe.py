"""A recipe whose data are a class of one's own, around a PyTorch dataset: trained, resumed, loaded, and refused."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from tiny import RING, equal, refused, unidiff

import unidiff as ud
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

MODULE = '''
from dataclasses import dataclass

import torch
from torch.utils.data import TensorDataset

import unidiff as ud


@dataclass(frozen=True)
class Spots(ud.data.Dataset):
    """Squares of one grey value, whose sign is their class."""

    count: int = 40
    size: int = 8

    classes = 2

    @property
    def shape(self):
        return (1, self.size, self.size)

    def open(self, split="train"):
        grey = torch.linspace(-1, 1, self.count)[split == "test" :: 2]
        x = grey[:, None, None, None].expand(-1, *self.shape)
        return ud.data.as_open_dataset(TensorDataset(x, (grey > 0).long()), f"spots {split}")
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "own_spots.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the module is changed within a second
    network = {"type": "UNet", "width": 8, "multipliers": [1], "blocks": 1}
    written = {**RING, "data": {"type": "own_spots:Spots", "count": 30}, "backbone": network, "conditioning": "Labels"}
    (tmp_path / "spots.yaml").write_text(yaml.safe_dump(written))
    return tmp_path / "spots.yaml"


def stopped_after(steps):
    calls = iter(range(1, 100))
    return lambda: next(calls) >= steps


@pytest.mark.slow  # two runs, one of them interrupted and resumed
def test_data_of_a_recipe_are_a_class_of_ones_own(recipe):
    task = ud.load_recipe(recipe, allow_imports=True)
    assert unidiff("run", recipe, "--allow-imports", "--out", "whole").code == 0
    facts = json.loads(Path("whole/manifest.json").read_text())["data"]
    grey = torch.linspace(-1, 1, 30)[::2]
    checksum = ud.TensorSource(grey[:, None, None, None].expand(-1, 1, 8, 8), "x").checksum
    expected = {"name": "spots train", "count": 15, "shape": [1, 8, 8], "checksum": checksum}
    assert facts == {**expected, "stand_in": None, "class_names": None}
    with pytest.raises(Interrupted):
        task.run(Path("parts"), mock.Mock(), stop=stopped_after(4))
    assert unidiff("run", recipe, "--allow-imports", "--out", "parts", "--resume").code == 0
    whole, parts = (Checkpoints(Path(name) / "checkpoints").load(print) for name in ("whole", "parts"))
    assert equal(whole.model, parts.model)
    assert equal(whole.ema, parts.ema)
    loaded = ud.load("whole", allow_imports=True)
    assert loaded.model.classes == 2
    assert loaded.recipe.data.open("test").labels.tolist() == [0] * 7 + [1] * 8
    # Other data than the run's are refused by their checksum.
    Path("own_spots.py").write_text(MODULE.replace("linspace(-1, 1,", "linspace(-0.9, 1,"))
    sys.modules.pop("own_spots")
    importlib.invalidate_caches()
    assert "data" in refused("run", recipe, "--allow-imports", "--out", "parts", "--resume")


def test_foreign_data_need_permission(recipe):
    assert "own_spots:Spots is not part of unidiff" in refused("run", recipe, "--out", "r")
