"""Codecs: the divergence, the losses, folders read and refused, tiles, latents measured; training them."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from codecs_small import KINDS, VAE
from tiny import RING, equal, metrics, refused, unidiff, write
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import conv1d, conv3d, conv_transpose1d, conv_transpose3d

import unidiff as ud
from unidiff.codec.codec import AutoencoderOutput, _tiles
from unidiff.codec.folder import CONFIG, WEIGHTS, codec_folder, digest, read_layout
from unidiff.codec.ranks import RANK
from unidiff.errors import DataError, ParameterError, RecipeError, RunError
from unidiff.recipe.registry import PUBLIC

every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


def test_every_codec_is_tested():
    assert set(PUBLIC.choices(ud.codec.AutoencoderConfig).values()) == {type(kind) for kind in KINDS}


def coded(x, y, nats=0.0, commitment=0.0):
    return AutoencoderOutput(y, torch.full((len(x),), nats), torch.full((len(x),), commitment))


def test_the_divergence_is_that_of_gaussians():
    torch.manual_seed(0)
    codec = KINDS[0].build(1)
    x, eps = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 3, 4, 4)
    coding = codec(x, eps)
    posterior = codec.model.encode(x).latent_dist
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).flatten(1).sum(1)
    # Sums of 48 terms of about 0.1: float32 leaves 48 * 6e-8 relative.
    torch.testing.assert_close(coding.nats, expected, rtol=1e-5, atol=1e-6)
    y = codec.model.decode(posterior.mean + posterior.std * eps).sample
    assert torch.equal(coding.x, y)


def test_losses_by_hand():
    x = torch.zeros(2, 1, 2, 3)
    y = x.clone()
    y[0, 0, 0, 1] = 2.0  # one wrong pixel: 1 difference down, 2 to the right, each of 2
    plain = ud.codec.Reconstruction().losses(coded(x, y), x)
    torch.testing.assert_close(plain, torch.tensor([4.0 / 6, 0.0]))
    absolute = ud.codec.Reconstruction(ud.codec.AbsoluteError(), edge=0.5).losses(coded(x, y), x)
    torch.testing.assert_close(absolute, torch.tensor([(2 + 0.5 * 3 * 2) / 6, 0.0]))
    squared = ud.codec.Reconstruction(edge=0.5).losses(coded(x, y), x)
    torch.testing.assert_close(squared, torch.tensor([(4 + 0.5 * 3 * 4) / 6, 0.0]))
    with_nats = ud.codec.Variational(kl=0.1).losses(coded(x, y, nats=30.0), x)
    torch.testing.assert_close(with_nats, torch.tensor([7.0 / 6, 0.5]))
    with_codes = ud.codec.Commitment(commitment=0.2).losses(coded(x, y, commitment=3.0), x)
    torch.testing.assert_close(with_codes, torch.tensor([4.0 / 6 + 0.6, 0.6]))


def test_twice_the_variance_is_the_weight_of_the_bound():
    # -log N(x; y, s^2) + KL, times 2 s^2 and without its constant, is the loss times the number of pixels.
    x, y, s = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4), 0.3
    bound = -Normal(y, s).log_prob(x).flatten(1).sum(1) + 7.0
    constant = 16 * 0.5 * math.log(2 * math.pi * s**2)
    loss = ud.codec.Variational(kl=2 * s**2).losses(coded(x, y, nats=7.0), x)
    torch.testing.assert_close(16 * loss, 2 * s**2 * (bound - constant), rtol=1e-5, atol=0)


@every
def test_codecs_are_saved_and_read_bit_for_bit(kind, tmp_path):
    torch.manual_seed(0)
    codec = kind.build(1)
    codec.set_scale(0.37)
    (tmp_path / "codec/mine").mkdir(parents=True)
    (tmp_path / "codec/mine/notes.txt").write_text("kept")
    codec.save(tmp_path / "codec")
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]
    assert {path.name for path in (tmp_path / "codec").iterdir()} == {"mine", CONFIG, WEIGHTS}
    assert (tmp_path / "codec/mine/notes.txt").read_text() == "kept"
    again = ud.codec.load_codec(tmp_path / "codec")
    assert equal(dict(again.state_dict()), dict(codec.state_dict()))
    assert again.layout == codec.layout == read_layout(tmp_path / "codec")
    x = torch.rand(3, 1, 8, 12) * 2 - 1
    with torch.no_grad():
        z = again.encode(x)
        assert z.shape[1:] == again.layout.latent_shape((1, 8, 12))
        assert again.decode(z).shape == x.shape
        assert torch.equal(z, codec.encode(x))
        codec.set_scale(0.74)  # a power of 2: exact
        assert torch.equal(codec.encode(x), 2 * z)
        assert torch.equal(codec.decode(2 * z), again.decode(z))
    with pytest.raises(ParameterError, match="images with 1 channel"):
        codec.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ParameterError, match="divisible by 2; the data are 7x8"):
        codec.layout.latent_shape((1, 7, 8))


@every
def test_every_codec_has_a_loss_with_gradients(kind):
    torch.manual_seed(0)
    codec = kind.build(3)
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    kind.objective.check(type(kind).__name__)
    losses = kind.objective.losses(codec(x, torch.randn(4, *codec.layout.latent_shape((3, 8, 8)))), x)
    assert losses.shape == (4,)
    losses.mean().backward()
    missing = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    assert sum(p.numel() for p in kind.sketch(3).parameters()) == sum(p.numel() for p in codec.parameters())


def test_an_objective_refuses_codecs_without_such_latents():
    with pytest.raises(ParameterError, match="Variational is for AutoencoderKL, not for VQModel"):
        ud.codec.Variational().check("VQModel")


def test_tiles_are_the_whole():
    # AutoencoderTiny looks 4 + 5 / 2 positions far, less than the border of a tile, and has no normalisation: all that
    # differs is the order of sums. GroupNorm's mean and variance over a tile of thousands of numbers differ by a few
    # hundredths, and so does the picture, on average.
    torch.manual_seed(0)
    z = torch.randn(1, 3, 70, 130)
    with torch.no_grad():
        tiny = KINDS[3].build(1).eval()
        tiny.model.register_to_config(scaling_factor=0.5, shift_factor=0.25)
        whole = tiny.model.decode(2 * z + 0.25).sample
        assert (tiny.decode(z) - whole).abs().max() < 1e-5
        few = z[:, :, :64, :64]
        assert torch.equal(tiny.decode(few), tiny.model.decode(2 * few + 0.25).sample)
        x = whole[:, :, :8, :8]
        assert torch.equal(tiny.encode(x), (tiny.model.encode(x).latents - 0.25) * 0.5)
        kl = KINDS[0].build(1).eval()
        z = z[..., :20]
        whole = kl.model.decode(z).sample
        assert 0 < (kl.decode(z) - whole).square().mean().sqrt() < 0.1 * whole.std()


@torch.no_grad()
def test_latents_are_decoded_in_parts_of_bounded_size(monkeypatch):
    # Each is decoded as it would be alone: sums of at most 9 * 64 products in another order, in float64.
    torch.manual_seed(0)
    codec, taken = KINDS[3].build(1).eval().double(), []
    z = torch.randn(5, codec.layout.latent_channels, 2, 2, dtype=torch.float64)
    monkeypatch.setattr("unidiff.codec.codec._PIXELS", 2 * (2 * codec.layout.factor) ** 2)  # two images at once
    with codec.model.decoder.register_forward_pre_hook(lambda layer, given: taken.append(len(given[0]))):
        x = codec.decode(z)
    assert taken == [2, 2, 1]
    alone = torch.cat([codec.decode(one) for one in z.split(1)])
    torch.testing.assert_close(x, alone, rtol=0, atol=1e-11)


def spread(of_images, rank):
    """Weights of the network of rank + 1 axes that does the same along all but the first of them."""
    weights = {}
    for name, weight in of_images.items():
        name = name.replace(".layer.", ".")
        if weight.ndim == rank + 2 and "embedding" not in name:  # of a convolution: its middle along the new axis
            wide = weight.new_zeros(*weight.shape[:2], weight.shape[2], *weight.shape[2:])
            wide[:, :, weight.shape[2] // 2] = weight
            weight = wide
        weights[name] = weight
    return weights


RANKED = [
    ud.codec.AutoencoderKL(latent_channels=3, channels=(8, 16), attention=True),
    ud.codec.VQModel(latent_channels=3, channels=(8, 16), codes=16, attention=True),
    KINDS[3],
]


@pytest.mark.parametrize("kind", RANKED, ids=lambda kind: type(kind).__name__)
def test_a_signal_is_an_image_of_equal_rows_and_an_image_a_volume_of_equal_slices(kind, tmp_path):
    # Weights of a network of one more axis, 0 but in the middle along it, act on each row alone; equal rows have the
    # mean and variance of one, and attention to them is that to one. In float64 only the order of sums differs: some
    # 1e3 terms of 1e-16, magnified by the norms and by attention.
    torch.manual_seed(0)
    for rank, sizes in ((1, (8,)), (2, (8, 12))):
        small, large = kind.build(2, rank).double().eval(), kind.build(2, rank + 1).double().eval()
        names = {name.replace(".layer.", "."): name for name in large.state_dict()}
        wide = {names[name]: value for name, value in spread(small.state_dict(), rank).items()}
        large.load_state_dict(wide)
        for codec in (small, large):
            codec.model.register_to_config(scaling_factor=0.5)
        assert (small.layout.rank, large.layout.rank) == (rank, rank + 1)
        x = torch.rand(3, 2, *sizes, dtype=torch.float64) * 2 - 1
        rows = x[:, :, None].expand(3, 2, 4, *sizes)
        with torch.no_grad():
            z = small.encode(x)
            assert z.shape[1:] == small.layout.latent_shape((2, *sizes))
            of_rows = large.encode(rows)
            torch.testing.assert_close(of_rows, z[:, :, None].expand_as(of_rows), rtol=0, atol=1e-11)
            y = small.decode(z)
            torch.testing.assert_close(large.decode(of_rows), y[:, :, None].expand_as(rows), rtol=0, atol=1e-11)
            eps = torch.randn_like(z)
            one, many = small(x, eps), large(rows, eps[:, :, None].expand_as(of_rows))
            torch.testing.assert_close(many.x, one.x[:, :, None].expand_as(rows), rtol=0, atol=1e-11)
            torch.testing.assert_close(many.nats, 2 * one.nats, rtol=1e-11, atol=0)  # two latent rows
            torch.testing.assert_close(many.commitment, one.commitment, rtol=1e-11, atol=0)
    with pytest.raises(ParameterError, match=r"takes volumes with 2 channel\(s\); the data have shape \(2, 8, 8\)"):
        large.encode(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ParameterError, match="needs sizes divisible by 2; the data are 4x7x8"):
        large.layout.latent_shape((2, 4, 7, 8))


@pytest.mark.parametrize(("kind", "rank"), [(RANKED[0], 1), (RANKED[1], 3), (RANKED[2], 1)])
def test_codecs_of_signals_and_volumes_are_saved_and_read_bit_for_bit(kind, rank, tmp_path):
    torch.manual_seed(0)
    codec = kind.build(1, rank)
    codec.set_scale(0.37)
    codec.save(tmp_path)
    again = ud.codec.load_codec(tmp_path)
    assert again.layout == codec.layout == read_layout(tmp_path)
    assert equal(dict(again.state_dict()), dict(codec.state_dict()))
    x = torch.rand(3, 1, *[8] * rank) * 2 - 1
    with torch.no_grad():
        z = codec.encode(x)
        assert torch.equal(again.encode(x), z)
        assert torch.equal(again.decode(z), codec.decode(z))
    config = (tmp_path / CONFIG).read_text()
    for wrong, message in (
        ("4", f"{RANK} must be 1, 2 or 3, got 4"),
        ('"1"', "got '1'"),
        ("[1]", "got"),
        ("true", "got True"),
        ("2", "diffusers cannot read this"),
        (f"{4 - rank}", "diffusers cannot read this"),
    ):
        (tmp_path / CONFIG).write_text(config.replace(f'"{RANK}": {rank}', f'"{RANK}": {wrong}'))
        with pytest.raises(DataError, match=message):
            ud.codec.load_codec(tmp_path)


def test_a_codec_of_images_is_what_it_was_before_there_were_others():
    for kind in KINDS:
        torch.manual_seed(0)
        codec = kind.build(1)
        torch.manual_seed(0)
        assert equal(dict(codec.model.state_dict()), dict(kind.network(1).state_dict()))
        assert RANK not in codec.model.config
    with pytest.raises(ParameterError, match="AutoencoderDC is for images; for signals use AutoencoderKL"):
        KINDS[2].build(1, rank=1)
    with pytest.raises(ParameterError, match="rank must be 1 "):
        KINDS[0].build(1, rank=4)


class AutoencoderTiny(torch.nn.Module):
    """In place of diffusers' class of this name: an orthogonal matrix of each block of 2 values along every axis."""

    def __init__(self, rank):
        super().__init__()
        square = torch.randn(2**rank, 2**rank, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.weight = torch.nn.Parameter(torch.linalg.qr(square).Q.reshape(-1, 1, *[2] * rank))
        self.there, self.back = ((conv1d, conv_transpose1d), (conv3d, conv_transpose3d))[rank // 2]
        widths = {"latent_channels": 2**rank, "encoder_block_out_channels": (1, 1)}
        self.config = {"in_channels": 1, RANK: rank, "scaling_factor": 0.5, "shift_factor": 0.25, **widths}

    def encode(self, x):
        return SimpleNamespace(latents=self.there(x, self.weight, stride=2))

    def decode(self, h):
        return SimpleNamespace(sample=self.back(h, self.weight, stride=2))


@pytest.mark.parametrize(("rank", "sizes"), [(1, (8,)), (1, (9000,)), (3, (4, 2, 6)), (3, (2, 130, 66))])
def test_an_orthogonal_codec_of_signals_and_volumes_is_the_identity(rank, sizes):
    # The longer ones are decoded in tiles, of 4096 and 32 positions, whose weights add up to 1. Sums of at most 8 terms
    # of up to 2, twice, the scale is a power of 2.
    codec = ud.codec.Autoencoder(AutoencoderTiny(rank))
    x = torch.rand(2, 1, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        z = codec.encode(x)
        assert z.shape[1:] == codec.layout.latent_shape((1, *sizes)) == (2**rank, *(size // 2 for size in sizes))
        torch.testing.assert_close((2 * z + 0.25).square().sum(), x.square().sum(), rtol=1e-12, atol=0)
        torch.testing.assert_close(codec.decode(z), x, rtol=0, atol=1e-14)
        torch.testing.assert_close(codec(x, z).x, x, rtol=0, atol=1e-14)
    for wrong in ((1, *sizes, 2), (2, *sizes)):
        with pytest.raises(ParameterError, match=f"takes {('signals', 'volumes')[rank // 2]} with 1 channel"):
            codec.encode(torch.zeros(1, *wrong))


@pytest.mark.parametrize("extent", [1, 64, 65, 104, 105, 130])
def test_weights_of_tiles_add_up_to_one(extent):
    tiles, side = _tiles(extent, 2), min(64, extent)
    total, covered = torch.zeros(2 * extent, dtype=torch.float64), 0
    for start, weight in tiles:
        assert len(weight) == 2 * side
        assert ((weight >= 0) & (weight <= 1)).all()
        total[2 * start : 2 * (start + side)] += weight
        if start:  # neighbours share three edges of 8 at least; the outer of each counts for nothing
            assert covered - start >= 24
            assert not weight[:16].any()
        covered = start + side
    assert covered == extent
    assert len(tiles) == (1 if extent <= 64 else 2 if extent <= 104 else 3)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)


def test_codecs_work_in_their_own_precision():
    """float64 is kept: autograd's derivative is the difference quotient to ten digits."""
    torch.manual_seed(0)
    kind = KINDS[0]
    codec, x, eps = kind.build(1).double(), torch.rand(1, 1, 8, 8).double(), torch.randn(1, 3, 4, 4).double()
    assert codec.encode(x.float()).dtype == codec.decode(eps.float()).dtype == torch.float64

    def loss():
        found = ud.codec.Variational(kl=1.0).losses(codec(x, eps), x).sum()
        assert found.dtype == torch.float64
        return found

    weight = codec.model.decoder.conv_out.bias
    (slope,) = torch.autograd.grad(loss(), weight)
    values = []
    for step in (1e-3, -2e-3):
        weight.data += step
        values.append(loss().item())
    # The loss is quadratic in this bias, so central differences leave rounding alone: some 1e-15 / 1e-3.
    assert abs((values[0] - values[1]) / 2e-3 - slope.item()) < 1e-10
    assert kind.build(1).encode(x).dtype == torch.float32


def test_the_scale_makes_the_variance_one():
    torch.manual_seed(0)
    codec, source = KINDS[0].build(1), ud.data.Digits().open()
    facts = ud.codec.measure_latents(codec, source)
    codec.set_scale(facts.scale)
    z = codec.encode(source.batch(torch.arange(len(source)))).detach().double()
    assert abs(float(z.std(correction=0)) - 1) < 1e-5
    assert len(facts.channel_std) == 3
    assert facts.pictures == 1500


# ---------------------------------------------------------------------------------------------- folders


def test_what_is_no_codec_is_refused(tmp_path):
    from diffusers import UNet2DModel

    with pytest.raises(DataError, match=r"does not exist.*`unidiff run vae --out runs/vae` creates it.*hub:"):
        codec_folder("runs/vae")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"contains no config.json"):
        ud.codec.load_codec(empty)
    (empty / "recipe.yaml").write_text("seed: 0\n")
    with pytest.raises(DataError, match="this run has no codec"):
        ud.codec.load_codec(empty)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
    )
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(DataError, match=r"is of type UNet2DModel; supported are AutoencoderKL, VQModel"):
        ud.codec.load_codec(tmp_path / "unet")
    with pytest.raises(DataError, match="supported are"):
        ud.codec.Autoencoder(torch.nn.Linear(1, 1))
    for channels in ((8, 12), (8, 2**40), (8,) * 30):
        with pytest.raises(ParameterError, match="channels must be from 1 to 8 multiples of 8, each at most 65536"):
            ud.codec.AutoencoderKL(channels=channels)


def test_damaged_and_pickled_weights_are_refused(tmp_path):
    codec = KINDS[3].build(1)
    pipeline = tmp_path / "pipeline"  # as diffusers saves one: its codec in a folder of its own
    codec.save(pipeline / "vae")
    assert codec_folder(str(pipeline)) == pipeline / "vae"
    before = digest(pipeline / "vae")
    weights = pipeline / "vae" / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert digest(pipeline / "vae") != before
    config = (pipeline / "vae" / CONFIG).read_text()
    (pipeline / "vae" / CONFIG).write_text(config.replace('"latent_channels": 3', '"latent_channels": 4'))
    with pytest.raises(DataError, match=r"\A[^\n]*diffusers cannot read this AutoencoderTiny[^\n]*\Z"):
        ud.codec.load_codec(pipeline)
    (pipeline / "vae" / CONFIG).write_text(config.replace('"AutoencoderTiny"', '["AutoencoderTiny"]'))
    with pytest.raises(DataError, match="supported are AutoencoderKL"):
        ud.codec.load_codec(pipeline)
    (pipeline / "vae" / CONFIG).write_text(config)
    weights.write_bytes(content[:100])
    with pytest.raises(DataError, match="diffusers cannot read this AutoencoderTiny"):
        ud.codec.load_codec(pipeline)
    weights.unlink()
    with pytest.raises(DataError, match="safetensors is missing"):
        ud.codec.load_codec(pipeline)
    codec.model.save_pretrained(pipeline / "vae", safe_serialization=False)
    with pytest.raises(DataError, match=r"pickled.*allow_pickle=True") as said:
        ud.codec.load_codec(pipeline)
    remedy = str(said.value).split("If you trust them: ")[1].removesuffix(".")
    exec(remedy, {"unidiff": ud, "ANOTHER_FOLDER": str(tmp_path / "safe")})
    assert equal(dict(ud.codec.load_codec(tmp_path / "safe").state_dict()), dict(codec.state_dict()))
    (pipeline / "vae" / CONFIG).write_text("{}")
    with pytest.raises(DataError, match="is of type None; supported are"):
        ud.codec.load_codec(pipeline)


def test_the_hub_is_asked_once(tmp_path, monkeypatch):
    asked = []
    KINDS[3].build(1).save(tmp_path / "vae")
    monkeypatch.delenv("UNIDIFF_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **o: asked.append(name) or str(tmp_path))
    data = ud.data.Latent(ud.data.Digits(), "hub:nobody/asked-once")
    with pytest.warns(UserWarning, match="is downloaded"):
        assert data.shape == (3, 4, 4)
    assert data.folder == tmp_path / "vae"
    assert asked == ["nobody/asked-once"]


def test_without_diffusers_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RunError, match=r"pip install 'unidiff-diffusion\[diffusers\]'"):
        KINDS[0].build(1)


# ---------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    result = unidiff("run", write(folder, VAE), "--out", folder / "vae")
    assert result.code == 0, result.err
    return folder / "vae", result.out


@pytest.mark.slow  # 2 s
def test_a_codec_is_trained_and_reported(run):
    folder, said = run
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert [line["step"] for line in metrics(folder)] == [3, 6, 8]
    assert "reconstruction  rms" in said
    assert {path.name for path in (folder / "samples").iterdir()} == {
        "reconstructions.png",
        "step-00000003.png",
        "step-00000006.png",
    }
    codec = ud.codec.load_codec(folder)
    test = ud.data.Digits().open("test")
    x = test.batch(torch.arange(len(test)))
    rms = (codec.decode(codec.encode(x)) - x).square().mean().sqrt().item()
    found = manifest["reconstruction"]
    assert abs(found["rms"] - rms) < 1e-5
    assert abs(found["psnr_db"] - 20 * math.log10(2 / rms)) < 0.01
    posterior = codec.model.encode(x).latent_dist
    nats = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum() / len(x)
    assert abs(found["kl_nats"] - float(nats)) < 0.01
    assert abs(codec.layout.scale - manifest["latents"]["scale"]) < 1e-6
    assert ud.load_recipe(folder / "recipe.yaml").objective == ud.codec.Variational()


@pytest.mark.slow  # 4 s: a codec and a model in its latents are trained
def test_a_codec_of_signals_and_a_model_in_its_latents(tmp_path):
    notes, training = {"type": "Notes", "count": 60}, {**VAE["training"], "steps": 2}
    codec = {**VAE["codec"], "attention": True}
    vae = {"data": notes, "codec": codec, "training": training, "objective": {"type": "Variational", "edge": 0.5}}
    result = unidiff("run", write(tmp_path, vae), "--out", tmp_path / "vae")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "vae" / "manifest.json").read_text())["latents"]["shape"] == [2, 256]
    data = {"type": "Latent", "data": notes, "codec": str(tmp_path / "vae"), "cache": False}
    backbone = {"type": "UNet", "width": 8, "multipliers": [1], "blocks": 1}
    result = unidiff("run", write(tmp_path, {**RING, "data": data, "backbone": backbone}), "--out", tmp_path / "ldm")
    assert result.code == 0, result.err
    words = ("--array", tmp_path / "x.npy", "--out", tmp_path / "x.png")
    assert unidiff("sample", tmp_path / "ldm", "--count", 2, *words).code == 0
    run, codec = ud.load(tmp_path / "ldm"), ud.codec.load_codec(tmp_path / "vae")
    z = ud.sample(run.denoiser, run.recipe.sampling.solver, run.recipe.sampling.grid, seeds=2).x
    assert z.shape == (2, 2, 256)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), codec.decode(z).numpy())
    # A pixel's loss and its edges along the one axis, by hand.
    x, y = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 2.0, 0.0]]])
    loss = ud.codec.Reconstruction(edge=0.5).losses(coded(x, y), x)
    torch.testing.assert_close(loss, torch.tensor([(4 + 0.5 * 2 * 4) / 3]))


