"""Diffusion in latents: the exact model of a linear codec, the cache, runs that are whole by themselves, commands."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from codecs_small import KINDS, VAE
from tiny import DIGITS, equal, refused, unidiff, write
from torch import nn

import unidiff as ud
from unidiff.codec.folder import CONFIG, KEPT, WEIGHTS
from unidiff.data.base import TensorSource
from unidiff.errors import ParameterError, RecipeError, RunError

LDM = {
    **DIGITS,
    "data": {"type": "Latent", "data": {"type": "Digits"}, "codec": "runs/vae"},
    "training": {**DIGITS["training"], "steps": 2, "preview_every": 1, "tensorboard": False},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    return tmp_path / "cache/latents"


@pytest.fixture
def codec(tmp_path):
    torch.manual_seed(0)
    made = KINDS[3].build(1)
    made.set_scale(0.5)
    made.save(tmp_path / "codec")
    return tmp_path / "codec"


# ---------------------------------------------------------------------------------------------- a linear codec


class AutoencoderTiny(nn.Module):
    """In place of diffusers' class of this name: h = W x, x = W^T h with orthonormal rows W, on pictures of 2x2."""

    def __init__(self, directions):
        super().__init__()
        self.weight = nn.Parameter(directions, requires_grad=False)
        self.config = {"in_channels": 1, "latent_channels": len(directions), "encoder_block_out_channels": (1, 1)}

    def register_to_config(self, **values):
        self.config.update(values)

    def encode(self, x):
        return SimpleNamespace(latents=(x.flatten(1) @ self.weight.T)[:, :, None, None])

    def decode(self, h):
        return SimpleNamespace(sample=(h.flatten(1) @ self.weight).reshape(-1, 1, 2, 2))


