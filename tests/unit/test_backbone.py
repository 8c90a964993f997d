"""The backbones, against formulas written out beside them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unidiff as ud
from unidiff.backbone.dit import DiT
from unidiff.backbone.layers import ResidualBlock, SelfAttention, group_norm, sinusoidal
from unidiff.backbone.mlp import MLP
from unidiff.backbone.unet import UNet
from unidiff.condition.image import Image
from unidiff.errors import ParameterError

NETWORKS = {
    "unet": lambda: UNet((3, 8, 12), width=8, multipliers=(1, 2), blocks=1),
    "unet, attention": lambda: UNet((1, 8, 8), width=8, multipliers=(1, 2), blocks=1, attention=(8, 4), heads=2),
    "unet, patches": lambda: UNet((1, 28, 28), width=8, multipliers=(1, 2), blocks=2, patch=2),
    "unet, scale and shift, residual resampling": lambda: UNet(
        (2, 8, 4), 8, (1, 2), 1, (4,), None, groups=4, scale_shift=True, residual_resampling=True, head_channels=4
    ),
    "unet, middle alone": lambda: UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, middle_attention=True),
    "unet, one level": lambda: UNet((2, 5, 7), width=6, multipliers=(3,), blocks=1),
    "dit": lambda: DiT((3, 8, 12), width=16, depth=2, heads=2),
    "dit, learned variance": lambda: DiT((1, 8, 4), patch=4, width=8, depth=1, heads=1, learned_variance=True),
    "unet, signals": lambda: UNet((2, 12), width=8, multipliers=(1, 2), blocks=1, attention=(6,), heads=2),
    "unet, videos": lambda: UNet((1, 3, 4, 8), width=8, multipliers=(1, 2), blocks=1, heads=2, factorized=True),
    "unet, volumes": lambda: UNet((1, 4, 4, 8), 8, (1, 2), 1, (4,), 2, axial=True, learned_variance=True),
    "dit, volumes": lambda: DiT((2, 4, 4, 2), width=8, depth=3, heads=2, axial=True),
    "dit, videos": lambda: DiT((2, 3, 4, 2), width=8, depth=1, heads=2, factorized=True),
    "mlp": lambda: MLP((2,), width=16, depth=2),
    "mlp, two axes": lambda: MLP((3, 4), width=16, depth=1),
}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request):
    torch.manual_seed(0)
    return request.param()


def perturbed(network: nn.Module, scale: float = 0.2) -> nn.Module:
    """The network with every weight moved, so that no branch is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype))
    return network


def batch(network: nn.Module, size: int = 4, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(size, *network.shape, generator=generator, dtype=dtype)
    return x, torch.linspace(0, 1000, size, dtype=dtype)


# ------------------------------------------------------------------------------------------------ every backbone


def test_output_is_exactly_zero_at_first(network):
    x, c = batch(network)
    out = network(x, c)
    assert out.shape == (4, network.outputs, *network.shape[1:])
    assert torch.equal(out, torch.zeros_like(out))


def test_samples_do_not_see_each_other(network):
    perturbed(network.double())
    x, c = batch(network, dtype=torch.float64)
    whole = network(x, c)
    halves = torch.cat([network(x[:2], c[:2]), network(x[2:], c[2:])])
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(halves, whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(network(x[order], c[order]), whole[order], rtol=1e-11, atol=1e-11)


def test_the_noise_condition_matters(network):
    perturbed(network)
    x, _ = batch(network, 1)
    near, far = (network(x, torch.tensor([c])) for c in (10.0, 500.0))
    assert (near - far).abs().max() > 1e-3 * near.abs().max()


def test_gradient_reaches_every_parameter_and_the_input(network):
    perturbed(network)
    x, c = batch(network)
    x.requires_grad_()
    network(x, c).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []
    assert x.grad.abs().max() > 0


def test_every_weight_but_the_last_layers_is_reached_once_the_head_moves(network):
    """Zero initialization must not lock a branch: after the head is nonzero, each zeroed layer has a gradient."""
    nn.init.normal_(network.head.weight)
    x, c = batch(network)
    network(x, c).square().sum().backward()
    for name, p in network.named_parameters():
        attention = "project.weight" if isinstance(network, UNet) else "modulation.weight"
        if name.endswith(("conv2.weight", "linear2.weight", attention)):
            assert p.abs().max() == 0, name
            assert p.grad.abs().max() > 0, name


def test_meta_construction_has_the_same_parameters(request, network):
    with torch.device("meta"):
        meta = NETWORKS[request.node.callspec.id]()
    assert all(p.is_meta for p in meta.parameters())
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}


def test_conditions_are_refused(network):
    x, c = batch(network)
    with pytest.raises(ParameterError, match=r"(UNet|DiT|MLP) is unconditional, but was passed label\."):
        network(x, c, label=torch.zeros(4))


def test_autocast_in_bfloat16_is_the_same_network(network):
    """2 % of the largest output: bfloat16 carries 8 bits (0.4 % a rounding), a few dozen of which add at random."""
    perturbed(network, 0.02)
    x, c = batch(network)
    exact = network(x, c)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, c)
    assert (rough - exact).abs().max() < 0.02 * exact.abs().max()


