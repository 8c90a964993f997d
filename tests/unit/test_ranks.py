"""Networks for any number of axes: images as before, each rank inside the next, videos of still frames as images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unidiff as ud
from unidiff.backbone.axes import CONVOLUTIONS, fold_patches, unfold_patches
from unidiff.backbone.dit import DiT
from unidiff.backbone.encoder import UNetEncoder
from unidiff.backbone.layers import FrameAttention, SelfAttention, sinusoidal
from unidiff.backbone.patches import position_table
from unidiff.backbone.unet import UNet
from unidiff.errors import DataError, ParameterError

F64 = torch.float64
C = torch.tensor([10.0, 900.0])
RESAMPLED = {"residual_resampling": True, "scale_shift": True, "learned_variance": True}

# Recorded before signals and volumes were added: the SHA-256 (its first 16 digits) of names and shapes of the weights,
# and of the initial weights of seed 0, those of the embeddings, which are normal variables, left out; first, last and
# mean square output once the weights are moved.
BEFORE: dict[str, tuple[Callable[[], nn.Module], str, str, list[float]]] = {
    "UNet": (
        lambda: UNet((3, 8, 12), 8, (1, 2), 1, (12, 6), 2, classes=3, image=2),
        "c54d0a72aa9e3f01",
        "1d5d9e2fe63b8c5b",
        [-0.819977331, 0.28208015, 0.881991104],
    ),
    "UNet, patches": (
        lambda: UNet((1, 28, 28), 8, (1, 2), 2, patch=2, middle_attention=True),
        "b58843eb3acea4d0",
        "5b49f6a46731e76f",
        [0.140018869, 0.595726897, 1.470828201],
    ),
    "UNet, resampling": (
        lambda: UNet((2, 8, 4), 8, (1, 2), 1, (4,), None, groups=4, head_channels=4, **RESAMPLED),
        "8a65bb127b1698bd",
        "948eeb6b5b220648",
        [-0.012010308, -0.525913519, 0.79004108],
    ),
    "DiT": (
        lambda: DiT((3, 8, 12), patch=2, width=16, depth=2, heads=2, classes=3),
        "a65b69f0320eb732",
        "5669fef88a53badd",
        [-0.192869302, -0.985224867, 1.369377227],
    ),
    "DiT, variance": (
        lambda: DiT((1, 8, 4), patch=4, width=8, depth=1, heads=1, learned_variance=True),
        "f747a94bf6e4d1f6",
        "80264996bc44ba2d",
        [1.417719952, 0.464199636, 0.454842037],
    ),
    "UNetEncoder": (
        lambda: UNetEncoder((1, 8, 16), 8, (1, 2), 1, patch=2, classes=3),
        "f961145b013ca7d5",
        "086ed18d28aa72ca",
        [1.233801226, -0.344983037, 1.490698204],
    ),
    "MLP": (
        lambda: ud.MLP((2, 3), 8, 1, classes=3),
        "c467ae933211ae03",
        "be9ae1658039f62f",
        [0.309548848, -0.785245973, 0.142392497],
    ),
}


def moved(network: nn.Module, scale: float = 0.2) -> nn.Module:
    """The network with every weight moved, so that no branch is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=F64).to(p.dtype))
    return network


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(("make", "names", "weights", "outputs"), BEFORE.values(), ids=BEFORE.keys())
def test_networks_of_images_are_what_they_were(make, names, weights, outputs):
    torch.manual_seed(0)
    network = make()
    state = network.state_dict()
    assert sha(json.dumps([[key, list(value.shape)] for key, value in state.items()]).encode()) == names
    assert sha(b"".join(v.numpy().tobytes() for key, v in state.items() if "embedding" not in key)) == weights
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=F64).to(p.dtype))
    x = torch.randn(2, *network.shape, generator=generator)
    cond = {"label": torch.tensor([1, -1])} if network.classes and not isinstance(network, UNetEncoder) else {}
    if getattr(network, "image", None):
        cond["image"] = torch.randn(2, 2, *network.shape[1:], generator=generator).double()
    out = network.double()(x.double(), C.double(), **cond).detach()
    # Outputs of about 1 and some hundred additions in float64; the normal draws of another processor's float32 weights
    # may differ in the last bit, 6e-8.
    found = [out.flatten()[0], out.flatten()[-1], out.square().mean()]
    torch.testing.assert_close(torch.stack(found), torch.tensor(outputs, dtype=F64), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------- a rank inside the next


def widened(network: nn.Module, plain: nn.Module) -> nn.Module:
    """A network of one axis more, with the weights of `plain` in the middle of its kernels' first axis."""
    state = {}
    for name, weight in network.state_dict().items():
        own = plain.state_dict()[name]
        if weight.ndim > own.ndim:  # a convolution
            state[name] = torch.zeros_like(weight)
            state[name][:, :, weight.shape[2] // 2] = own
        elif weight.shape != own.shape:  # the encoder's last layer: from the first of the equal rows
            rows = torch.zeros_like(weight).reshape(*own.shape[:1], plain.channels, -1, own.shape[1] // plain.channels)
            rows[:, :, 0] = own.reshape(*own.shape[:1], plain.channels, -1)
            state[name] = rows.flatten(1)
        else:
            state[name] = own
    network.load_state_dict(state)
    return network


WITHIN: dict[str, Callable[..., nn.Module]] = {
    "UNet": lambda shape: UNet(shape, 8, (1, 2), 1, (4,), 2),
    "UNet, resampling": lambda shape: UNet(shape, 8, (1, 2), 1, (8,), 2, **RESAMPLED),
    "DiT": lambda shape: DiT(shape, patch=1, width=12, depth=2, heads=2),
    "UNetEncoder": lambda shape: UNetEncoder(shape, 8, (1, 2), classes=3),
}


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.parametrize("rank", [1, 2])
def test_a_sample_that_is_constant_along_an_axis_is_one_of_lower_rank(name, rank):
    """A network of rank r + 1 whose kernels are 0 off the middle of the new axis treats each slice as one of rank r:
    norms and attention see equal slices, strided convolution and mean take some of them, repetition makes more.
    """
    shape, deeper = (2, *[8] * rank), (2, 4, *[8] * rank)
    plain = moved(WITHIN[name](shape).double())
    if isinstance(plain, UNetEncoder):
        plain.channels = plain.norm.num_channels
    wide = widened(WITHIN[name](deeper).double(), plain)
    if isinstance(wide, DiT):
        wide.positions = plain.positions.repeat(4, 1)
    x = torch.randn(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    out, expected = wide(x[:, :, None].expand(2, *deeper), C.double()), plain(x, C.double())
    if not isinstance(plain, UNetEncoder):
        expected = expected[:, :, None].expand_as(out)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)  # 1e-16 a rounding, times a few thousand


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_patches_become_channels_and_back(rank):
    x = torch.randn(2, 3, *(4, 8, 12)[:rank])
    folded = fold_patches(x, 2)
    assert torch.equal(unfold_patches(folded, 2), x)
    if rank == 2:
        assert torch.equal(folded, F.pixel_unshuffle(x, 2))
    # A strided convolution with a kernel of the patch is a product with the channels of the folded sample.
    weight = torch.randn(5, 3, *[2] * rank, dtype=F64)
    layer = getattr(F, f"conv{rank}d")
    expected = torch.einsum("oi,bi...->bo...", weight.flatten(1), folded.double())
    torch.testing.assert_close(layer(x.double(), weight, stride=2), expected, rtol=1e-12, atol=1e-12)
    assert layer(x, weight.float()).ndim == CONVOLUTIONS[rank](1, 1, 1).weight.ndim


@pytest.mark.parametrize(
    ("grid", "width", "sizes"), [((5,), 8, [8]), ((2, 3, 4), 12, [4, 4, 4]), ((2, 2, 2), 16, [8, 4, 4])]
)
def test_positions_embed_each_axis_the_last_first(grid, width, sizes):
    table = position_table(grid, width).reshape(*grid, width)
    index = tuple(size - 1 for size in grid)
    expected = [sinusoidal(torch.tensor([place], dtype=F64), n)[0] for place, n in zip(reversed(index), sizes)]
    assert torch.equal(table[index], torch.cat(expected).float())


# ---------------------------------------------------------------------------------------------- axial attention


def test_axial_attention_is_attention_within_each_line():
    layer = moved(SelfAttention(8, 2, along=1).double())
    layer.norm = nn.Identity()
    joint = SelfAttention(8, 2).double()
    joint.load_state_dict(layer.state_dict(), strict=False)
    joint.norm = nn.Identity()
    x = torch.randn(2, 8, 3, 4, 5, dtype=F64)
    for z in range(3):
        for column in range(5):
            expected = joint(x[:, :, z, :, column])
            torch.testing.assert_close(layer(x)[:, :, z, :, column], expected, rtol=1e-12, atol=1e-12)


def test_axial_networks_of_signals_are_the_joint_ones():
    x = torch.randn(2, 2, 8, dtype=F64)
    joint, axial = (UNet((2, 8), 8, (1, 2), 1, (4,), 2, axial=axial).double() for axial in (False, True))
    moved(joint)
    axial.load_state_dict({name.replace("attention.", "attention.0."): w for name, w in joint.state_dict().items()})
    assert torch.equal(axial(x, C.double()), joint(x, C.double()))
    joint, axial = (DiT((2, 8), width=8, depth=2, heads=2, axial=axial).double() for axial in (False, True))
    axial.load_state_dict(moved(joint).state_dict())
    assert torch.equal(axial(x, C.double()), joint(x, C.double()))


def test_blocks_of_an_axial_transformer_take_the_axes_in_turn():
    """Block 0 joins the patches of a row, block 1 those of a column: after both, each patch has seen all."""
    for depth, seen in ((1, "row"), (2, "all")):
        network = moved(DiT((1, 4, 4), patch=1, width=8, depth=depth, heads=2, axial=True).double())
        x = torch.randn(1, 1, 4, 4, dtype=F64, requires_grad=True)
        network(x, C[:1].double())[0, 0, 1, 2].backward()
        reached = x.grad[0, 0] != 0
        assert bool(reached[1].all())
        assert bool(reached.all()) == (seen == "all")
        assert depth == 2 or not bool(reached[[0, 2, 3]].any())


# ---------------------------------------------------------------------------------------------- video

IMAGES: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "UNet": (lambda shape, **more: UNet(shape, 8, (1, 2), 1, (4,), 2, patch=2, classes=3, **more), (2, 8, 16)),
    "UNet, axial": (lambda shape, **more: UNet(shape, 8, (1, 2), 1, (4,), 2, axial=True, classes=3, **more), (2, 8, 4)),
    "DiT": (lambda shape, **more: DiT(shape, width=8, depth=2, heads=2, classes=3, **more), (2, 4, 6)),
}


@pytest.mark.parametrize(("make", "shape"), IMAGES.values(), ids=IMAGES.keys())
def test_a_video_of_one_frame_and_one_that_stands_still_are_images(make, shape):
    torch.manual_seed(0)
    image = make(shape)
    torch.manual_seed(0)
    video = make((shape[0], 3, *shape[1:]), factorized=True)
    own = image.state_dict()
    # The weights of the image network, by the same names and from the same seed, beside those of time.
    assert all(torch.equal(weight, own[name]) for name, weight in video.state_dict().items() if name in own)
    assert {name.split(".")[0] for name in set(video.state_dict()) - set(own)} == {"temporal"}
    moved(video.double())
    image.double().load_state_dict({name: w for name, w in video.state_dict().items() if name in own})
    frames = torch.randn(2, shape[0], 3, *shape[1:], dtype=F64)
    cond = {"label": torch.tensor([1, -1])}
    for frame in frames.unbind(2):
        expected = image(frame, C.double(), **cond)[:, :, None]
        assert torch.equal(video(frame[:, :, None], C.double(), **cond), expected)
        still = video(frame[:, :, None].expand_as(frames), C.double(), **cond)
        torch.testing.assert_close(still, expected.expand_as(still), rtol=1e-10, atol=1e-10)
    # Frames that differ see each other, and their order.
    apart = torch.stack([image(frame, C.double(), **cond) for frame in frames.unbind(2)], dim=2)
    together = video(frames, C.double(), **cond)
    assert (together - apart).abs().max() > 1e-3
    assert (video(frames.flip(2), C.double(), **cond).flip(2) - together).abs().max() > 1e-3


def test_attention_between_frames_is_the_formula():
    layer, h = moved(FrameAttention(6, 2).double()), torch.randn(2, 4, 3, 6, dtype=F64)
    out = layer(h)
    times = sinusoidal(torch.arange(4, dtype=F64), 6)
    for b in range(2):
        for position in range(3):
            n = layer.norm(h[b, :, position])
            q, k = ((n + times.float().double()) @ layer.qk.weight.T + layer.qk.bias).split(6, 1)
            v, columns = n @ layer.value.weight.T, []
            for rows in torch.arange(6).split(3):
                weights = (q[:, rows] @ k[:, rows].T / 3**0.5).softmax(1)
                columns.append(weights @ v[:, rows] - v[:, rows])
            expected = h[b, :, position] + torch.cat(columns, 1) @ layer.project.weight.T
            # The times are embedded in float32: sines within 1e-7.
            torch.testing.assert_close(out[b, :, position], expected, rtol=1e-5, atol=1e-5)


def test_a_video_network_learns_from_the_weights_of_an_image_network():
    """At first it is the image network on each frame, and time is learnt from there."""
    image, video = UNet((1, 4, 4), 8, (1,), 1), UNet((1, 3, 4, 4), 8, (1,), 1, factorized=True)
    missing, unexpected = video.load_state_dict(moved(image).state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith("temporal.") for name in missing)
    x = torch.randn(2, 1, 3, 4, 4)
    torch.testing.assert_close(video(x, C)[:, :, 1], image(x[:, :, 1], C), rtol=1e-5, atol=1e-5)
    video(x, C).square().sum().backward()
    assert all(layer.project.weight.grad.abs().max() > 0 for layer in video.temporal)


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet((1, 2, 2, 2, 2)), r"shape must be \(channels, length\) or .* got \(1, 2, 2, 2, 2\)"),
        (
            lambda: UNet((1, 30)),
            r"signals of 30 values cannot be halved 2 times \(patch 1\); use a size divisible by 4",
        ),
        (lambda: UNet((1, 6, 8, 8), patch=4), r"volumes of 6x8x8 voxels cannot be cut into patches of 4x4x4"),
        (
            lambda: UNet((1, 8, 8), factorized=True),
            r"shape must be \(channels, depth, height, width\), .* got \(1, 8, 8\)",
        ),
        (lambda: UNet((1, 8), axial=1), r"axial must be true or false, got 1"),
        (lambda: UNet((1, 3, 8, 8), width=6, multipliers=(1,), factorized=True), r"heads must divide the 6 channels"),
        (lambda: DiT((4,)), r"shape must be .* got \(4,\)"),
        (lambda: DiT((1, 9), patch=2), r"patch: signals of 9 values cannot be cut into patches of 2; use 1, 3, 9\."),
        (lambda: DiT((1, 8), factorized=True), r"shape must be \(channels, depth, height, width\)"),
        (lambda: DiT((1, 8), factorized="yes"), r"factorized must be true or false, got 'yes'"),
        (lambda: UNetEncoder((1, 6), multipliers=(1, 2, 2), classes=2), "signals of 6 values cannot be halved 2 times"),
    ],
)
def test_shapes_and_options_that_do_not_fit(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (UNet((1, 8), 8, (1,), groups=2), "only images"),
        (UNet((1, 3, 8, 8), 8, (1,), groups=2, factorized=True), "only images"),
        (UNet((1, 8, 8), 8, (1,), 1, (8,), 2, groups=2, axial=True), "its attention is axial"),
        (DiT((1, 8), width=8, depth=1, heads=1), "takes images"),
        (DiT((1, 8, 8), width=8, depth=1, heads=1, axial=True), "takes images"),
    ],
)
def test_networks_that_diffusers_lacks_are_not_exported(network, message):
    from unidiff.interop.dit import dit_to_diffusers
    from unidiff.interop.unet import unet_to_diffusers

    with pytest.raises(ParameterError, match=message):
        (unet_to_diffusers if isinstance(network, ud.UNet) else dit_to_diffusers)(network)


