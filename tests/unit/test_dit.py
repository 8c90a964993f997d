"""The transformer: its sizes, its positions and patches, its zeros, and the formula written out beside it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unidiff as ud
from unidiff.backbone.dit import DiT
from unidiff.backbone.layers import attend, sinusoidal
from unidiff.backbone.patches import position_table
from unidiff.errors import ParameterError

TINY = {"width": 16, "depth": 2, "heads": 2}


def randomized(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5)
    return network.eval()


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "width", "depth", "heads", "millions"),  # the last: at patch 2, 4 and 8 (Peebles & Xie 2023, table 4)
    [
        ("S", 384, 12, 6, (33, 33, 33)),
        ("B", 768, 12, 12, (130, 130, 131)),
        ("L", 1024, 24, 16, (458, 458, 459)),
        ("XL", 1152, 28, 16, (675, 675, 676)),
    ],
)
def test_sizes_are_those_of_the_paper(size, width, depth, heads, millions):
    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    classes, channels = 1000, 4
    for patch, expected in zip((2, 4, 8), millions):
        with torch.device("meta"):
            network = DiT((4, 32, 32), size, patch, classes=classes, learned_variance=True)
        embedding = linear(256, width) + linear(width, width) + (classes + 1) * width
        # Queries, keys and values; projection; four times the width and back; six numbers for each feature.
        block = linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width)
        block += linear(width, 6 * width)
        ends = linear(patch**2 * channels, width) + linear(width, 2 * width) + linear(width, patch**2 * 2 * channels)
        count = sum(p.numel() for p in network.parameters())
        assert count == embedding + depth * block + ends
        assert round(count / 1e6) == expected
        assert (network.blocks[0].heads, len(network.blocks)) == (heads, depth)


def test_what_is_given_goes_before_what_is_named():
    network = DiT((1, 8, 8), "B", patch=4, depth=1, heads=3)
    assert (network.stem.out_channels, len(network.blocks), network.blocks[0].heads) == (768, 1, 3)


# ---------------------------------------------------------------------------------------------- arithmetic


def test_network_is_the_formula():
    """The whole network from the paper's equations, one token at a time, in float64."""
    channels, height, breadth, patch, width, heads, classes = 2, 4, 6, 2, 8, 2, 3
    settings = {"patch": patch, "width": width, "depth": 2, "heads": heads, "classes": classes}
    network = randomized(DiT((channels, height, breadth), **settings, learned_variance=True)).double()
    x, c = torch.randn(2, channels, height, breadth, dtype=torch.float64), torch.tensor([3.0, 700.0]).double()

    def norm(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()

    def pointwise(layer, h):
        return h @ layer.weight.T + layer.bias

    found = network(x, c, label=torch.tensor([2, -1]))
    assert found.shape == (2, 2 * channels, height, breadth)
    for image, noise, row, answer in zip(x, c, (3, 0), found):
        phases = [float(noise) * math.exp(-math.log(10_000) * i / 127) for i in range(128)]
        waves = torch.tensor([math.sin(a) for a in phases] + [math.cos(a) for a in phases], dtype=torch.float64)
        e = pointwise(network.embedding.outer, F.silu(pointwise(network.embedding.inner, waves)))
        e = F.silu(e + network.embedding.label.weight[row])
        corners = [(y, z) for y in range(0, height, patch) for z in range(0, breadth, patch)]
        patches = [image[:, y : y + patch, z : z + patch].flatten() for y, z in corners]
        h = torch.stack(patches) @ network.stem.weight.flatten(1).T + network.stem.bias + network.positions
        for block in network.blocks:
            b1, s1, g1, b2, s2, g2 = pointwise(block.modulation, e).split(width)
            q, k, v = pointwise(block.qkv, (1 + s1) * norm(h) + b1).split(width, dim=1)
            columns = []
            for part in torch.arange(width).split(width // heads):
                scores = q[:, part] @ k[:, part].T / math.sqrt(width // heads)
                columns.append(torch.softmax(scores, 1) @ v[:, part])
            h = h + g1 * pointwise(block.project, torch.cat(columns, 1))
            z = pointwise(block.inner, (1 + s2) * norm(h) + b2)
            z = z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))  # Hendrycks & Gimpel 2016
            h = h + g2 * pointwise(block.outer, z)
        shift, scale = pointwise(network.modulation, e).split(width)
        out = pointwise(network.head, (1 + scale) * norm(h) + shift)
        for (y, z), values in zip(corners, out):
            expected = values.reshape(patch, patch, 2 * channels).permute(2, 0, 1)
            torch.testing.assert_close(answer[:, y : y + patch, z : z + patch], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_cut_and_joined_exactly(patch):
    """With stem and head made inverse permutations and nothing between, the network returns its input bit for bit."""
    channels, count = 3, 3 * patch**2
    network = DiT((channels, 4, 8), patch=patch, width=48, depth=1, heads=1)
    x = torch.randn(2, channels, 4, 8)
    network.norm = nn.Identity()  # blocks and modulation are zero, so the norm is all that is left
    with torch.no_grad():
        network.positions.zero_()
        network.stem.weight.copy_(torch.eye(48, count).reshape(48, channels, patch, patch))
        order = torch.arange(count).reshape(channels, patch, patch).permute(1, 2, 0).flatten()
        network.head.weight.copy_(torch.eye(48)[order])
        assert torch.equal(network(x, torch.zeros(2)), x)


def test_positions_are_sines_and_cosines_of_column_and_row():
    height, breadth, width = 3, 5, 16
    table = position_table((height, breadth), width)
    assert table.dtype == torch.float32
    for row in range(height):
        for column in range(breadth):
            found = table[row * breadth + column].tolist()
            expected = []
            for place in (column, row):
                phases = [place * 10_000 ** (-i / (width // 4)) for i in range(width // 4)]
                expected += [math.sin(a) for a in phases] + [math.cos(a) for a in phases]
            assert found == pytest.approx(expected, abs=2**-24)
    assert len(torch.unique(table, dim=0)) == height * breadth


def test_without_positions_patches_may_change_places():
    """Attention does not know where a token stands: only the table of positions tells."""
    network = randomized(DiT((1, 4, 4), **TINY)).double()
    x, c = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.tensor([5.0, 400.0]).double()

    def replace_x0(x):
        return x.roll((2, 2), (2, 3))  # by one patch

    assert (replace_x0(network(x, c)) - network(replace_x0(x), c)).abs().max() > 0.01
    network.positions.zero_()
    torch.testing.assert_close(replace_x0(network(x, c)), network(replace_x0(x), c), rtol=1e-12, atol=1e-12)


def test_frequencies_end_at_one_in_ten_thousand():
    c = torch.tensor([1.0, 321.5], dtype=torch.float64)
    found = sinusoidal(c, 8, shift=1)
    expected = c[:, None] * torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4], dtype=torch.float64)
    torch.testing.assert_close(found, torch.cat([expected.sin(), expected.cos()], 1), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- at the start


def test_blocks_are_the_identity_and_the_output_zero_at_first():
    network = DiT((3, 8, 8), **TINY, classes=4)
    h, e = torch.randn(2, 16, 16), torch.randn(2, 16)
    for block in network.blocks:
        assert torch.equal(block(h, e), h)
    out = network(torch.randn(2, 3, 8, 8), torch.tensor([0.0, 999.0]), label=torch.tensor([3, -1]))
    assert torch.equal(out, torch.zeros(2, 3, 8, 8))


# ---------------------------------------------------------------------------------------------- conditions, types


def test_classes_are_told_apart_and_no_label_is_the_null_class():
    network = randomized(DiT((1, 4, 4), **TINY, classes=3))
    x, c = torch.randn(4, 1, 4, 4), torch.full((4,), 30.0)
    x[1:] = x[0]
    out = network(x, c, label=torch.tensor([0, 1, 2, -1]))
    assert all((out[i] - out[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))
    torch.testing.assert_close(network(x, c), network(x, c, label=torch.full((4,), -1)), rtol=0, atol=0)
    with pytest.raises(ParameterError, match=r"label must be from 0 to 2, .* got 3"):
        network(x, c, label=torch.full((4,), 3))
    with pytest.raises(ParameterError, match="DiT is conditioned on label, but was passed text"):
        network(x, c, text=torch.zeros(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_dtype_is_the_same_network(dtype):
    """float64 against float32: some thirty roundings of 6e-8. bfloat16: 0.4 % a rounding, a few dozen at random."""
    network = randomized(DiT((1, 8, 8), **TINY))
    x, c = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 8.0])  # small, so that c is exact in 8 bits
    exact, other = network(x, c), network.to(dtype)(x.to(dtype), c.to(dtype))
    assert other.dtype == dtype
    bound = 1e-5 if dtype == torch.float64 else 0.05
    assert (other.float() - exact).abs().max() < bound * exact.abs().max()


def test_attention_is_the_same_with_and_without_derivatives():
    """A fused kernel where no derivative is asked for, the formula where one is: of every order and mode."""
    q, k, v = torch.randn(3, 1, 2, 3, 2, dtype=torch.float64)
    fused = attend(q, k, v)
    torch.testing.assert_close(attend(q.clone().requires_grad_(), k, v), fused, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(attend, [z.clone().requires_grad_() for z in (q, k, v)])
    _, slope = torch.func.jvp(lambda q: attend(q, k, v), (q,), (torch.ones_like(q),))
    step = 1e-6  # a central difference: error step^2 of the third derivative, and 1e-16 / step of rounding
    torch.testing.assert_close(
        slope, (attend(q + step, k, v) - attend(q - step, k, v)) / (2 * step), rtol=1e-7, atol=1e-8
    )


def test_objectives_that_differentiate_twice_take_it():
    network = randomized(DiT((1, 4, 4), **TINY))
    denoiser = ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), network)
    x0, noise = torch.randn(2, 1, 4, 4), torch.randn(2, 2, 1, 4, 4)
    level = denoiser.process.level(torch.tensor([0.3, 0.8]), x0)
    ud.SlicedScoreMatching().losses(denoiser, x0, noise, level).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.blocks.parameters())


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (28,)}, r"shape must be \(channels, length\) or \(channels, height, width\) or \(channels, depth, "),
        ({"size": "M"}, "size must be S, B, L or XL"),
        ({"size": ["S"]}, r"size must be .* got \['S'\]"),
        ({"learned_variance": "yes"}, "learned_variance must be true or false"),
        ({"patch": 0}, "patch must be an integer >= 1"),
        (
            {"shape": (3, 12, 18), "patch": 4},
            r"patch: images of 12x18 pixels cannot be cut into patches of 4x4; use 1, 2, 3, 6\.",
        ),
        ({"width": 18}, "width must be a multiple of 4"),
        ({"depth": 0}, r"depth must be .* got 0"),
        ({"heads": 0}, r"heads must be .* got 0"),
        ({"width": 48, "heads": 5}, r"heads must divide the width, 48, got 5"),
        ({"classes": 0}, r"classes must be .* got 0"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ParameterError, match=message):
        DiT(**{"shape": (1, 8, 8), **settings})