class Gaussian(ud.Denoiser):
    """The exact denoiser of N(m, C): in the axes of C, E[x0 | u] = m + gain (u - alpha m)."""

    def __init__(self, process, mean, covariance):
        super().__init__()
        self.process, self.mean = process, mean
        self.values, self.axes = torch.linalg.eigh(covariance)

    def forward(self, u, level, **cond):
        gain = level.alpha * self.values / (level.alpha**2 * self.values + level.sigma**2)
        along = (u.flatten(1) - level.alpha * self.mean) @ self.axes
        x0 = (self.mean + (gain * along) @ self.axes.T).reshape(u.shape)
        return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def test_a_linear_codec_gives_the_projected_gaussian():
    """x ~ N(m, C) in four dimensions, two orthonormal rows W, P = W^T W: what is decoded is N(P m, P C P)."""
    generator, N = torch.Generator().manual_seed(0), 10_000
    directions = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q[:2]
    mixing, mean = 0.3 * torch.randn(4, 4, generator=generator), torch.tensor([0.5, -0.2, 0.1, 0.3])
    covariance = mixing @ mixing.T
    x = (mean + torch.randn(N, 4, generator=generator) @ mixing.T).reshape(N, 1, 2, 2)
    codec = ud.codec.Autoencoder(AutoencoderTiny(directions))
    codec.set_scale(ud.codec.measure_latents(codec, TensorSource(x, "Gaussian")).scale)
    k = codec.layout.scale
    law, centre = k**2 * directions @ covariance @ directions.T, k * directions @ mean
    # The variance of all numbers of the latents:  has a relative error of about sqrt(2 / 20,000), times 5.
    assert abs(float(law.trace() / 2 + (centre - centre.mean()).square().mean()) - 1) < 0.05
    model = Gaussian(ud.VPSDE(), centre.double(), law.double())
    z = ud.sample(model, ud.ExponentialAdams(), ud.Tapered(50), (2, 1, 1), N, dtype=torch.float64).x.float()
    y = codec.decode(z).flatten(1)
    projector = directions.T @ directions
    target = projector @ covariance @ projector
    scale = target.diagonal()
    # Standard errors: sqrt(v / N) of a mean, sqrt((C_ii C_jj + C_ij^2) / N) of a covariance; five of them. The solver,
    # of order 4 in 50 steps, leaves less than a thousandth.
    assert ((y.mean(0) - projector @ mean).abs() < 5 * (scale / N).sqrt() + 1e-3).all()
    error = ((scale[:, None] * scale + target.square()) / N).sqrt()
    assert ((torch.cov(y.T) - target).abs() < 5 * error + 1e-3).all()
    assert ((y - y @ projector).abs() < 1e-5).all()  # nothing leaves the plane
    torch.testing.assert_close(codec.encode(y.reshape(N, 1, 2, 2)), z, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------- data and cache


def test_latents_are_the_codecs(codec):
    data = ud.data.Latent(ud.data.Digits(), codec)
    assert (data.shape, data.decoded_shape, data.classes, data.coded) == ((3, 4, 4), (1, 8, 8), 10, True)
    source, pictures = data.open("test"), ud.data.Digits().open("test")
    network = ud.codec.load_codec(codec)
    x = pictures.batch(torch.arange(len(pictures)))
    assert torch.equal(source.values, network.encode(x))
    assert torch.equal(source.labels, pictures.labels)
    assert source.class_names == pictures.class_names
    assert source.name == "latents of Digits test"
    assert source.checksum not in (pictures.checksum, data.open("train").checksum)
    assert torch.equal(data.encode(x[:3]), source.values[:3])
    assert torch.equal(data.decode(source.values[:3]), network.decode(source.values[:3]))
    plain = ud.data.Digits()  # other data are what people look at
    assert (plain.decode(x) is x, plain.encode(x) is x, plain.kept(), plain.coded) == (True, True, {}, False)


def test_latents_are_encoded_once_and_never_stale(codec, cache, monkeypatch):
    data = ud.data.Latent(ud.data.Digits(), codec)
    encoded = []
    encode = ud.data.Latent.encode
    monkeypatch.setattr(ud.data.Latent, "encode", lambda self, x: encoded.append(1) or encode(self, x))

    def made(data, split="train"):
        encoded.clear()
        values = data.open(split).values
        return values, bool(encoded)

    first, new = made(data)
    assert new
    (path,) = cache.iterdir()  # one file, nothing half-written
    again, new = made(data)
    assert not new
    assert torch.equal(first, again)
    content = path.read_bytes()
    for damage in (content[:-1] + bytes([content[-1] ^ 1]), content[:50], b""):
        path.write_bytes(damage)
        again, new = made(data)
        assert new
        assert torch.equal(first, again)
        assert path.read_bytes() == content
    assert made(data, "test")[1]
    assert made(ud.data.Latent(ud.data.Digits(16), codec))[1]  # the same pixels in the checksum, another size
    monkeypatch.setattr("unidiff.data.latent.save_file", lambda *words: (_ for _ in ()).throw(OSError("full")))
    path.unlink()
    before = sorted(cache.iterdir())
    assert made(data)[1]
    assert sorted(cache.iterdir()) == before


def test_another_codec_and_other_arguments_are_other_latents(codec, tmp_path):
    """With the cache, and the same pictures by checksum: the scale, the weights, the range of the same bytes."""
    first = ud.data.Latent(ud.data.Digits(), codec).open()
    network = ud.codec.load_codec(codec)
    network.set_scale(1.0)  # it was 0.5
    network.save(codec)
    scaled = ud.data.Latent(ud.data.Digits(), codec).open()
    assert torch.equal(scaled.values, 2 * first.values)
    next(network.model.encoder.parameters()).mul_(0.5)
    network.save(codec)
    changed = ud.data.Latent(ud.data.Digits(), codec).open()
    assert not torch.equal(changed.values, scaled.values)
    assert len({first.checksum, scaled.checksum, changed.checksum}) == 3  # a run goes on with its own alone
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 20 * 64, dtype="float32").reshape(20, 1, 8, 8))
    for high in (1.0, 2.0):
        pictures = ud.data.ArrayFile(tmp_path / "x.npy", low=0.0, high=high)
        x = pictures.open().batch(torch.arange(18))
        assert torch.equal(ud.data.Latent(pictures, codec).open().values, network.encode(x))


