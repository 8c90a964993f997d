"""Low-rank changes of linear layers: what they are at first, what they can become, and merged."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.backbone.low_rank import LowRank, LowRankLinear, add_low_rank, low_rank_layers, merge_low_rank
from unidiff.data.sheared import sheared, slant
from unidiff.errors import DataError, ParameterError, RecipeError
from unidiff.run.origin import _read_start

F64 = torch.float64


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5, bias=False))
    return nn.Sequential(nn.Linear(4, 6), inner).to(F64)


def test_at_first_it_is_the_network_and_merged_it_is_the_same():
    base = network()
    changed = copy.deepcopy(base)
    add_low_rank(changed, 2, 6.0, ["1.0", "1.2"])
    x = torch.randn(9, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(changed(x), base(x))
    # Only the changes are trained: a step changes them, and no weight of the network.
    names = {name for name, p in changed.named_parameters() if p.requires_grad}
    assert names == {"1.0.lora_A", "1.0.lora_B", "1.2.lora_A", "1.2.lora_B"}
    for _ in range(3):
        trained = [p for p in changed.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(changed(x).square().sum(), trained)
        with torch.no_grad():
            for p, gradient in zip(trained, gradients):
                p -= 0.01 * gradient
    assert not torch.equal(changed(x), base(x))
    weights = changed.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in base.state_dict().items())
    # (W + (alpha / r) B A) x: in float64 both sides are sums of at most 7 + 2 * 7 products of order 1.
    merged = copy.deepcopy(changed)
    merge_low_rank(merged)
    assert merged.state_dict().keys() == base.state_dict().keys()
    with torch.no_grad():
        assert (merged(x) - changed(x)).abs().max() < 1e-13
    for name, layer in low_rank_layers(changed).items():
        difference = merged.get_submodule(name).weight - base.get_submodule(name).weight
        expected = 3.0 * layer.lora_B @ layer.lora_A
        assert (difference - expected).abs().max() < 1e-14
        singular = torch.linalg.svdvals(difference.detach())
        assert singular[1] > 1e-6  # its rank is the one that was asked for
        assert singular[2:].max() < 1e-14


def test_layers_that_are_not_there():
    with pytest.raises(
        ParameterError, match="lora_layers: no linear layer or convolution of the network is called to_q or to_k"
    ):
        add_low_rank(network(), 2, None, ["to_q", "to_k"])
    with pytest.raises(ParameterError, match="lora must be an integer from 1 to 4096, got 0"):
        add_low_rank(network(), 0, None, ["*"])
    with pytest.raises(ParameterError, match="lora_alpha must be a number > 0, or null, got -1"):
        add_low_rank(network(), 1, -1.0, ["*"])


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions(kind):
    torch.manual_seed(0)
    base = nn.Sequential(kind(3, 6, 3, stride=2, padding=1), nn.SiLU(), kind(6, 4, 1, bias=False)).to(F64)
    changed = copy.deepcopy(base)
    LowRank(2, 6.0).add(changed)
    x = torch.randn(2, 3, *[6] * len(base[0].kernel_size), dtype=F64)
    assert torch.equal(changed(x), base(x))
    with torch.no_grad():
        for layer in low_rank_layers(changed).values():
            layer.lora_B.normal_()
    merged = copy.deepcopy(changed)
    merge_low_rank(merged)
    assert merged.state_dict().keys() == base.state_dict().keys()
    # Sums of at most 3^4 products of order 1 and of as many again in the change: 200 roundings of 1e-16 times 3 to 100.
    with torch.no_grad():
        assert (merged(x) - changed(x)).abs().max() < 1e-11
    assert torch.linalg.matrix_rank((merged[0].weight - base[0].weight).flatten(1)) == 2


def test_the_trained_change_of_a_linear_denoiser_is_a_truncated_singular_value_decomposition():
    """E|x0 - (W + B A) u|^2 is |(W* - W - B A) C^(1/2)|^2 + constant with C = E u u^T, W* = alpha E x0 x0^T C^-1.

    By Eckart and Young (1936) its minimum of rank r is the truncated decomposition of (W* - W) C^(1/2), times C^(-1/2).
    """
    torch.manual_seed(0)
    alpha, sigma, rank = 0.8, 0.6, 2
    root = torch.randn(6, 6, dtype=F64)
    covariance = root @ root.T / 6
    c = alpha**2 * covariance + sigma**2 * torch.eye(6, dtype=F64)
    cross = alpha * covariance  # E x0 u^T
    base = nn.Linear(6, 6, bias=False, dtype=F64)
    layer = LowRankLinear(base, rank, rank)
    trained = [layer.lora_A, layer.lora_B]
    optimizer = torch.optim.LBFGS(trained, 1, 400, 1000, 1e-12, 0, 50, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        w = layer.weight + layer.factor * layer.lora_B @ layer.lora_A
        value = ((w @ c) * w).sum() - 2 * (w * cross).sum()  # E|x0 - w u|^2 less E|x0|^2
        value.backward()
        return value

    optimizer.step(loss)
    values, vectors = torch.linalg.eigh(c)
    half = vectors * values.sqrt() @ vectors.T
    u, s, v = torch.linalg.svd((cross @ torch.linalg.inv(c) - base.weight.detach()) @ half)
    expected = u[:, :rank] * s[:rank] @ v[:rank] @ torch.linalg.inv(half)
    found = (layer.factor * layer.lora_B @ layer.lora_A).detach()
    # The line search sees differences of the loss down to 1e-16 of it, so the square of the error over the curvature,
    # at least s_2^2 - s_3^2 times the least eigenvalue 0.36 of C, is 1e-15: 1e-6 allows a gap from 1e-2.
    assert s[1] ** 2 - s[2] ** 2 > 1e-2
    assert (found - expected).abs().max() < 1e-6


def test_a_run_begins_as_its_start():
    task = ud.load_recipe("lora_digits")
    base = ud.load("shipped:ddpm_digits_classes", device="cpu").denoiser.backbone
    fresh = task.model({}).backbone
    fresh.load_state_dict(_read_start(task, task.sketch(), print)[0])
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([3, 0, -1, 9])
    c = torch.tensor([0.0, 10.0, 400.0, 999.0])
    with torch.no_grad():
        assert torch.equal(fresh(x, c, label=label), base(x, c, label=label))
    trained = {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in fresh.named_parameters() if "lora_" in name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["start=null"], "low_rank: it changes a trained model"),
        (["train=[up]"], "train: low_rank says what is trained"),
        (["low_rank.layers=[to_q]"], "low_rank.layers: no linear layer or convolution of the network is called to_q"),
        (["low_rank.rank=0"], "low_rank.rank must be an integer from 1 to 4096, got 0"),
        (["data.only=[10]"], "data.only must be a list of digits from 0 to 9"),
        (["data.shear=9"], "data.shear must be from -4 to 4, got 9"),
    ],
)
def test_what_a_recipe_cannot_ask_for(changes, message):
    with pytest.raises(RecipeError) as error:
        ud.load_recipe("lora_digits", changes)
    assert message in str(error.value)


def test_a_sheared_ramp_is_a_ramp():
    """Bilinear interpolation reproduces a c + b r + d inside the image, to some roundings of 1e-16."""
    r, c = torch.meshgrid(torch.arange(6.0, dtype=F64), torch.arange(9.0, dtype=F64), indexing="ij")
    found = sheared((0.1 * c - 0.05 * r)[None, None], 0.4)[0, 0]
    expected = 0.1 * (c + 0.4 * (r - 2.5)) - 0.05 * r
    assert (found - expected)[:, 1:8].abs().max() < 1e-14
    # Ink 1 in column 2 + r of row r is a line of slope 1, and a column has slope 0: exact in small integers.
    line = 2 * torch.eye(6, 9, dtype=F64)[None, None].roll(2, 3) - 1
    assert slant(line) == 1
    assert slant(line.sort(3).values) == 0
    assert ud.data.ShearedDigits(only=(3, 0)).open("test").labels.unique().tolist() == [0, 3]


def test_data_sets_as_one(tmp_path):
    base, new = ud.data.Digits(), ud.data.ShearedDigits(only=(3,))
    both = ud.data.Concatenated((base, new), (1, 3))
    assert (both.shape, both.classes, both.features) == (base.shape, base.classes, base.features)
    source, parts = both.open(), [base.open(), new.open()]
    n, m = map(len, parts)
    assert len(source) == n + 3 * m
    rows = torch.tensor([0, n + 3 * m - 1, n, n + m, n - 1])
    x, label = source.examples(rows)
    expected = [parts[0].batch(torch.tensor([0, n - 1])), parts[1].batch(torch.tensor([m - 1, 0, 0]))]
    assert torch.equal(x[[0, 4]], expected[0])
    assert torch.equal(x[1:4], expected[1])
    assert label.tolist()[1:4] == [3, 3, 3]
    assert len({source.checksum, ud.data.Concatenated((base, new)).open().checksum, parts[0].checksum}) == 3
    values = tmp_path / "values.npy"
    np.save(values, np.zeros((20, 1, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"values\.npy train has no labels, and another part has"):
        ud.data.Concatenated((base, ud.data.ArrayFile(str(values)))).open()
    with pytest.raises(ParameterError, match=r"parts\[1\] must have samples of shape \(1, 8, 8\), as parts\[0\]"):
        _ = ud.data.Concatenated((base, ud.data.MNIST())).shape
    with pytest.raises(ParameterError, match="repeats must be one integer >= 1 for each of 2 parts"):
        ud.data.Concatenated((base, new), (1,))