# ---------------------------------------------------------------------------------------------- image conditions

SAMPLES = [(2, 12), (2, 4, 8), (2, 4, 8, 4)]


def uniform_numbers(count, generator_seed=0):
    generator = torch.Generator().manual_seed(generator_seed)
    return torch.rand(3, count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SAMPLES)
def test_super_resolution_measures_blocks_along_every_axis(shape):
    conditioning, x = ud.SuperResolution(2), torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = conditioning.measure(x, x[:, :0])
    small = x
    for axis in range(2, x.ndim):  # the mean over each pair of neighbours, axis after axis
        small = small.unflatten(axis, (-1, 2)).mean(axis + 1)
    expected = small
    for axis in range(2, x.ndim):
        expected = expected.repeat_interleave(2, axis)
    # A mean of at most 8 numbers below 1, added in another order: 8 roundings of 2^-24.
    torch.testing.assert_close(found, expected, rtol=0, atol=8 * 2**-24)
    assert conditioning.measurement_shape(shape) == tuple(small.shape[1:])
    torch.testing.assert_close(conditioning.from_user(small[0], shape), expected[0], rtol=0, atol=8 * 2**-24)
    torch.testing.assert_close(conditioning.from_samples(small, shape, uniform_numbers(1))["image"], expected)
    assert torch.equal(conditioning.baseline(torch.full((3, *shape), 0.25)), torch.full((3, *shape), 0.25))
    assert conditioning.built_for(SimpleNamespace(shape=shape)) == (ud.Image(2, shape[1:]),)
    with pytest.raises(ParameterError, match=r"conditioning.factor must be a divisor of \w+ of"):
        ud.SuperResolution(5).channels(shape)
    if len(shape) == 3:  # of images as it always was, bit for bit
        pooled = torch.nn.functional.avg_pool2d(x, 2)
        assert torch.equal(found, pooled.repeat_interleave(2, -2).repeat_interleave(2, -1))
        bicubic = torch.nn.functional.interpolate(pooled, scale_factor=2, mode="bicubic", align_corners=False)
        assert torch.equal(conditioning.baseline(x), bicubic.clamp(-1, 1))


