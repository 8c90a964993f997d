"""Contracts of every Data and Source, the digits, the tensor source and the toy densities."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from unidiff.data import Dataset, OpenDataset, TensorSource
from unidiff.data.array import ArrayFile
from unidiff.data.digits import Digits
from unidiff.data.folder import ImageFolder
from unidiff.data.mnist import MNIST, FashionMNIST
from unidiff.data.notes import Notes
from unidiff.data.toy import Checkerboard, Ring, Spiral, TwoMoons
from unidiff.errors import ParameterError

TOYS = [Ring(), TwoMoons(), Spiral(), Checkerboard(), Notes(200)]


@pytest.fixture
def data(request, tmp_path) -> Dataset:
    """A Data object; those that need files get small ones written for them."""
    if isinstance(request.param, Dataset):
        return request.param
    random = np.random.default_rng(0)
    if request.param == "array":
        np.save(tmp_path / "x.npy", random.integers(0, 256, (30, 3, 9, 9), dtype=np.uint8))
        np.save(tmp_path / "y.npy", np.arange(30) % 4)
        return ArrayFile(str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy"))
    for i in range(30):
        (tmp_path / f"class {i % 3}").mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(tmp_path / f"class {i % 3}/{i}.png")
    return ImageFolder(str(tmp_path), size=8)


EVERY = pytest.mark.parametrize("data", [Digits(), Digits(12), *TOYS, "array", "folder"], indirect=True, ids=str)


@EVERY
@pytest.mark.parametrize("split", ["train", "test"])
def test_source_keeps_the_contract(data, split):
    source = data.open(split)
    assert isinstance(source, OpenDataset)
    assert source.shape == data.shape
    assert source.name.endswith(split)
    assert source.stand_in is None
    assert source.checksum.split(":")[0] in ("md5", "sha256")
    indices = torch.tensor([len(source) - 1, 0, 1, 0])
    batch = source.batch(indices)
    assert batch.dtype == torch.float32
    assert batch.shape == (4, *data.shape)
    assert torch.equal(batch[1], batch[3])
    # One batch is its two halves, prefetched or not, opened again or not, moved or not.
    source.prefetch(indices)
    assert torch.equal(source.batch(indices), batch)
    halves = torch.cat([data.open(split).to("cpu").batch(half) for half in indices.split(2)])
    assert torch.equal(halves, batch)
    if len(data.shape) == 3:
        assert batch.abs().max() <= 1
    if source.labels is not None:
        assert source.labels.dtype == torch.int64
        assert source.labels.shape == (len(source),)
        assert source.labels.min() >= 0
        if data.classes is not None:
            assert set(source.labels.tolist()) == set(range(data.classes))


@EVERY
def test_the_splits_share_no_sample(data):
    seen = [
        {row.numpy().tobytes() for row in source.batch(torch.arange(len(source)))}
        for source in (data.open("train"), data.open("test"))
    ]
    assert not seen[0] & seen[1]
    assert data.open("train").checksum == data.open("train").checksum


@EVERY
def test_an_unknown_split_is_refused(data):
    with pytest.raises(ParameterError, match="validation"):
        data.open("validation")


def test_data_are_values():
    assert Digits(28) == Digits(28) != Digits(32)
    assert eval(repr(MNIST(size=32, fallback="digits"))) == MNIST(size=32, fallback="digits")


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: Digits(7), "size"),
        (lambda: Digits(8.0), "size"),
        (lambda: MNIST(size=True), "size"),
        (lambda: MNIST(fallback="cifar"), "fallback"),
        (lambda: FashionMNIST(fallback=3), "fallback"),
        (lambda: ImageFolder("x", channels=2), "channels"),
        (lambda: ImageFolder("x", flip=1), "flip"),
        (lambda: ArrayFile("x.npy", low=0.0), "high"),
        (lambda: ArrayFile("x.npy", low=1.0, high=1.0), "high"),
        (lambda: ArrayFile("x.npy", low=math.nan, high=1.0), "low"),
        (lambda: Ring(components=0), "components"),
        (lambda: Ring(std=math.nan), "std"),
        (lambda: Ring(radius=-1.0), "radius"),
        (lambda: TwoMoons(noise=-0.1), "noise"),
        (lambda: Spiral(turns=0), "turns"),
        (lambda: Checkerboard(cells=0), "cells"),
        (lambda: Checkerboard(count=0), "count"),
        (lambda: Spiral(seed=-1), "seed"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(make, parameter):
    with pytest.raises(ParameterError) as caught:
        make()
    assert caught.value.parameter == parameter


def test_grey_values_map_exactly():
    values = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    batch = TensorSource(values, "ramp").batch(torch.arange(256)).flatten()
    assert batch[0] == -1
    assert batch[255] == 1
    # One rounding each of x / 127.5 and of the difference: half an ulp of 2 and half an ulp of 1 in float32.
    exact = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    assert (batch.double() - exact).abs().max() <= 2**-23 + 2**-24


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found = load_digits()
    train, test = Digits().open("train"), Digits().open("test")
    assert (len(train), len(test)) == (1500, 297)
    pixels = torch.cat([train.values, test.values]).squeeze(1).double() * 16 / 255
    assert np.array_equal(pixels.round().numpy(), found.images)  # 8 bits lose nothing of 17 grey values
    assert torch.cat([train.labels, test.labels]).tolist() == found.target.tolist()


def test_enlarging_keeps_a_plain_image_plain_and_stays_in_range():
    from unidiff.data.image import resize

    plain = torch.full((3, 1, 8, 8), 77, dtype=torch.uint8)
    assert (resize(plain, 28) == 77).all()
    # Bilinear, pixel centres at half-integers: doubling [0, 255] gives 0, 63.75, 191.25, 255 along the row.
    step = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 1, 2, 2).contiguous()
    assert resize(step, 4)[0, 0, 0].tolist() == [0, 64, 191, 255]


# Bounds on sample moments: a mean of n independent values of variance v has standard deviation sqrt(v / n). Five of
# them are allowed, which a correct sampler passes with probability 1 - 6e-7 for each figure (seeds are fixed anyway).
def within(values: torch.Tensor, mean: float, variance: float) -> bool:
    return abs(values.mean().item() - mean) <= 5 * math.sqrt(variance / len(values))


@pytest.mark.parametrize("split", ["train", "test"])
def test_ring_has_its_exact_moments(split):
    ring = Ring(components=5, radius=0.6, std=0.1, count=40000, seed=3)
    source = ring.open(split)
    x, y = source.values.double().T
    v = ring.radius**2 / 2 + ring.std**2  # variance of each coordinate
    assert within(x, 0, v)
    assert within(y, 0, v)
    # x = m + s e with m uniform on the five first coordinates: E x^4 = E m^4 + 6 s^2 E m^2 + 3 s^4, and for a regular
    # pentagon E m^2 = r^2/2, E m^4 = 3 r^4/8 (sums of cos over five points vanish up to the fourth harmonic).
    r, s = ring.radius, ring.std
    fourth = 3 * r**4 / 8 + 3 * s**2 * r**2 + 3 * s**4
    assert within(x**2, v, fourth - v**2)
    assert within(y**2, v, fourth - v**2)
    # E (xy)^2 = E mx^2 my^2 + s^2 r^2 + s^4, with E mx^2 my^2 = r^4/8.
    assert within(x * y, 0, r**4 / 8 + s**2 * r**2 + s**4)
    noise = source.values.double() - ring.means[source.labels]
    assert within(noise.flatten() ** 2, s**2, 2 * s**4)


def test_ring_means_lie_on_the_circle():
    means = Ring(components=8, radius=0.7).means
    assert means.shape == (8, 2)
    assert means[0].tolist() == [0.7, 0.0]
    torch.testing.assert_close(means.norm(dim=1), torch.full((8,), 0.7, dtype=torch.float64), rtol=1e-14, atol=0)


def test_two_moons_have_mean_zero_and_their_exact_second_moments():
    source = TwoMoons(noise=0.05, count=40000, seed=1).open()
    x, y = source.values.double().T
    # Upper moon, before noise: x = (cos a - 1/2) / 1.5, so E x = -1/3, E x^2 = (1/2 + 1/4) / 2.25 = 1/3; the lower moon
    # mirrors it. y = +-(sin a - 1/4) / 1.5: E y^2 = (1/2 - 1/pi + 1/16) / 2.25.
    vx = 1 / 3 + 0.05**2
    vy = (1 / 2 - 1 / math.pi + 1 / 16) / 2.25 + 0.05**2
    assert within(x, 0, vx)
    assert within(y, 0, vy)
    # Within five noises of [-1, 1], x^2 < 1.5625, so its variance is less than 1.5625 vx.
    assert within(x**2, vx, 1.5625 * vx)
    assert within(y**2, vy, 1.5625 * vy)
    assert within(x[source.labels == 0], -1 / 3, vx)


def test_checkerboard_is_uniform_on_the_dark_squares():
    points = Checkerboard(cells=4, count=40000, seed=2).open().values.double()
    square = ((points + 1) * 2).floor().long().clamp(0, 3)
    assert (square.sum(dim=1) % 2 == 0).all()
    for coordinate in points.T:  # uniform on [-1, 1]: E x^2 = 1/3, Var x^2 = 1/5 - 1/9
        assert within(coordinate, 0, 1 / 3)
        assert within(coordinate**2, 1 / 3, 1 / 5 - 1 / 9)


def test_spiral_lies_on_its_curve():
    spiral = Spiral(turns=1.5, noise=0.0, count=5000)
    x, y = spiral.open().values.double().T
    radius = torch.hypot(x, y)
    angle = 2 * math.pi * 1.5 * radius / 0.95
    # Coordinates are float32: an error of 1e-7 in the radius turns into 1e-6 in the angle.
    assert (torch.stack([radius * angle.cos() - x, radius * angle.sin() - y]).abs() < 1e-5).all()
    assert within((radius / 0.95) ** 2, 1 / 2, 1 / 12)  # the square of the reach is uniform on [0, 1]


def test_seeds_and_splits_are_different_streams():
    draws = [Ring(seed=0).open(), Ring(seed=1).open(), Ring(seed=0).open("test")]
    assert len({source.checksum for source in draws}) == 3


# --- tensors


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (torch.rand(20, 1, 8, 8) * 255, r"must be in \[-1, 1\] for images, or uint8 from 0 to 255, got values from"),
        (torch.randint(0, 256, (20, 1, 8, 8)), "must be a tensor of uint8 or floating-point numbers, got torch.int64"),
        (torch.zeros(20, 2, dtype=torch.bool), "must be a tensor of uint8 or floating-point numbers, got torch.bool"),
        (torch.zeros(0, 1, 8, 8), r"with N >= 1, got \(0, 1, 8, 8\)"),
        (torch.zeros(20), r"with N >= 1, got \(20,\)"),
        (torch.tensor([[0.0, math.nan]]), "must be finite"),
        (torch.tensor([[0.0, math.inf]]), "must be finite"),
        ([["a"]], "must be a tensor or an array of numbers, got "),
    ],
)
def test_tensors_that_cannot_be_trained_on_are_an_error(values, problem):
    with pytest.raises(ParameterError, match=problem):
        TensorSource(values, "x")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_tensors_become_float32(dtype):
    values = torch.linspace(-1, 1, 20, dtype=dtype).reshape(10, 2)
    assert torch.equal(TensorSource(values, "x").batch(torch.arange(10)), values.float())


@pytest.mark.parametrize("values", [torch.randn(20, 4, 8, 8) * 3, torch.rand(20, 2) * 255, torch.rand(20, 1, 8, 8)])
def test_latents_and_vectors_may_be_larger_than_one(values):
    assert torch.equal(TensorSource(values, "x").values, values)


def test_notes_have_the_pitch_and_the_harmonics_that_their_class_names():
    source = Notes(2000).open()
    x = source.batch(torch.arange(2000)).double()[:, 0]
    assert float(x.abs().max()) <= 1
    assert float(x.abs().amax(1).min()) >= 0.5 - 1e-6
    spectrum = torch.fft.rfft(x).abs()
    for label, name in enumerate(source.class_names):
        pitch, instrument = name.split()
        of_class = spectrum[source.labels == label]
        assert len(of_class) > 40  # 83 on average, with a standard deviation of 9
        assert (of_class.argmax(1) == int(pitch)).all()
        # Decay d spreads each line as d / (d + 2 pi i j) at j bins from it, alike for all harmonics, so the ratios are
        # those of the amplitudes but for what the other lines, and their mirror images, leave there: at d = 2 the sum
        # of a_m / pi (1 / (|k - m| f) + 1 / ((k + m) f)) is below 0.035, and at the fundamental half of that.
        for k, amplitude in enumerate(Notes.INSTRUMENTS[instrument], 1):
            ratio = of_class[:, k * int(pitch)] / of_class[:, int(pitch)]
            assert (ratio - amplitude).abs().max() < 0.05
    assert (Notes(5).open().batch(torch.arange(5)) == Notes(5).open().batch(torch.arange(5))).all()
    assert Notes(5, seed=1).open().checksum != Notes(5).open().checksum


@pytest.mark.parametrize(("kind", "key"), [
    (Ring, "radius"), (Ring, "std"), (TwoMoons, "noise"), (Spiral, "noise"), (Spiral, "turns"),
])  # fmt: skip
@pytest.mark.parametrize("value", [1e300, 1e16, math.inf, math.nan, -1.0])
def test_lengths_beyond_float32_name_their_key(kind, key, value):
    with pytest.raises(ParameterError, match=rf"^{key} must be a number .*1e\+15, got {re.escape(str(value))}"):
        kind(**{key: value})
    assert bool(kind(**{key: 1e15, "count": 8}).open().values.square().isfinite().all())