def test_a_changed_picture_is_encoded_again(codec, tmp_path):
    from PIL import Image

    for number in range(20):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number:02d}.bmp")
    data = ud.data.Latent(ud.data.ImageFolder(tmp_path, size=8, channels=1), codec)
    before = data.open().values
    Image.new("L", (8, 8), 255).save(tmp_path / "00.bmp")  # of the same size in bytes
    os.utime(tmp_path / "00.bmp", ns=(1, 1))
    after = data.open().values
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])


def test_latents_that_cannot_be_are_refused(codec, tmp_path):
    with pytest.raises(ParameterError, match="takes images with 1 channel"):
        _ = ud.data.Latent(ud.data.ImageFolder("x", channels=3), codec).shape
    with pytest.raises(ParameterError, match="divisible by 2"):
        _ = ud.data.Latent(ud.data.Digits(9), codec).shape
    with pytest.raises(ParameterError, match="not encoded yet"):
        ud.data.Latent(ud.data.Latent(ud.data.Digits(), codec), codec)
    with pytest.raises(RecipeError, match=r"data: codec: 'runs/vae' does not exist.*creates it"):
        ud.load_recipe(write(tmp_path, LDM))
    stand_in = ud.data.Latent(
        ud.data.ImageFolder(tmp_path / "none", size=8, channels=1, fallback="digits"), codec
    ).open()
    assert "8x8 digits" in stand_in.stand_in


# ---------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    assert unidiff("run", write(folder, VAE, "vae.yaml"), "--out", folder / "codec").code == 0
    recipe = {**LDM, "data": {**LDM["data"], "codec": str(folder / "codec"), "cache": False}}
    result = unidiff("run", write(folder, recipe), "--out", folder / "ldm", "--json")
    assert result.code == 0, result.err
    return folder, json.loads(result.out.splitlines()[-1])


@pytest.mark.slow  # 5 s
def test_a_run_directory_alone_is_enough(runs, tmp_path):
    folder, summary = runs
    assert summary["data"]["shape"] == [2, 4, 4]
    for name in (CONFIG, WEIGHTS):
        assert (folder / "ldm" / KEPT / name).read_bytes() == (folder / "codec" / KEPT / name).read_bytes()
    expected = ud.load(folder / "ldm", device="cpu").sample().x
    assert expected.shape == (4, 1, 8, 8)
    assert (folder / "ldm/samples/step-00000001.png").is_file()
    shutil.copytree(folder / "ldm", tmp_path / "moved")
    (folder / "codec").rename(folder / "gone")
    try:
        with pytest.raises(RecipeError, match="does not exist"):
            ud.load_recipe(folder / "tiny.yaml")
        said = refused("run", folder / "tiny.yaml", "--out", tmp_path / "moved", "--resume")
        assert f"`unidiff run {tmp_path / 'moved/recipe.yaml'} --resume`" in said
        run = ud.load(tmp_path / "moved", device="cpu")
        assert torch.equal(run.sample().x, expected)
        z = ud.sample(run.denoiser, run.recipe.sampling.solver, run.recipe.sampling.grid, (2, 4, 4), range(4)).x
        torch.testing.assert_close(run.recipe.data.decode(z), expected, rtol=0, atol=1e-5)  # one batch either way
        assert unidiff("check", tmp_path / "moved/recipe.yaml").code == 0
        array = tmp_path / "x.npy"
        assert unidiff("sample", tmp_path / "moved", "--array", array).code == 0
        torch.testing.assert_close(torch.from_numpy(np.load(array)), expected.clamp(-1, 1), rtol=0, atol=1e-5)
    finally:
        (folder / "gone").rename(folder / "codec")
    weights = folder / "codec" / KEPT / CONFIG
    config = weights.read_text()
    try:  # another scale is another codec: a run goes on with its own
        weights.write_text(config.replace('"scaling_factor": ', '"scaling_factor": 1'))
        again = unidiff("run", folder / "tiny.yaml", "--out", tmp_path / "moved", "--resume")
        assert again.code == 0, again.err
        assert torch.equal(ud.load(tmp_path / "moved", device="cpu").sample().x, expected)
    finally:
        weights.write_text(config)


