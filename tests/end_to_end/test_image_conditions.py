"""Pictures as conditions: what is seen, who is told, exact posteriors, training, runs and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIGITS, equal, refused, unidiff, write

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.errors import DataError, ParameterError, RecipeError
from unidiff.evaluation.conditional import rms, tells_mean
from unidiff.parameterization import Prediction
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

SOURCE = ud.data.Digits().open()
SETTINGS = {"steps": 5, "batch": 8, "lr": 0.01, "precision": "fp32", "log_every": 4, "checkpoint_every": 100}
HOLES = ud.RandomMasks(rectangles=2, dropout=0.25)
ALL = [ud.SuperResolution(2), ud.Colorization(), ud.RandomMasks()]


def model(image=2, classes=None):
    torch.manual_seed(0)
    backbone = ud.UNet((1, 8, 8), width=8, multipliers=(1, 2), blocks=1, patch=2, classes=classes, image=image)
    torch.nn.init.normal_(backbone.head.weight, std=0.1)  # it starts at zero, where nothing could be told apart
    return ud.NeuralDenoiser(ud.DDPM(50), ud.V(), backbone)


# ---------------------------------------------------------------------------------------------- what is seen


def test_super_resolution_by_hand():
    x0 = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    seen = ud.SuperResolution(2).measure(x0, torch.zeros(1, 0))
    a, b, c, d = (x / 16 for x in (2.5, 4.5, 10.5, 12.5))  # (0 + 1 + 4 + 5) / 4, ...
    assert seen[0, 0].tolist() == [[a, a, b, b], [a, a, b, b], [c, c, d, d], [c, c, d, d]]
    from_user = ud.SuperResolution(2).from_user
    assert torch.equal(from_user(x0[0], (1, 4, 4)), from_user(torch.tensor([[[a, b], [c, d]]]), (1, 4, 4)))
    # Bicubic weights sum to 1: what is flat is guessed exactly, up to their rounding.
    torch.testing.assert_close(
        ud.SuperResolution(2).baseline(torch.full((1, 1, 4, 4), 0.3)), torch.full((1, 1, 4, 4), 0.3)
    )


def test_grey_is_that_of_pillow():
    pixels = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    grey = ud.Colorization().measure(pixels.float() / 127.5 - 1, torch.zeros(1, 0))
    pillow = np.asarray(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).convert("L")).astype(float)
    assert np.abs((grey[0, 0].numpy() + 1) * 127.5 - pillow).max() <= 1  # it is cut to a whole level
    # Grey stays what it is: the weights sum to 1.
    one = grey.expand(1, 3, 8, 8)
    torch.testing.assert_close(ud.Colorization().measure(one, torch.zeros(1, 0)), grey, rtol=0, atol=1e-6)


def test_colours_are_put_on_the_grey_image_that_is_given():
    colours, generator = ud.Colorization(), torch.Generator().manual_seed(0)
    draw = lambda *shape: 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1  # noqa: E731
    x, truth = 1.5 * draw(50, 3, 4, 4), draw(50, 3, 4, 4)
    cond = {"image": colours.measure(truth, truth)}
    found = colours.compose(x, cond)
    # Luma and bounds to the last bits: sums of three numbers below 4.
    torch.testing.assert_close(colours.measure(found, x), cond["image"], rtol=0, atol=8 * 2.0**-52)
    assert found.abs().max() <= 1 + 2.0**-50
    # The colours are those of the samples, paler where they would not fit, and no paler than needed.
    colour, kept = x - colours.measure(x, x), found - cond["image"]
    share = (kept * colour).sum(1) / colour.square().sum(1)
    torch.testing.assert_close(kept, share[:, None] * colour, rtol=0, atol=2.0**-48)
    assert ((share >= 1 - 2.0**-48) | (found.abs().amax(1) >= 1 - 2.0**-48)).all()
    torch.testing.assert_close(colours.compose(truth, cond), truth, rtol=0, atol=2.0**-50)  # they have that luma
    null = torch.zeros_like(cond["image"])
    assert torch.equal(colours.compose(x, {"image": null}), x)


def test_holes_by_hand():
    holes = ud.RandomMasks(rectangles=1, smallest=0.25, largest=0.5)  # sides of 2, 3 or 4 of 8 pixels
    uniform = torch.tensor([[0.0, 0.99, 0.0, 0.99], [0.5, 0.34, 0.5, 0.2]], dtype=torch.float64)
    known = holes.known(uniform, 8, 8)
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, 0:2, 4:8] = False  # 2 high at the top, 4 wide at the right: floor(0.99 * 5) = 4
    expected[1, 3:6, 1:4] = False  # 2 + floor(0.5 * 3) = 3 high at floor(0.5 * 6) = 3; 3 wide at floor(0.2 * 6) = 1
    assert torch.equal(known, expected)
    x0 = torch.rand(2, 1, 8, 8)
    image = holes.measure(x0, uniform)
    assert torch.equal(image[:, 1], known.float())
    assert torch.equal(image[:, 0], x0[:, 0] * known)
    guess = holes.baseline(image)
    assert torch.equal(guess[:, 0][known], x0[:, 0][known])
    filled = [guess[i, 0][~known[i]] for i in range(2)]
    assert all(torch.allclose(f, x0[i, 0][known[i]].mean().expand(f.shape)) for i, f in enumerate(filled))
    # Nothing is known of the null picture: nothing is kept of it, and the guess is 0.
    null = torch.zeros_like(image)
    assert torch.equal(holes.compose(x0, {"image": null}), x0)
    assert torch.equal(holes.baseline(null), torch.zeros_like(x0))


def test_holes_have_uniform_sides_and_places():
    uniform = torch.rand(20000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = ~ud.RandomMasks(rectangles=1, smallest=0.25, largest=0.5).known(uniform, 8, 8)
    tall, wide = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (hidden.sum((1, 2)) == tall * wide).all()
    five = 5 * math.sqrt(20000 * 2 / 9)  # standard deviations of a count with share 1 / 3
    for side in (tall, wide):
        assert all(abs(int((side == length).sum()) - 20000 / 3) < five for length in (2, 3, 4))
    top = hidden.any(2).long().argmax(1)[tall == 4]  # 5 places
    assert all(abs(int((top == y).sum()) - len(top) / 5) < 5 * math.sqrt(len(top) * 4 / 25) for y in range(5))


@pytest.mark.parametrize("conditioning", ALL, ids=repr)
def test_conditions_are_in_range_row_by_row_and_dropped_as_often_as_asked(conditioning):
    x0 = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    uniform = torch.rand(400, conditioning.draws, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    said = (
        type(conditioning)(dropout=0.25) if not hasattr(conditioning, "factor") else ud.SuperResolution(2, dropout=0.25)
    )
    image = said.conditions(x0, None, uniform)["image"]
    assert image.shape == (400, conditioning.channels((3, 8, 8)), 8, 8)
    assert image.dtype == torch.float32
    assert (image.abs() <= 1).all()
    dropped = (image == 0).flatten(1).all(1)
    assert torch.equal(dropped, uniform[:, 0] < 0.25)
    kept = conditioning.conditions(x0, None, uniform)["image"]
    assert torch.equal(kept[~dropped], image[~dropped])
    # The draw that decides on dropout decides on nothing else; the others are those of what is seen.
    assert torch.equal(kept, conditioning.measure(x0, uniform[:, 1:]))
    halves = [said.conditions(x0[rows], None, uniform[rows])["image"] for rows in (slice(0, 150), slice(150, 400))]
    assert torch.equal(torch.cat(halves), image)
    assert conditioning.as_image(image).shape == conditioning.baseline(image).shape == x0.shape


# ---------------------------------------------------------------------------------------------- who is told


def test_the_image_enters_beside_the_noisy_one():
    told, plain = model(image=2).backbone, model(image=None).backbone
    plain.load_state_dict({**told.state_dict(), "stem.weight": told.stem.weight[:, :4]})  # 1 channel of 2x2 patches
    x, c, image = torch.randn(3, 1, 8, 8), torch.rand(3) * 1000, torch.rand(3, 2, 8, 8)
    torch.testing.assert_close(told(x, c, image=torch.zeros_like(image)), plain(x, c))
    assert not torch.allclose(told(x, c, image=image), plain(x, c), atol=1e-3)
    # Folded as the noisy image is: the stem sees the pixels of one patch in one place.
    folded = torch.cat([torch.nn.functional.pixel_unshuffle(part, 2) for part in (x, image)], dim=1)
    seen = []
    handle = told.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    told(x, c, image=image)
    handle.remove()
    assert torch.equal(seen[0], folded)


def test_every_wrapper_hands_on_what_the_model_knows():
    inner = model(image=2, classes=4)
    guided = ud.ClassifierFree(inner, 2.0)
    operator = ud.inverse.BlockMean((8, 8), 2)
    wrapped = [
        *(ud.Counted(inner), ud.Rescheduled(inner, ud.DDPM(50)), guided, ud.AutoGuidance(inner, inner, 2.0)),
        *(ud.GuidanceInterval(guided), ud.RescaledGuidance(guided), ud.DynamicThreshold(inner)),
        *(
            ud.Replacement(inner, torch.zeros(1, 8, 8), torch.ones(8, 8)),
            ud.inverse.DPS(inner, operator, torch.zeros(1, 1, 4, 4), 0.1),
        ),
    ]
    for denoiser in wrapped:
        known = (denoiser.shape, denoiser.classes, denoiser.image)
        assert known == ((1, 8, 8), 4, (2, 8, 8)), type(denoiser).__name__


def test_guidance_is_a_line_through_the_conditional_model_and_the_null_picture():
    inner, u, image = model(), torch.randn(3, 1, 8, 8), torch.rand(3, 2, 8, 8)
    level = inner.process.level(0.4)
    here, null = (inner(u, level, image=told) for told in (image, torch.zeros_like(image)))
    for scale in (0.0, 1.0, 2.5):
        found = ud.ClassifierFree(inner, scale)(u, level, image=image)
        for name in ("x0", "eps", "v"):
            expected = getattr(null, name) + scale * (getattr(here, name) - getattr(null, name))
            torch.testing.assert_close(getattr(found, name), expected, rtol=1e-4, atol=1e-4)
    assert ud.sample(ud.ClassifierFree(inner, 2.0), ud.DDIM(), ud.Uniform(3), seeds=3, image=image).x.isfinite().all()


def test_wrong_images_are_refused():
    inner, good = model(), torch.zeros(2, 2, 8, 8)
    sample = lambda denoiser, **cond: ud.sample(denoiser, ud.DDIM(), ud.Uniform(2), seeds=2, **cond)  # noqa: E731
    for image, words in {
        "missing": (None, r"needs the condition .image., \(2, 8, 8\)"),
        "shape": (good[:, :1], r"image must be .*, got torch.float32 of shape \(2, 1, 8, 8\)"),
        "rows": (good[:1], r"float32 of shape \(1, 2, 8, 8\)"),
        "bytes": (good.byte(), "uint8 of shape"),
        "range": (good + 255, r"image must be in \[-1, 1\] .*got values in \[255, 255\]"),
        "nan": (good * math.nan, r"got values in \[nan"),
    }.values():
        with pytest.raises(ParameterError, match=words):
            sample(inner, **({} if image is None else {"image": image}))
        with pytest.raises(ParameterError, match=words):
            ud.evaluation.mean_prediction(inner, seeds=2, **({} if image is None else {"image": image}))
    with pytest.raises(ParameterError, match="this model is unconditional"):
        sample(model(image=None), image=good)
    with pytest.raises(ParameterError, match="is conditioned on image, but was passed label"):
        inner(torch.zeros(2, 1, 8, 8), inner.process.level(0.5), image=good, label=torch.tensor([0, 1]))
    with pytest.raises(ParameterError, match=r"image must be .* got none"):
        inner(torch.zeros(2, 1, 8, 8), inner.process.level(0.5))
    with pytest.raises(ParameterError, match=r"its conditions must be the model's, \(\), got \(Image"):
        ud.AutoGuidance(model(image=None), inner, 2.0)
    with pytest.raises(ParameterError, match=r"image must be .*, got 0"):
        ud.UNet((1, 8, 8), image=0)


# ---------------------------------------------------------------------------------------------- exact posteriors


def smooth(height=4):
    """A covariance of smooth pictures, (D, D): exp(-distance / 2)."""
    at = torch.cartesian_prod(*[torch.arange(float(height), dtype=torch.float64)] * 2)
    return 0.25 * torch.exp(-torch.cdist(at, at) / 2)


class Exact(ud.Denoiser):
    """E[x0 | u, image] of N(0, C) pictures whose block means are told, in closed form."""

    def __init__(self, process, covariance, factor=2):
        super().__init__()
        side = math.isqrt(len(covariance))
        self.process, self.shape, self.conditions = process, (1, side, side), (ud.Image(1, (side, side)),)
        rows = ud.SuperResolution(factor).measure(
            torch.eye(side**2).double().reshape(-1, 1, side, side), torch.zeros(1, 0)
        )
        A = rows.flatten(1).mT  # A^+ A, of lower rank
        self.gain = covariance @ A.mT @ torch.linalg.pinv(A @ covariance @ A.mT, hermitian=True)
        spread = covariance - self.gain @ A @ covariance
        self.variances, self.axes = torch.linalg.eigh((spread + spread.mT) / 2)
        self.variances = self.variances.clamp(min=0)

    def mean(self, image):
        return image.flatten(1).double() @ self.gain.mT

    def forward(self, u, level, **cond):
        m = self.mean(cond["image"])
        residual = (u.flatten(1) - level.alpha * m) @ self.axes
        shrunk = level.alpha * self.variances / (level.alpha**2 * self.variances + level.sigma**2) * residual
        x0 = (m + shrunk @ self.axes.mT).reshape(u.shape)
        return Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def test_samples_err_by_the_square_root_of_two_more_than_the_mean():
    C, count = smooth(), 4000
    denoiser, conditioning = Exact(ud.VPSDE(), C), ud.SuperResolution(2)
    draws = torch.randn(count, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = (draws @ torch.linalg.cholesky(C).mT).reshape(-1, 1, 4, 4)
    image = conditioning.measure(x0, torch.zeros(1, 0)).clamp(-1, 1)
    inside = (image.abs() < 1).flatten(1).all(1)  # of N(0, 0.2), all but a few: a cut picture is told wrongly
    assert inside.double().mean() > 0.9
    x0, image = x0[inside], image[inside]
    # The same posterior as that of `conditioned`, for one picture.
    operator = ud.inverse.BlockMean((4, 4), 2)
    mixture = ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 1, 4, 4), C)
    posterior = ud.inverse.conditioned(mixture, operator, operator.apply(x0[0]))
    u, level = torch.randn(1, 1, 4, 4, dtype=torch.float64), denoiser.process.level(0.3)
    torch.testing.assert_close(denoiser(u, level, image=image[:1]).x0, posterior(u, level).x0, rtol=0, atol=1e-9)
    # At t = 1 it is m + alpha S (alpha^2 S + sigma^2)^-1 (u - alpha m): off by up to alpha / sigma^2 |S| |u - alpha m|.
    mean = ud.evaluation.mean_prediction(denoiser, seeds=len(x0), dtype=torch.float64, image=image)
    exact, level = denoiser.mean(image).reshape(x0.shape), denoiser.process.level(1.0)
    assert (mean - exact).flatten(1).norm(dim=1).max() < level.alpha / level.sigma**2 * denoiser.variances.max() * 9
    # The part of that which is linear in the noise u falls as 1 / sqrt(draws). Some 400 independent numbers give each
    # rms to 4%, the ratio to 0.014.
    few = image[:50]
    once, often = (
        ud.evaluation.mean_prediction(denoiser, seeds=50, draws=n, dtype=torch.float64, image=few) for n in (1, 16)
    )
    assert abs(rms(often, exact[:50]) / rms(once, exact[:50]) - 1 / 4) < 0.05
    # E|x0 - m|^2 = tr S and E|x - x0|^2 = 2 tr S. |d|^2 of d ~ N(0, k S) has the variance 2 k^2 tr S^2.
    x = ud.sample(denoiser, seeds=len(x0), dtype=torch.float64, image=image).x
    trace, square = denoiser.variances.sum(), denoiser.variances.square().sum()
    for k, error in ((1, x0 - mean), (2, x0 - x)):
        found = error.square().flatten(1).sum(1).mean()
        bound = 5 * k * math.sqrt(2 * square / len(x0)) + 2e-3 * k * trace  # and what 50 steps and alpha(1) leave
        assert abs(found - k * trace) < bound, k
    assert rms(x0, mean) < rms(x0, conditioning.baseline(image)), "no guess from the image is better than the mean"


@pytest.mark.slow  # trains
def test_a_network_learns_the_conditional_mean():
    # Pictures of four independent blocks, with noise of 0.1 in each pixel. Given the means y of the blocks, E[x0] = y:
    # the noise within a block is symmetric about its mean. So the network at t = 1 is to copy its condition.
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2000, 1, 2, 2, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3) * 0.4
    x0 = x0 + 0.1 * torch.randn(2000, 1, 4, 4, generator=generator)
    source, conditioning = TensorSource(x0.clamp(-1, 1), "blocks"), ud.SuperResolution(2)
    torch.manual_seed(0)
    backbone = ud.UNet((1, 4, 4), width=16, multipliers=(1,), blocks=1, image=1)
    net = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), backbone)
    settings = ud.Training(steps=80, batch=64, lr=5e-3, warmup=10, ema=0.9, precision="fp32")
    trained = ud.train(net, source, ud.Denoising(), settings, conditioning=conditioning)
    truth = source.batch(torch.arange(300))
    image = conditioning.measure(truth, torch.zeros(1, 0))
    for told in (image, -image):  # half of the 0.4 by which a network that is told nothing would be off
        assert rms(ud.evaluation.mean_prediction(trained, seeds=300, image=told), told) < 0.2


def test_which_networks_tell_their_mean():
    for parameterization, tells in ((ud.V(), True), (ud.X0(), True), (ud.Preconditioned(), True), (ud.Eps(), False)):
        denoiser = ud.NeuralDenoiser(ud.VPSDE(), parameterization, model().backbone)
        assert tells_mean(denoiser) == tells
    assert tells_mean(ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), model().backbone))


# ---------------------------------------------------------------------------------------------- training


def fit(denoiser, source=SOURCE, **options):
    settings = ud.Training(**{**SETTINGS, **options.pop("settings", {})})
    return ud.train(denoiser, source, ud.Denoising(), settings, conditioning=HOLES, **options)


@pytest.mark.slow  # a second or more
def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = fit(model()).backbone.state_dict()
    with pytest.raises(Interrupted):
        fit(model(), checkpoints=Checkpoints(tmp_path), stop=iter([False, False, True]).__next__)
    assert equal(fit(model(), checkpoints=Checkpoints(tmp_path)).backbone.state_dict(), whole)
    # Parts of a batch see the holes of their rows: the same run, to rounding.
    parts = fit(model(), settings={"accumulate": 4}).backbone.state_dict()
    assert all(torch.allclose(parts[name], whole[name], rtol=1e-3, atol=1e-4) for name in whole)


def test_a_picture_is_read_once():
    class Counting(TensorSource):
        taken = 0

        def batch(self, indices, device="cpu"):
            Counting.taken += len(indices)
            return super().batch(indices, device)

        def to(self, device):
            return self

    fit(model(), Counting(SOURCE.values, "counted"))
    assert Counting.taken == SETTINGS["steps"] * SETTINGS["batch"]


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="must be used with signals, images or volumes"):
        HOLES.check(ud.data.Ring().open(), None)
    with pytest.raises(DataError, match="must be used with images of 3 channels, got 1"):
        ud.Colorization().check(SOURCE, None)
    for make, words in (
        (lambda: ud.RandomMasks(0), "rectangles must be .* got 0"),
        (lambda: ud.RandomMasks(smallest=0), r"smallest must be .* got 0"),
        (lambda: ud.RandomMasks(smallest=0.5, largest=0.4), "largest must be a fraction from 0.5 to 1"),
        (lambda: ud.SuperResolution(1), r"factor must be .* got 1"),
        (lambda: ud.Colorization(dropout=2), r"dropout must be .* got 2"),
    ):
        with pytest.raises(ParameterError, match=words):
            make()


# ---------------------------------------------------------------------------------------------- recipes and commands

TINY = {**DIGITS, "training": {**DIGITS["training"], "steps": 2, "preview_every": 0, "tensorboard": False}}
SMALL = {**TINY, "parameterization": {"type": "V"}, "conditioning": {"type": "SuperResolution", "factor": 2}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditioning": None, "backbone": {"type": "UNet", "image": 1}},
            r"backbone\.image: it is set, but",
        ),
        (
            {"conditioning": "labels", "backbone": {"type": "UNet", "image": 1}},
            r"backbone\.image: it is set, but",
        ),
        ({"backbone": {"type": "UNet", "image": 3}}, r"backbone\.image must be 1, the channels of .*, got 3"),
        ({"backbone": {"type": "MLP"}}, "MLP has no way to take Image"),
        (
            {"conditioning": {"type": "SuperResolution", "factor": 3}},
            r"conditioning\.factor must be a divisor .* got 3",
        ),
        ({"conditioning": "colorization"}, "conditioning must be used with images of 3 channels, got 1"),
        (
            {"data": {"type": "Ring"}, "backbone": {"type": "MLP"}},
            "conditioning must be used with signals, images or volumes",
        ),
        ({"conditioning": {"type": "RandomMasks", "largest": 2}}, r"conditioning\.largest must be .* got 2"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        ud.load_recipe(write(tmp_path, {**SMALL, **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Tiny runs of the three conditions, and pictures."""
    home = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    (home / "photos").mkdir()
    for number, colours in enumerate(pixels):
        Image.fromarray(colours).save(home / f"photos/{number:02d}.png")
    recipes = {
        "small": SMALL,
        "holes": {**SMALL, "conditioning": {"type": "RandomMasks", "dropout": 0.2}},
        "grey": {
            **SMALL,
            "data": {"type": "ImageFolder", "root": str(home / "photos"), "size": 8},
            "conditioning": "colorization",
        },
    }
    for name, recipe in recipes.items():
        result = unidiff("run", write(home, recipe, f"{name}.yaml"), "--out", home / name, "--json")
        assert result.code == 0, result.err
        (home / f"{name}.json").write_text(result.out.splitlines()[-1])
    digit = ((ud.data.Digits().open("test").batch(torch.tensor([3]))[0, 0] + 1) * 127.5).round().byte()
    Image.fromarray(digit.numpy()).save(home / "digit.png")
    reduced = ud.inverse.BlockMean((8, 8), 2).apply(digit.double() / 127.5 - 1)
    np.save(home / "reduced.npy", reduced[None].numpy().astype(np.float32))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(home / "tiny.png")
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(home / "six.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[2:6, 4:] = 255
    Image.fromarray(hole).save(home / "hole.png")
    Image.fromarray(pixels[0]).convert("L").save(home / "grey.png")
    return home


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("name", ["holes", *(pytest.param(name, marks=pytest.mark.slow) for name in ("small", "grey"))])
def test_a_run_shows_conditions_samples_and_truth(folder, name):
    summary = json.loads((folder / f"{name}.json").read_text())
    errors = summary["errors"]
    assert errors["images"] == 4
    assert all(errors[key] > 0 for key in ("samples", "mean_prediction", "guess"))
    with Image.open(summary["conditions"]) as picture:
        assert picture.height > 6 * 64  # six rows of 8 pixels drawn 8 times as large
    manifest = json.loads((folder / name / "manifest.json").read_text())
    assert manifest["errors"] == errors
    loaded = ud.load(folder / name)
    conditioning = loaded.recipe.conditioning
    assert loaded.denoiser.image == (conditioning.channels(loaded.recipe.data.shape), 8, 8)
    # The figures are those of `ud.sample` and of the conditions of test images, by hand.
    examples = conditioning.examples(loaded.recipe.data, 4, None)
    sampling, image = loaded.recipe.sampling, examples.cond["image"]
    x = ud.sample(loaded.denoiser, sampling.solver, sampling.grid, seeds=4, image=image).x
    x = conditioning.compose(x, {"image": image})
    assert rms(x, examples.truth) == pytest.approx(errors["samples"], abs=1e-4)
    mean = conditioning.compose(
        ud.evaluation.mean_prediction(loaded.denoiser, seeds=4, draws=8, image=image), {"image": image}
    )
    assert rms(mean, examples.truth) == pytest.approx(errors["mean_prediction"], abs=1e-4)
    assert rms(conditioning.baseline(image), examples.truth) == pytest.approx(errors["guess"], abs=1e-4)


def drawn(folder, tmp_path, *words):
    out = ["--array", tmp_path / "x.npy", "--out", tmp_path / "x.png", "--json"]
    result = unidiff("sample", *words, *out)
    assert result.code == 0, result.err
    return np.load(tmp_path / "x.npy"), json.loads(result.out)


@pytest.mark.slow  # a second or more
def test_samples_of_a_picture_from_the_command_line(folder, tmp_path):
    whole, facts = drawn(folder, tmp_path, folder / "small", "--image", folder / "digit.png", "--count", 2)
    assert whole.shape == (2, 1, 8, 8)
    assert facts["images"] == [str(folder / "digit.png")]
    assert facts["errors"] is None
    small, _ = drawn(folder, tmp_path, folder / "small", "--image", folder / "reduced.npy", "--count", 2)
    np.testing.assert_allclose(whole, small, atol=1e-5)  # reduced by the command or before, in another precision
    both = ["--image", folder / "digit.png", "--image", folder / "tiny.png"]
    several, facts = drawn(folder, tmp_path, folder / "small", *both)
    assert len(several) == facts["count"] == 6
    np.testing.assert_allclose(several[:2], whole, atol=1e-6)  # the same seeds
    # A colour picture and its grey one say the same, but for the rounding to whole levels of grey.
    colour, _ = drawn(folder, tmp_path, folder / "grey", "--image", folder / "photos/00.png")
    grey, _ = drawn(folder, tmp_path, folder / "grey", "--image", folder / "grey.png")
    assert colour.shape == (3, 3, 8, 8)
    assert np.abs(colour - grey).max() < 0.1


def test_no_test_image_belongs_to_a_value_of_the_condition(folder, tmp_path):
    value = f"cond.image={np.zeros((1, 8, 8)).tolist()}"
    x, facts = drawn(folder, tmp_path, folder / "small", "--set", value, "--count", 2)
    assert (len(x), facts["count"], facts["errors"]) == (2, 2, None)


def test_known_pixels_come_out_as_they_went_in(folder, tmp_path):
    words = [folder / "holes", "--image", folder / "digit.png", "--mask", folder / "hole.png", "--guidance", 1.5]
    x, _ = drawn(folder, tmp_path, *words)
    hole = np.asarray(Image.open(folder / "hole.png")) > 0
    digit = torch.from_numpy(np.array(Image.open(folder / "digit.png"))).float() / 127.5 - 1
    assert (x[..., ~hole] == digit.numpy()[~hole]).all()
    assert np.abs(x[0] - x[1])[..., hole].max() > 1e-3


@pytest.mark.slow  # whole commands
def test_without_a_picture_test_images_are_used(folder, tmp_path):
    x, facts = drawn(folder, tmp_path, folder / "holes", "--count", 2)
    assert len(x) == 12
    assert facts["errors"]["images"] == 12
    truth = ud.load(folder / "holes").recipe.conditioning.examples(ud.data.Digits(), 6, None).truth
    repeated = truth.repeat_interleave(2, 0)
    assert rms(torch.from_numpy(x), repeated.clamp(-1, 1)) <= facts["errors"]["samples"] + 1e-3  # written clipped
    result = unidiff("sample", folder / "holes", "--out", tmp_path / "y.png")
    assert "errors: rms" in result.out


def test_what_the_command_line_refuses(folder, tmp_path):
    out = ["--out", tmp_path / "x.png"]
    digit, hole = folder / "digit.png", folder / "hole.png"
    for words, message in {
        ("small", "--image", folder / "none.png"): "no such file",
        ("small", "--image", folder / "six.png"): "is 6 x 6 pixels; use an image of 4 x 4, or one of at least 8 x 8",
        ("small", "--image", folder / "small.yaml"): "not a readable image",
        ("small", "--image", digit, "--mask", hole): "SuperResolution takes no mask",
        ("small", "--mask", hole): "a mask needs an image",
        ("small", "--class", 3): "is conditioned on images, not on classes",
        ("small", "--guidance", 2): "was trained with dropout 0",
        ("holes", "--image", digit): "requires a mask",
        ("holes", "--image", digit, "--mask", folder / "six.png"): "Make them the same size",
    }.items():
        assert message in refused("sample", folder / words[0], *words[1:], *out), words
    assert "conditioned on images and needs one" in refused("inpaint", folder / "holes", digit, hole, *out)
    assert "conditioned on images and needs one" in refused("edit", folder / "holes", digit, *out)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow  # an ODE
def test_likelihood_given_the_images_of_the_samples(folder):
    result = unidiff("likelihood", folder / "small", "--count", 1, "--levels", 0, "--tolerance", 0.1, "--json")
    assert result.code == 0, result
    run = ud.load(folder / "small")
    x = run.recipe.data.open("test").batch(torch.arange(1))
    cond = run.recipe.conditioning.conditions(x, None, torch.ones(1, 1, dtype=torch.float64))
    exact = ud.log_likelihood(run.denoiser, x, ud.Hutchinson(), rtol=0.1, atol=0.1, seeds=1, **cond)
    assert json.loads(result.out)["flow"]["nats"] == pytest.approx(float(exact.nats[0]), rel=1e-6)