# ------------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_embedding_is_the_formula(dim):
    c = torch.tensor([0.0, 0.5, 1.0, 37.0, 999.5], dtype=torch.float64)
    expected = [
        [math.sin(v * 10_000 ** (-2 * i / dim)) for i in range(dim // 2)]
        + [math.cos(v * 10_000 ** (-2 * i / dim)) for i in range(dim // 2)]
        for v in c.tolist()
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(sinusoidal(c, dim), expected, rtol=0, atol=1e-12)
    # float32: c has 24 bits, so a phase near 1000 is known to 1000 * 2**-24 = 6e-5; twice that for two roundings.
    torch.testing.assert_close(sinusoidal(c.float(), dim), expected.float(), rtol=0, atol=2e-4)


def test_embedding_keeps_float32_under_autocast_and_for_integers():
    c = torch.tensor([3, 999])
    with torch.autocast("cpu", torch.bfloat16):
        cast = sinusoidal(c, 32)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, sinusoidal(c.double(), 32).float(), rtol=0, atol=2e-4)


def test_attention_is_the_formula():
    torch.manual_seed(0)
    heads, channels, height, breadth = 3, 12, 4, 5
    layer = perturbed(SelfAttention(channels, heads).double())
    x = torch.randn(2, channels, height, breadth, dtype=torch.float64)

    def pointwise(linear: nn.Linear, z: torch.Tensor) -> torch.Tensor:  # (pixels, in) -> (pixels, out)
        return z @ linear.weight.T + linear.bias

    for sample, result in zip(x, layer(x)):
        pixels = layer.norm(sample[None])[0].flatten(1).T
        q, k, v = pointwise(layer.qkv, pixels).split(channels, dim=1)
        columns = []
        for rows in torch.arange(channels).split(channels // heads):
            scores = q[:, rows] @ k[:, rows].T / math.sqrt(channels // heads)
            columns.append(torch.softmax(scores, dim=1) @ v[:, rows])
        expected = sample.flatten(1).T + pointwise(layer.project, torch.cat(columns, dim=1))
        torch.testing.assert_close(result.flatten(1).T, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(2, 1), (6, 1), (8, 2), (34, 2), (37, 1), (48, 12), (64, 16), (72, 18), (128, 32), (192, 32)],
)
def test_groups_are_at_most_32_of_at_least_4_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_group_norm_is_the_formula_and_keeps_the_shift_of_a_channel():
    torch.manual_seed(0)
    norm, x = group_norm(8).double(), torch.randn(2, 8, 3, 5, dtype=torch.float64)
    for group in (slice(0, 4), slice(4, 8)):
        mean = x[:, group].mean((1, 2, 3), keepdim=True)
        std = (x[:, group].var((1, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(norm(x)[:, group], (x[:, group] - mean) / std, rtol=1e-12, atol=1e-12)
    shift = torch.randn(1, 8, 1, 1, dtype=torch.float64)
    assert (norm(x + shift) - norm(x)).abs().max() > 0.1


# ------------------------------------------------------------------------------------------------ UNet


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_folded_and_unfolded_exactly(patch):
    """With stem and head made the identity and nothing between, the network returns its input bit for bit."""
    x = torch.randn(2, 3, 8, 12)
    folded = F.pixel_unshuffle(x, patch)
    network = UNet((3, 8, 12), width=8, multipliers=(1,), patch=patch)
    assert network.stem.in_channels == network.head.out_channels == folded.shape[1] == 3 * patch**2
    for row in range(patch):  # channel (c, row, column) of the folded image is every patch-th pixel
        for column in range(patch):
            channels = slice(row * patch + column, None, patch**2)
            assert torch.equal(folded[:, channels], x[:, :, row::patch, column::patch])
    network.embedding.forward = lambda c, label: c
    network.norm = nn.Identity()
    network.down = network.middle = network.up = nn.ModuleList()
    network.stem = network.head = nn.Identity()
    # only the SiLU before the head remains
    assert torch.equal(network(x, torch.zeros(2)), F.silu(x))


def parameters(**settings) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet((1, 32, 32), **settings).parameters())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 48, "multipliers": (1, 2, 2, 4), "blocks": 3, "attention": (16, 8)}, 12_908_113),
        ({"width": 72, "multipliers": (1, 2, 2, 2), "blocks": 1}, 7_353_865),
    ],
)
def test_sizes_of_the_networks_in_the_literature(settings, expected):
    """Within half a per cent of the 12.9 million and the 7,339,297 parameters of the two papers' networks."""
    assert parameters(**settings) == expected
    assert min(abs(expected / published - 1) for published in (12.9e6, 7_339_297)) < 0.005


ADM = {"groups": 32, "classes": 1000, "scale_shift": True, "residual_resampling": True, "learned_variance": True}


@pytest.mark.parametrize(
    ("settings", "expected", "published"),
    [
        (
            {"shape": (3, 64, 64), "width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "head_channels": 64},
            *(295_905_222, 296),
        ),
        ({"shape": (3, 128, 128), "width": 256, "multipliers": (1, 1, 2, 3, 4), "heads": 4}, 421_530_630, 422),
        (
            {"shape": (3, 256, 256), "width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "head_channels": 64},
            *(553_839_110, 554),
        ),
    ],
)
def test_options_make_the_networks_of_dhariwal_and_nichol(settings, expected, published):
    """Dhariwal & Nichol 2021, table 11: millions of parameters of ADM at 64, 128 and 256 pixels."""
    settings = {"heads": None, **settings, "attention": (32, 16, 8), **ADM}
    with torch.device("meta"):
        count = sum(p.numel() for p in UNet(**settings).parameters())
    assert count == expected
    assert round(count / 1e6) == published


def test_names_of_the_weights_are_those_of_every_checkpoint_so_far():
    network = UNet((1, 4, 4), width=8, multipliers=(1, 2), blocks=1, attention=(2,), classes=3)
    residual = [f"{layer}.{kind}" for layer in ("norm1", "conv1", "embed", "norm2", "conv2") for kind in KINDS]
    attention = [f"{layer}.{kind}" for layer in ("norm", "qkv", "project") for kind in KINDS]
    widened = [*residual, "shortcut.weight", "shortcut.bias"]
    stages = {"down.0.0": residual, "down.1.0": widened, "middle.0": residual, "middle.1": residual}
    stages |= {f"up.{level}.{stage}": widened for level in (0, 1) for stage in (0, 1)}
    expected = {f"{stage}.residual.{name}" for stage, names in stages.items() for name in names}
    attended = ("down.1.0", "middle.0", "up.0.0", "up.0.1")
    expected |= {f"{stage}.attention.{name}" for stage in attended for name in attention}
    plain = ("embedding.inner", "embedding.outer", "stem", "coarsen.0", "refine.0", "norm", "head")
    expected |= {f"{name}.{kind}" for name in plain for kind in KINDS} | {"embedding.label.weight"}
    assert set(network.state_dict()) == expected


KINDS = ("weight", "bias")


def test_scale_and_shift_are_the_formula():
    torch.manual_seed(0)
    block = perturbed(ResidualBlock(4, 6, 5, 0.0, groups=2, scale_shift=True, resample=nn.AvgPool2d(2)).double())
    x, e = torch.randn(3, 4, 6, 4, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    coarse = F.silu(block.norm1(x)).unflatten(2, (3, 2)).unflatten(4, (2, 2)).mean((3, 5))
    scale, shift = block.embed(e)[:, :6, None, None], block.embed(e)[:, 6:, None, None]
    h = block.conv2(F.silu((1 + scale) * block.norm2(block.conv1(coarse)) + shift))
    expected = block.shortcut(x.unflatten(2, (3, 2)).unflatten(4, (2, 2)).mean((3, 5))) + h
    torch.testing.assert_close(block(x, e), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_learned_variance_is_as_many_channels_again(patch):
    network = perturbed(UNet((3, 8, 4), width=8, multipliers=(1,), blocks=1, patch=patch, learned_variance=True))
    x, c = batch(network)
    out = network(x, c)
    assert out.shape == (4, 6, 8, 4)
    # The first half is the network without it, of the same weights.
    plain = UNet((3, 8, 4), width=8, multipliers=(1,), blocks=1, patch=patch)
    weights = network.state_dict()
    half = {f"head.{kind}": weights[f"head.{kind}"][: 3 * patch**2] for kind in KINDS}
    plain.load_state_dict({**weights, **half})
    torch.testing.assert_close(plain(x, c), out[:, :3], rtol=1e-5, atol=1e-5)


def attending(network: UNet) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, SelfAttention)]


def test_attention_stands_where_it_is_asked_for():
    settings = {"width": 8, "multipliers": (1, 1, 1), "blocks": 1, "heads": 2}
    assert attending(UNet((1, 16, 16), **settings)) == []
    assert attending(UNet((1, 16, 16), **settings, attention=(8,))) == [
        "down.1.0.attention",
        "middle.0.attention",
        "up.1.0.attention",
        "up.1.1.attention",
    ]
    assert len(attending(UNet((1, 16, 8), **settings, attention=[16, 4]))) == 2 * 3 + 1  # a list will do, as in recipes


def test_dropout_acts_in_training_only():
    network = perturbed(UNet((1, 8, 8), width=8, multipliers=(1,), dropout=0.5))
    x, c = batch(network)
    assert not torch.equal(network(x, c), network(x, c))
    network.eval()
    assert torch.equal(network(x, c), network(x, c))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (28,)}, r"shape must be \(channels, length\) or \(channels, height, width\) or \(channels, depth, "),
        ({"shape": (1, 28, 0)}, r"shape must be .* got \(1, 28, 0\)"),
        ({"shape": 28}, r"shape must be .* got 28"),
        ({"width": 33}, r"width must be an even number >= 2, got 33"),
        ({"width": 0}, r"width must be .* got 0"),
        ({"width": 32.0}, r"width must be .* got 32.0"),
        ({"multipliers": ()}, r"multipliers must be one or more integers >= 1, got \(\)"),
        ({"multipliers": (1, 0)}, r"multipliers must be .* got \(1, 0\)"),
        ({"multipliers": (1, 1.5)}, r"multipliers must be .* got \(1, 1.5\)"),
        ({"multipliers": 2}, r"multipliers must be .* got 2"),
        ({"blocks": 0}, r"blocks must be an integer >= 1, got 0"),
        ({"blocks": True}, r"blocks must be .* got True"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be .* got -0.1"),
        ({"dropout": math.nan}, r"dropout must be .* got nan"),
        ({"patch": 3}, r"patch must be 1, 2 or 4, got 3"),
        ({"heads": 0}, r"heads must be .* got 0"),
        ({"attention": 14}, "attention must be a list of resolutions"),
        (
            {"shape": (1, 30, 30)},
            r"multipliers: images of 30x30 pixels cannot be halved 2 times \(patch 1\); "
            r"use a size divisible by 4, or fewer multipliers\.",
        ),
        (
            {"shape": (1, 28, 28), "patch": 4},
            r"multipliers: images of 28x28 pixels cannot be halved 2 times \(patch 4\); use a size divisible by 16",
        ),
        ({"shape": (1, 28, 30)}, "multipliers: images of 28x30 pixels cannot be halved 2 times"),
        (
            {"shape": (1, 27, 28), "patch": 2},
            r"patch: images of 27x28 pixels cannot be cut into patches of 2x2; "
            r"use a size divisible by 8, or a smaller patch\.",
        ),
        ({"attention": (16, 14)}, r"attention must be .* \(28, 14, 7\), got 16"),
        (
            {"attention": (28,), "patch": 2, "multipliers": (1, 2)},
            r"attention must be .* \(14, 7\), got 28",
        ),
        ({"width": 66, "attention": (28,)}, r"heads must divide the 66 channels of a level, got 4"),
        ({"scale_shift": "x"}, "scale_shift must be true or false"),
        ({"groups": 0}, r"groups must be an integer >= 1, got 0"),
        ({"groups": 32, "width": 48}, r"groups must divide the 48 channels of a level, got 32"),
        ({"head_channels": 8}, r"head_channels: cannot be combined with heads = 4"),
        (
            {"head_channels": 24, "heads": None, "attention": (7,)},
            r"head_channels must divide the 128 channels of a level, got 24",
        ),
        ({"heads": None}, "heads must be an integer >= 1"),
        # the middle attends too
        (
            {"width": 12, "multipliers": (2, 1, 3), "heads": 8, "attention": (28,)},
            "heads must divide the 36 channels of a level, got 8",
        ),
    ],
)
def test_unet_errors(settings, message):
    with pytest.raises(ParameterError, match=message):
        UNet(**{"shape": (1, 28, 28), **settings})


# ------------------------------------------------------------------------------------------------ MLP


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": ()}, r"shape must be one or more integers >= 1, got \(\)"),
        ({"shape": (2, -1)}, r"shape must be .* got \(2, -1\)"),
        ({"width": 7}, r"width must be an even number >= 2, got 7"),
        ({"depth": 0}, r"depth must be an integer >= 1, got 0"),
    ],
)
def test_mlp_errors(settings, message):
    with pytest.raises(ParameterError, match=message):
        MLP(**{"shape": (2,), **settings})


def test_mlp_parameters_are_the_sum_of_its_layers():
    size, width, depth = 6, 32, 3

    def linear(i: int, o: int) -> int:
        return i * o + o

    block = 3 * linear(width, width) + 2 * 2 * width
    expected = 2 * linear(width, width) + linear(size, width) + depth * block + 2 * width + linear(width, size)
    assert sum(p.numel() for p in MLP((2, 3), width, depth).parameters()) == expected


@pytest.mark.parametrize("cls", [UNet, DiT])
def test_images_of_another_size_cannot_be_joined(cls):
    sizes = {"width": 8, "heads": 2}
    with pytest.raises(ParameterError, match=r"conditions must be images of the size of the samples, \(8, 8\)"):
        cls((1, 8, 8), **sizes, conditions=(Image(1, (4, 8)),))
    assert cls((1, 8, 8), **sizes, conditions=(Image(1),)).inputs == 2  # of any size


def test_a_network_that_takes_no_noise_level_is_refused():
    with pytest.raises(ParameterError, match=r"backbone: its forward must take .* that of Linear is \(input"):
        ud.NeuralDenoiser(ud.VPSDE(), ud.V(), torch.nn.Linear(2, 2))