@pytest.mark.parametrize("shape", SAMPLES)
def test_masks_of_every_rank(shape):
    masks = ud.RandomMasks(1, 0.25, 0.75)
    x, uniform = torch.rand(3, *shape) * 2 - 1, uniform_numbers(masks.draws - 1)
    known = masks.known(uniform, *shape[1:])
    assert known.shape == (3, *shape[1:])
    for sample in ~known:  # one box: the product of its shadows on the axes, each an interval of allowed length
        box = torch.ones_like(sample)
        for axis, side in enumerate(shape[1:]):
            shadow = sample.movedim(axis, 0).reshape(side, -1).any(1)
            covered = shadow.nonzero().flatten()
            assert round(0.25 * side) <= len(covered) <= round(0.75 * side)
            assert covered[-1] - covered[0] == len(covered) - 1
            box &= shadow.reshape(-1, *[1] * (sample.ndim - 1 - axis))
        assert torch.equal(sample, box)
    image = masks.measure(x, uniform)
    assert torch.equal(masks.compose(torch.zeros_like(x), {"image": image}), x.where(known[:, None], torch.zeros(())))
    assert torch.equal(masks.baseline(image).where(known[:, None], x), x)
    # Along the last axes nothing depends on the rank.
    if len(shape) == 4:
        flat = masks.known(uniform, *shape[2:])
        assert torch.equal((~known).any(1), ~flat)


