"""Data of one's own: every form gives the same training as the tensor it holds, resumes, or is one clear error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import equal
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import unidiff as ud
from unidiff.data import as_open_dataset
from unidiff.errors import DataError, ParameterError
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3
SETTINGS = ud.Training(steps=6, batch=8, lr=0.01, log_every=2, checkpoint_every=100, precision="fp32")


class Noisy(torch.utils.data.Dataset):
    """A map-style dataset with an augmentation that draws from PyTorch's generator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] + 0.1 * torch.randn(2), int(Y[i])


class Stream(IterableDataset):
    """An iterable that can be iterated any number of times."""

    def __iter__(self):
        return iter(zip(X, Y))


def fit(data, labels=False, settings=SETTINGS, **options):
    torch.manual_seed(0)
    network = ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1, classes=3) if labels else ud.MLP((2,), 16, 1)
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network)
    conditioning = ud.Labels() if labels else None
    trained = ud.train(model, data, ud.Denoising(), settings, conditioning=conditioning, seed=3, **options)
    return [*trained.backbone.state_dict().values()]


FORMS = {
    "array": lambda: X.numpy(),
    "float64": lambda: X.double(),
    "pair": lambda: (X, Y),
    "torch dataset": lambda: TensorDataset(X, Y),
    "without labels": lambda: TensorDataset(X),
    "list": lambda: list(X),
    "source": lambda: ud.TensorSource(X, "x"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_as_the_tensor_does(form):
    assert equal(fit(FORMS[form]()), fit(X))


@pytest.mark.parametrize("make", [lambda: X, Noisy, Stream, lambda: ((x, 0) for x in X.repeat(2, 1))])
def test_resumed_is_uninterrupted(make, tmp_path):
    """Also with random augmentations, and an iterable that ends within the run (48 samples are taken of 30)."""
    whole, steps = fit(make()), []
    with pytest.raises(Interrupted):
        fit(make(), checkpoints=Checkpoints(tmp_path, 1), on_step=steps.append, stop=lambda: len(steps) == 4)
    assert equal(fit(make(), checkpoints=Checkpoints(tmp_path, 1)), whole)


def test_an_iterable_is_read_in_its_order_and_again():
    source = as_open_dataset(Stream())
    rows = torch.arange(28, 36)
    x, y = source.examples(rows)
    assert torch.equal(x, X[rows % 30])
    assert torch.equal(y, Y[rows % 30])
    assert torch.equal(source.batch(torch.arange(2)), X[:2])  # earlier samples: read from the beginning
    with pytest.raises(DataError, match="cannot be counted"):
        len(source)
    # In training too: an iterable trains as a tensor that is not shuffled.
    seen = []

    class Recorded(Stream):
        def __iter__(self):
            for i, pair in enumerate(zip(X, Y)):
                seen.append(i)
                yield pair

    fit(Recorded())
    taken = [*range(30), *range(18)]  # 48 samples, and at the beginning one that tells the shape
    assert seen[: len(taken)] == taken


@pytest.mark.parametrize("kind", ["pairs", "tensors"])
def test_labels_and_images(kind):
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(12) % 3
    pictures = [(Image.fromarray(image[0].numpy()), int(label)) for image, label in zip(images, labels)]
    data = {"pairs": pictures, "tensors": TensorDataset(images, labels)}[kind]
    source = as_open_dataset(data, "mine")
    expected = ud.TensorSource(images, "mine", labels=labels)
    assert source.shape == (1, 8, 8)
    assert source.checksum == expected.checksum  # of the bytes of the samples
    assert torch.equal(source.batch(torch.tensor([3, 1])), expected.batch(torch.tensor([3, 1])))
    assert torch.equal(source.labels, labels)
    settings = ud.Training(steps=2, batch=4, precision="fp32")
    assert equal(fit(data, True, settings), fit(expected, True, settings))
    assert as_open_dataset([(Image.new("RGB", (8, 8)), 0)]).shape == (3, 8, 8)


def test_a_dataset_of_ours_is_opened():
    assert as_open_dataset(ud.data.Ring(count=20)).checksum == ud.data.Ring(count=20).open().checksum


def test_verification_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    first = as_open_dataset(Noisy())
    assert torch.equal(torch.get_rng_state(), expected)
    torch.manual_seed(6)
    assert as_open_dataset(Noisy()).checksum == first.checksum


GOOD, FLAT = torch.zeros(4, 2), [torch.zeros(2)] * 4
BAD = {
    "empty tensor": (torch.zeros(0, 2), r"values must be a tensor of shape \(N, \*shape\) with N >= 1, got \(0, 2\)"),
    "empty list": ([], r"data must be at least one sample, got \[\]"),
    "empty iterable": (iter(()), "data must yield at least one sample, got an empty iterable"),
    "one axis": (torch.zeros(5), r"values must be a tensor of shape \(N, \*shape\)"),
    "no axis in a sample": ([torch.tensor(1.0)], r"data\[0\] must be a tensor \(\*shape\) with at least one axis"),
    "integers": (
        torch.zeros(4, 2, dtype=torch.int64),
        "must be a tensor of uint8 or floating-point numbers, got torch.int",
    ),
    "integer samples": (
        [torch.zeros(2, dtype=torch.int64)],
        r"data\[0\] must be uint8 or floating point, got torch.int64",
    ),
    "range": ([torch.full((1, 4, 4), 200.0)], r"data\[0\] must be in \[-1, 1\] for images, or uint8"),
    "range of an iterable": (iter([torch.full((1, 4, 4), 200.0)]), r"sample 0 must be in \[-1, 1\] for images"),
    "nan": ([torch.zeros(2), torch.tensor([0.0, np.nan])], r"data\[1\] must be finite"),
    "labels of another length": ((GOOD, torch.zeros(3).long()), r"labels must be of shape \(4,\), .*, got \(3,\)"),
    "labels that are no integers": ((GOOD, torch.zeros(4)), "labels must be integers, got torch.float32"),
    "labels of 64 bits": (
        (GOOD, torch.tensor([0, 1, 2, 2**64 - 1], dtype=torch.uint64)),
        "labels must be integers >= 0, got -1",
    ),
    "negative labels": ((GOOD, torch.tensor([0, 1, -1, 0])), "labels must be integers >= 0, got -1"),
    "some without labels": ([(FLAT[0], 1), FLAT[1]], "only one of the samples 0 and 1 has a label"),
    "unlike shapes": ([torch.zeros(2), torch.zeros(3)], r"sample 1 is torch.float32 of shape \(3,\), and sample 0"),
    "unlike dtypes": (
        [torch.zeros(2), torch.zeros(2).byte()],
        r"sample 1 is torch.uint8 of shape \(2,\), and sample 0",
    ),
    "a dict": ({"x": GOOD}, "data must be a tensor, a pair of tensors .*, got .'x': a tensor of shape"),
    "dicts": ([{"x": 1}], r"data\[0\] must be a tensor, an array or an image, .* got dict"),
    "a number": (3, "data must be a tensor, a pair"),
    "a loader": (DataLoader(TensorDataset(GOOD), 2), r"data: a DataLoader yields batches.* loader\.dataset"),
    "another shape": (torch.zeros(4, 3), r"source must be data of shape \(2,\), which the network was made for, got"),
    "another shape, iterable": (iter([torch.zeros(3)]), r"source must be data of shape \(2,\), which the network"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_one_error_before_any_step(name):
    data, message = BAD[name]
    with pytest.raises((ParameterError, DataError), match=message):
        fit(data, on_step=lambda progress: pytest.fail("a step was taken"))


def test_an_iterable_that_ends_early_is_one_error():
    with pytest.raises(DataError, match="data ended after 30 samples, but sample 30 is needed; a generator must yield"):
        fit(x for x in X)
    source = as_open_dataset(x for x in X)
    source.batch(torch.arange(9))
    with pytest.raises(DataError, match="a generator cannot be read twice"):
        source.batch(torch.arange(9))


def test_samples_that_change_are_one_error():
    class Changing(Noisy):
        size = 2

        def __getitem__(self, i):
            return torch.zeros(self.size)

    data = Changing()
    source = as_open_dataset(data)
    data.size = 3
    with pytest.raises(DataError, match=r"sample 4 must have shape \(2,\), got \(3,\)"):
        source.batch(torch.tensor([4]))
    changing = iter([torch.zeros(2)] * 9 + [torch.zeros(3)] * 90)
    with pytest.raises(DataError, match=r"sample 9 must have shape \(2,\), got \(3,\)"):
        fit(changing)


def test_labels_are_compared_with_the_network():
    images = torch.zeros(4, 1, 8, 8)
    for data in ((images, torch.tensor([0, 1, 2, 3])), iter(zip(images, [0, 1, 2, 3]))):
        with pytest.raises(DataError, match="data has the label 3, but the network has 3 classes"):
            fit(data, True, ud.Training(steps=1, batch=4))
    for data in (images, iter(images)):
        with pytest.raises(DataError, match="data has no labels"):
            fit(data, True, ud.Training(steps=1, batch=4))
