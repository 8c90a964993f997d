"""Our networks and diffusers' with the same weights compute the same, and a round trip keeps every weight.

In float64, by which order a processor sums does not matter. A layer sums at most 64 * 9 * 2 = 1152 products of about
unit variance in all: its rounding errors are below 1152 u = 1.3e-13 with u = 2^-53, and the phases of the time, up to
1000, are off by 1000 u. Some thirty layers whose slopes are about 1 add them up: 30 * 1.3e-13 = 4e-12, and 1e-10 leaves
room for steeper norms. Wrong names or layouts give 0.1 and more, because every weight is random.
"""

from __future__ import annotations

import pytest
import torch
from theirs import diffusers, in_float64  # noqa: F401 (a fixture)

from unidiff.backbone.dit import DiT
from unidiff.backbone.unet import UNet
from unidiff.errors import ParameterError
from unidiff.interop.dit import dit_from_diffusers, dit_to_diffusers
from unidiff.interop.unet import unet_from_diffusers, unet_to_diffusers

pytestmark = pytest.mark.usefixtures("in_float64")

F64, BOUND = torch.float64, 1e-10
SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
UNETS = {
    "plain": {"shape": (1, 8, 8), **SMALL},
    "default groups, three levels": {"shape": (3, 8, 16), "width": 16, "multipliers": (1, 1, 1), "groups": 2},
    "attention": {"shape": (1, 8, 8), **SMALL, "multipliers": (1, 2, 2), "attention": (4, 2), "heads": 2},
    "attention of one head": {"shape": (1, 8, 8), **SMALL, "attention": (8, 4), "heads": 1},
    "middle alone": {"shape": (2, 4, 4), **SMALL, "middle_attention": True},
    "no middle": {"shape": (2, 4, 4), **SMALL, "attention": (4,), "middle_attention": False},
    "everything": {
        **{"shape": (3, 16, 8), **SMALL, "multipliers": (1, 2, 3), "blocks": 2, "attention": (8,)},
        **{"heads": None, "head_channels": 4, "classes": 5, "scale_shift": True, "residual_resampling": True},
        "learned_variance": True,
    },
}


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Every weight drawn anew, so that none is 0 and no branch silent; scaled to keep activations of unit size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5)
    return network.double().eval()


def inputs(shape, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *shape, generator=generator, dtype=F64), torch.tensor([0.0, 17.0, 999.0], dtype=F64)


@pytest.mark.cases(3)
@pytest.mark.parametrize("settings", UNETS.values(), ids=UNETS)
def test_unet_is_a_unet_2d_model(settings):
    ours = randomized(UNet(**settings))
    config, state = unet_to_diffusers(ours)
    theirs = diffusers.UNet2DModel(**config).double().eval()
    theirs.load_state_dict(state)  # strict: every name, no other
    x, c = inputs(ours.shape)
    with torch.no_grad():
        if ours.classes is None:
            pairs = [(ours(x, c), theirs(x, c).sample)]
        else:
            label = torch.tensor([0, ours.classes - 1, -1])
            named = label.where(label >= 0, ours.classes)
            pairs = [(ours(x, c, label=label), theirs(x, c, class_labels=named).sample)]
            pairs.append((ours(x, c), theirs(x, c, class_labels=torch.full((3,), ours.classes)).sample))
    for a, b in pairs:
        assert a.shape == b.shape == (3, ours.outputs, *ours.shape[1:])
        assert a.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=BOUND)
    # And back, from the config as diffusers keeps it.
    back = unet_from_diffusers(theirs.config, theirs.state_dict())
    assert back.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())
    assert (back.shape, back.classes, back.learned_variance) == (ours.shape, ours.classes, ours.learned_variance)
    with torch.no_grad():
        assert torch.equal(back(x, c), ours(x, c))