@pytest.mark.slow  # 4 s: a training, stopped and resumed
def test_a_resumed_codec_is_the_same_bit_for_bit(run, tmp_path):
    folder, _ = run
    recipe = ud.load_recipe(folder / "recipe.yaml")
    from unidiff.run.directory import RunDirectory
    from unidiff.training.loop import Interrupted

    class Quiet:
        def notice(self, text): ...
        def progress(self, stage, done, total, loss=None): ...

    calls = []
    with pytest.raises(Interrupted):
        recipe.run(tmp_path / "vae", Quiet(), device="cpu", stop=lambda: calls.append(0) or len(calls) == 5)
    assert not (tmp_path / "vae/codec").exists()
    with pytest.raises(DataError, match="Continue it with --resume"):
        ud.codec.load_codec(tmp_path / "vae")
    left = recipe.training.steps - 5
    with pytest.raises(Interrupted) as stopped:  # in the report: training is whole
        recipe.run(tmp_path / "vae", Quiet(), resume=True, stop=lambda: calls.append(0) or len(calls) > 5 + left)
    assert stopped.value.step == recipe.training.steps
    recipe.run(tmp_path / "vae", Quiet(), device="cpu", resume=True)
    assert metrics(tmp_path / "vae") == metrics(RunDirectory(folder).path)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "vae/codec" / name).read_bytes() == (folder / "codec" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"type": "Ring"}}, r"data must be signals \(C, L\), images \(C, H, W\) or volumes"),
        ({"data": {"type": "Digits", "size": 9}}, "codec: this AutoencoderKL needs sizes divisible by 2"),
        ({"codec": {"type": "VQModel"}, "objective": {"type": "Variational"}}, "objective: Variational is for"),
        ({"codec": {"type": "AutoencoderKL", "channels": [9]}}, r"codec.channels must be .* got \(9"),
        ({"codec": "UNet"}, "expected an autoencoder config, got UNet, a backbone"),
    ],
)
def test_recipes_that_cannot_be_are_refused(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        ud.load_recipe(write(tmp_path, {**VAE, **changes}))


def test_a_missing_test_split_is_found_before_training(tmp_path, monkeypatch):
    def opened(self, split="train", open=ud.data.Digits.open):
        if split == "test":
            raise DataError("there are no test pictures")
        return open(self, split)

    monkeypatch.setattr(ud.data.Digits, "open", opened)
    assert "no test pictures" in refused("run", write(tmp_path, VAE), "--out", tmp_path / "vae")
    assert not (tmp_path / "vae").exists()


def test_each_command_says_what_a_codec_is_for(run, tmp_path):
    folder, _ = run
    assert "the training of a codec; it does not generate samples" in refused("sample", folder)
    assert unidiff("check", folder / "recipe.yaml").out.count("parameters") == 1
    plain = {**VAE}
    del plain["codec"]
    with pytest.raises(RecipeError, match="codec: missing required key"):
        ud.load_recipe(write(tmp_path, plain))


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 1, 1), (1, 1, 8, 8)])
def test_reconstructions_of_another_shape_are_an_error(shape):
    coding = AutoencoderOutput(torch.zeros(shape), torch.zeros(4), torch.zeros(4))
    for objective in (ud.codec.Reconstruction(), ud.codec.Variational(), ud.codec.Commitment()):
        with pytest.raises(ParameterError, match=r"reconstructions must have shape \(4, 1, 8, 8\)"):
            objective.losses(coding, torch.zeros(4, 1, 8, 8))


@every
def test_a_video_is_coded_frame_by_frame(kind):
    torch.manual_seed(0)
    codec = kind.build(1).eval()
    x = torch.rand(2, 1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        z = codec.encode(x)
        frames = [codec.encode(frame) for frame in x.unbind(2)]
        # Convolutions of another batch may be summed in another order: float32.
        torch.testing.assert_close(z, torch.stack(frames, 2), rtol=1e-4, atol=1e-5)
        y = torch.stack([codec.decode(frame) for frame in frames], 2)
        torch.testing.assert_close(codec.decode(z), y, rtol=1e-3, atol=1e-4)
    assert tuple(z.shape[1:]) == codec.layout.latent_shape(x.shape[1:])
    with pytest.raises(ParameterError, match=r"takes images with 1 channel\(s\); the data have shape \(1, 8\)"):
        codec.layout.latent_shape((1, 8))