@pytest.mark.slow  # several runs
def test_a_run_has_the_codec_that_it_says(runs, tmp_path):
    """A new run from a run's recipe takes the codec kept there, or the one named; a run that has lost its own stops."""
    folder, _ = runs
    own, other = folder / "ldm", tmp_path / "other"
    shutil.copytree(folder / "codec" / KEPT, other)
    config = (other / CONFIG).read_text().replace('"scaling_factor": ', '"scaling_factor": 1')
    (other / CONFIG).write_text(config)
    kept = ud.load_recipe(own / "recipe.yaml", ["data.cache=true", "data.data.size=16"])
    assert kept.data.folder == own / KEPT
    whole = f"data={{type: Latent, data: Digits, codec: {other}}}"
    for override in (f"data.codec={other}", whole):
        assert ud.load_recipe(own / "recipe.yaml", [override]).data.folder == other
    made = unidiff("run", own / "recipe.yaml", "--set", f"data.codec={other}", "--out", tmp_path / "new")
    assert made.code == 0, made.err
    assert (tmp_path / "new" / KEPT / CONFIG).read_text() == config
    assert str(other) in (tmp_path / "new/recipe.yaml").read_text()
    said = refused("run", own / "recipe.yaml", "--set", f"data.codec={other}", "--resume")
    assert "another recipe: data.codec was" in said
    (tmp_path / "new" / KEPT / CONFIG).write_text(config.replace('"scaling_factor": 1', '"scaling_factor": '))
    with pytest.raises(RunError, match=r"codec/config.json: the file is missing or has changed"):
        ud.load(tmp_path / "new", device="cpu")
    assert "was trained on latents of Digits train" in refused("run", tmp_path / "new/recipe.yaml", "--resume")
    shutil.rmtree(tmp_path / "new" / KEPT)
    with pytest.raises(RunError, match="needs the original file"):
        ud.load(tmp_path / "new", device="cpu")
    assert "the codec of this run is missing" in refused("run", tmp_path / "new/recipe.yaml", "--resume")


@pytest.mark.slow  # several runs
def test_commands_on_a_latent_run(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.tasks.comparison_models._MOST_STEPS", 32)
    folder, _ = runs
    picture = tmp_path / "x.npy"
    x = ud.data.Digits().open("test").batch(torch.tensor([3]))
    np.save(picture, x[0].numpy())
    edited = tmp_path / "y.npy"
    result = unidiff(
        "edit", folder / "ldm", picture, "--strength", 0, "--count", 1, "--array", edited, "--out", tmp_path / "e.png"
    )
    assert result.code == 0, result.err
    data = ud.load(folder / "ldm", device="cpu").recipe.data
    expected = data.decode(data.encode(x)).clamp(-1, 1)  # strength 0: the picture as the codec has it
    torch.testing.assert_close(torch.from_numpy(np.load(edited)), expected, rtol=0, atol=1e-5)
    words = (folder / "ldm", picture, picture)
    assert "does not preserve the known pixels exactly" in refused("inpaint", *words)
    assert "whose density is not the likelihood of images" in refused("likelihood", folder / "ldm")
    words = ("--solvers", "ddim@uniform", "--nfe", "2", "--count", 20, "--out", tmp_path / "cmp")
    result = unidiff("compare", folder / "ldm", *words, "--json")
    assert result.code == 0, result.err
    assert "latents of Digits test" in result.out
    assert equal(dict(data.network().state_dict()), dict(ud.codec.load_codec(folder / "codec").state_dict()))


@pytest.mark.slow  # a second or more
def test_a_dry_run_encodes_nothing(codec, tmp_path, monkeypatch):
    path = write(tmp_path, {**LDM, "data": {**LDM["data"], "codec": str(codec)}})
    encoded = []
    plain = ud.codec.Autoencoder.encode
    monkeypatch.setattr(ud.codec.Autoencoder, "encode", lambda self, x: encoded.append(len(x)) or plain(self, x))
    foreseen = json.loads(unidiff("run", path, "--out", tmp_path / "run", "--dry-run", "--json").out)
    assert not encoded
    assert json.loads(unidiff("run", path, "--out", tmp_path / "run", "--json").out)["data"] == foreseen["data"]
    assert encoded
