"""Images, noisy and blurred ones in classes of their own."""

from __future__ import annotations

import pytest
import torch

import unidiff as ud
from unidiff.errors import DataError, ParameterError


def test_each_image_is_there_as_it_is_noisy_and_blurred():
    data = ud.data.Distorted(ud.data.Digits(), noise=0.2, blur=0.7)
    source, plain = data.open("test"), ud.data.Digits().open("test")
    count = len(plain)
    assert (len(source), data.classes, data.shape, data.kinds) == (3 * count, 30, (1, 8, 8), 3)
    rows = torch.tensor([7, count + 7, 2 * count + 7, 2 * count + 8])
    x, label = source.examples(rows)
    assert torch.equal(label, 3 * plain.labels[rows % count] + torch.tensor([0, 1, 2, 2]))
    assert torch.equal(x[0], plain.batch(rows[:1])[0])
    # A batch is a function of its numbers.
    assert all(torch.equal(source.batch(rows[i : i + 1])[0], x[i]) for i in range(4))
    assert torch.equal(source.batch(rows.flip(0)), x.flip(0))


def test_the_noise_and_the_blur_by_hand():
    # A grey image with a single bright pixel, and one of a cosine, which the heat equation damps as a whole.
    k = torch.arange(8, dtype=torch.float64)
    wave = 0.5 * torch.cos(torch.pi * 2 * (k + 0.5) / 8)[None, None, :, None].expand(1, 3, 8, 8)
    images = torch.cat([torch.zeros(200, 3, 8, 8, dtype=torch.float64), wave])
    plain = ud.data.TensorSource(images.float(), "images", labels=torch.zeros(201, dtype=torch.long))

    class Images(ud.data.Dataset):
        shape, classes = (3, 8, 8), 1

        def open(self, split="train"):
            return plain

    source = ud.data.Distorted(Images(), noise=0.1, blur=0.7).open()
    noise = source.batch(torch.arange(201, 401))
    # 38,400 values: five standard errors of a mean and of a standard deviation, s / sqrt(n) and s / sqrt(2 n).
    assert abs(noise.mean()) < 5 * 0.1 / 38400**0.5
    assert abs(noise.std() - 0.1) < 5 * 0.1 / 76800**0.5
    blurred = source.batch(torch.tensor([402 + 200]))
    damped = torch.exp(torch.tensor(-0.5 * 0.7**2 * (2 * torch.pi / 8) ** 2)) * wave
    torch.testing.assert_close(blurred, damped.float(), rtol=0, atol=1e-5)  # float32: 8 x 8 products of numbers below 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ud.data.Distorted(ud.data.Digits(), noise=0), "noise must be a number > 0, got 0"),
        (lambda: ud.data.Distorted(ud.data.Digits(), blur=-1), "blur must be a number > 0, got -1"),
        (lambda: ud.data.Distorted(ud.data.Ring()), "data must be images, but the samples"),
        (lambda: ud.data.Distorted(ud.data.Distorted(ud.data.Digits())), "not distorted yet"),
    ],
)
def test_wrong_arguments(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


def test_images_without_classes(tmp_path):
    pixels = ud.data.Digits().open().values[:20, 0].numpy()
    from PIL import Image

    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    with pytest.raises(DataError, match="has no classes"):
        ud.data.Distorted(ud.data.ImageFolder(str(tmp_path), size=8)).open()


def test_probabilities_are_those_of_the_classes_whatever_the_kind():
    network = ud.UNetEncoder((1, 8, 8), width=8, classes=6)
    torch.nn.init.normal_(network.head.weight)
    classifier = ud.NeuralClassifier(ud.FlowMatching(), network).eval()
    x = ud.data.Digits().open("test").batch(torch.arange(5))
    every = ud.evaluation.FeatureNetwork("mine", "", classifier)(x)
    classes = ud.evaluation.FeatureNetwork("mine", "", classifier, kinds=3)(x)
    assert torch.equal(every.values, classes.values)
    torch.testing.assert_close(classes.probabilities, every.probabilities.reshape(5, 2, 3).sum(2))