def test_depth_of_a_box_is_independent_of_its_height():
    # Uniform over 5 lengths of depth and 5 of height: 25 pairs, each n / 25 times, to five standard deviations.
    count, masks = 20000, ud.RandomMasks(1, 1 / 6, 5 / 6)
    generator = torch.Generator().manual_seed(0)
    hidden = ~masks.known(torch.rand(count, 4, generator=generator, dtype=torch.float64), 6, 6, 1)
    pairs = hidden.any(2).any(2).sum(1) * 6 + hidden.any(1).any(2).sum(1)
    counts = pairs.bincount(minlength=36).reshape(6, 6)[1:, 1:]
    assert ((counts - count / 25).abs() < 5 * (count / 25) ** 0.5).all()


@pytest.mark.parametrize("shape", SAMPLES)
@pytest.mark.parametrize("conditioning", [ud.SuperResolution(2), ud.RandomMasks()], ids=lambda c: type(c).__name__)
def test_image_conditions_of_every_rank_are_trained_on(shape, conditioning):
    source = ud.TensorSource(torch.rand(4, *shape) * 2 - 1, "x")
    backbone = ud.UNet(shape, width=8, multipliers=(1,), blocks=1, image=conditioning.channels(shape))
    model = ud.NeuralDenoiser(ud.DDPM(10), ud.Eps(), backbone)
    settings = ud.Training(steps=1, batch=2, tensorboard=False, precision="fp32")
    trained = ud.train(model, source, ud.Denoising(), settings, conditioning=conditioning, report=print)
    image = conditioning.measure(source.batch(torch.arange(2)), uniform_numbers(conditioning.draws - 1)[:2])
    assert ud.sample(trained, ud.DDIM(), ud.Uniform(2), seeds=2, image=image).x.shape == (2, *shape)


def test_colours_of_every_rank_and_vectors_of_none():
    x = torch.rand(2, 3, 4)
    assert ud.Colorization().measure(x, x[:, :0]).shape == (2, 1, 4)
    assert ud.Colorization().baseline(x[:, :1]).shape == (2, 3, 4)
    with pytest.raises(DataError, match="must be used with signals, images or volumes"):
        ud.SuperResolution(2).check(ud.TensorSource(torch.zeros(4, 2), "points"), None)