def test_unet_2d_model_with_its_own_defaults_is_a_unet():
    """Cosines first, attention in the middle, heads of 8 channels, no null class: as diffusers builds it."""
    theirs = randomized(
        diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(32, 32, 64, 64), layers_per_block=1, num_class_embeds=4
        )
    )
    ours = unet_from_diffusers(theirs.config, theirs.state_dict(), null_class=False)
    assert (ours.shape, ours.classes) == ((3, 8, 8), 4)
    x, c = inputs(ours.shape)
    label = torch.tensor([3, 0, 1])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, c, label=label), theirs(x, c, class_labels=label).sample, rtol=0, atol=BOUND)
        config, state = unet_to_diffusers(ours)
        again = diffusers.UNet2DModel(**config).double().eval()
        again.load_state_dict(state)
        torch.testing.assert_close(
            again(x, c, class_labels=label).sample, theirs(x, c, class_labels=label).sample, rtol=0, atol=BOUND
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 2}, "it folds patches of 2 x 2 pixels; train with patch = 1"),
        ({"multipliers": (2, 4)}, "let multipliers begin with 1"),
        ({"groups": None}, "its norms have 2, 4, 6, 8 groups; train with one number"),
        ({"attention": (8, 4), "heads": 2}, "its heads have 4, 8 channels; train with one number, head_channels"),
    ],
)
def test_networks_that_diffusers_cannot_compute(settings, message):
    with pytest.raises(ParameterError, match=f"network: diffusers' UNet2DModel cannot compute it: .*{message}"):
        unet_to_diffusers(UNet(**{"shape": (1, 8, 8), **SMALL, **settings}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freq_shift": 1, "norm_eps": 1e-6}, r"freq_shift = 1 \(must be 0\); norm_eps = 1e-06 \(must be 1e-05\)\."),
        ({"downsample_padding": 0}, r"downsample_padding = 0 \(must be 1\)"),
        ({"block_out_channels": [8, 12]}, r"block_out_channels = \[8, 12\] \(must be multiples of the first\)"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, r"block type SkipDownBlock2D \(must be "),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "attention at other resolutions on the way up"),
        ({"out_channels": 3}, r"out_channels = 3 \(must be in_channels = 1, or twice as many\)"),
        ({"sample_size": None}, r"sample_size = None \(pass shape\)"),
        ({"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None, "add_attention": True}, "attn_norm"),
    ],
)
def test_models_that_no_unet_computes(changes, message):
    config, state = unet_to_diffusers(UNet(**{"shape": (1, 8, 8), **SMALL}))
    with pytest.raises(ParameterError, match=rf"config: cannot be represented as unidiff.UNet: {message}"):
        unet_from_diffusers({**config, **changes}, state)


@pytest.mark.parametrize(
    "changes",
    [
        {"down_block_types": [["DownBlock2D"], "DownBlock2D"]},
        {"block_out_channels": [0, 8]},
        {"block_out_channels": []},
        {"block_out_channels": 8},
        {"block_out_channels": [None, 8]},
    ],
)
def test_values_of_other_types_in_a_config(changes):
    config, state = unet_to_diffusers(UNet(**{"shape": (1, 8, 8), **SMALL}))
    with pytest.raises(ParameterError, match="config: a value has another type or size than in diffusers' own"):
        unet_from_diffusers({**config, **changes}, state)


def test_weights_that_are_not_those_of_the_config():
    config, state = unet_to_diffusers(UNet(**{"shape": (1, 8, 8), **SMALL}))
    lacking = {name: value for name, value in state.items() if name != "conv_in.bias"}
    with pytest.raises(ParameterError, match=r"missing \['conv_in.bias'\], unknown \['other'\]"):
        unet_from_diffusers(config, {**lacking, "other": torch.zeros(1)})
    with pytest.raises(ParameterError, match=r"conv_in.bias must have shape \(8,\) by the config, got \(9,\)"):
        unet_from_diffusers(config, {**state, "conv_in.bias": torch.zeros(9)})


# ---------------------------------------------------------------------------------------------- DiT

TINY = {"width": 32, "depth": 2, "heads": 4}
DITS = {
    "classes, learned variance": {"shape": (4, 8, 8), **TINY, "classes": 7, "learned_variance": True},
    "unconditional": {"shape": (1, 12, 12), **TINY, "patch": 3},
    "one class": {"shape": (3, 8, 8), **TINY, "patch": 4, "classes": 1},
}


@pytest.mark.parametrize("settings", DITS.values(), ids=DITS)
def test_dit_is_a_dit_transformer_2d_model(settings):
    ours = randomized(DiT(**settings))
    config, state = dit_to_diffusers(ours)
    theirs = diffusers.DiTTransformer2DModel(**config).double().eval()
    theirs.load_state_dict(state)
    x, c = inputs(ours.shape)
    last = 0 if ours.classes is None else ours.classes
    with torch.no_grad():
        pairs = [(ours(x, c), theirs(x, c, torch.full((3,), last)).sample)]
        if last:
            label = torch.tensor([0, last - 1, -1])
            pairs.append((ours(x, c, label=label), theirs(x, c, label.where(label >= 0, last)).sample))
    for a, b in pairs:
        assert a.shape == b.shape == (3, ours.outputs, *ours.shape[1:])
        assert a.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=0, atol=BOUND)
    back = dit_from_diffusers(theirs.config, theirs.state_dict())
    assert back.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())
    assert (back.shape, back.classes, back.learned_variance) == (ours.shape, ours.classes, ours.learned_variance)
    with torch.no_grad():
        assert torch.equal(back(x, c), ours(x, c))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_dit_of_any_dtype_moves(dtype):
    config, state = dit_to_diffusers(randomized(DiT((1, 4, 4), width=8, depth=1, heads=1)).to(dtype))
    back = dit_from_diffusers(config, state)
    x, c = torch.randn(2, 1, 4, 4).to(dtype), torch.tensor([1.0, 2.0]).to(dtype)
    assert back.positions.dtype == back(x, c).dtype == dtype


def test_dits_that_cannot_move():
    with pytest.raises(ParameterError, match=r"network: .* supports square images only, got 8x4"):
        dit_to_diffusers(DiT((1, 8, 4), **TINY))
    config, state = dit_to_diffusers(DiT((1, 8, 8), **TINY))
    because = "config: cannot be represented as unidiff.DiT: "
    with pytest.raises(ParameterError, match=because + r"norm_eps = 1e-05 \(must be 1e-06\)\."):
        dit_from_diffusers({**config, "norm_eps": 1e-5}, state)
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"
    with pytest.raises(ParameterError, match=f"{because}{name} differs from that of block 0"):
        dit_from_diffusers(config, {**state, name: state[name] + 1})
    with pytest.raises(ParameterError, match=r"missing \['proj_out_1.bias'\], unknown \[\]"):
        dit_from_diffusers(config, {name: value for name, value in state.items() if name != "proj_out_1.bias"})
