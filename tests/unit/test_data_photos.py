"""CIFAR-10, CelebA and the `datasets` library: files of the official formats, small, and each way they can be wrong."""

from __future__ import annotations

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import unidiff as ud
from unidiff.data import CIFAR10, CelebA, HuggingFaceImages, hugging_face
from unidiff.errors import DataError, ParameterError

RANDOM = np.random.default_rng(0)
PLACE = r"https://www\.cs\.toronto\.edu/~kriz/cifar\.html"


class Small(CIFAR10):
    """CIFAR-10 with 2 images of each class in a file, written by `cifar`."""

    per_class = 2
    __doc__ = CIFAR10.__doc__


def cifar(root):
    """Files in the binary format: a label, 1024 red values, 1024 green, 1024 blue; by name."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records[name] = RANDOM.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[name][:, 0] = RANDOM.permutation(np.arange(20) % 10)
        (folder / name).write_bytes(records[name].tobytes())
    return folder, records


def archived(folder, monkeypatch):
    archive = folder.parent / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(Small, "archive_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return archive


def test_cifar_pixels_of_files_and_archive(tmp_path, monkeypatch):
    folder, records = cifar(tmp_path / "c")
    train, test = Small(tmp_path / "c").open(), Small(folder).open("test")
    assert (len(train), len(test), train.stand_in, train.shape) == (100, 20, None, (3, 32, 32))
    third = records["data_batch_2.bin"][3]  # sample 23: its pixel in row 5, column 7, by hand
    assert train.labels[23] == third[0]
    expected = torch.from_numpy(third[[1 + 1024 * c + 32 * 5 + 7 for c in range(3)]]).float() / 127.5 - 1
    assert torch.equal(train.batch(torch.tensor([23]))[0, :, 5, 7], expected)
    assert test.class_names[test.labels[0]] == CIFAR10.class_names[records["test_batch.bin"][0, 0]]
    archive = archived(folder, monkeypatch)
    for root in (archive, archive.parent):
        again = Small(root).open()
        assert again.checksum == train.checksum
        assert torch.equal(again.values, train.values)
    assert Small(archive, size=16).open("test").batch(torch.arange(2)).shape == (2, 3, 16, 16)


def test_damaged_cifar_is_one_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=f"does not exist .*{PLACE}"):
        CIFAR10(tmp_path / "nowhere").open()
    folder, records = cifar(tmp_path / "c")
    (folder / "data_batch_3.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match=f"train file 3 has 3 bytes instead of 61460; it is damaged.*{PLACE}"):
        Small(folder).open()
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin cannot be read \(there is no such file"):
        Small(folder).open()
    changed = records["test_batch.bin"].copy()
    changed[:, 0] = 4
    (folder / "test_batch.bin").write_bytes(changed.tobytes())
    with pytest.raises(
        DataError, match=r"the test files have \[0, 0, 0, 0, 20, .*\] images of the classes instead of 2"
    ):
        Small(folder).open("test")
    archive = archived(folder, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"has the md5 \w+, and cifar-10-binary\.tar\.gz has \w+: it is damaged"):
        Small(archive).open()
    (tmp_path / "p" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(DataError, match=f"holds the pickled Python version, which is not read.*{PLACE}"):
        CIFAR10(tmp_path / "p").open()
    for name in ("cat", "dog"):
        (tmp_path / "f" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / "f" / name / f"{i}.png")
    with pytest.raises(DataError, match=r"neither the files of CIFAR-10 nor a subfolder .* \(airplane, automobile"):
        CIFAR10(tmp_path / "f").open()


@pytest.mark.slow  # lists 11,000 files
def test_cifar_of_a_folder_of_images():
    try:
        train, test = (CIFAR10("cifar10-jpg").open(split) for split in ("train", "test"))
    except ud.errors.DataError as error:
        pytest.skip(str(error))
    assert (len(train), len(test)) == (10000, 1000)
    assert train.stand_in == "cifar10-jpg has 10000 images in train; CIFAR-10 has 50000."
    assert train.class_names == CIFAR10.class_names
    assert train.labels.bincount().tolist() == [1000] * 10
    x = train.batch(torch.arange(0, 10000, 100))
    assert x.shape == (100, 3, 32, 32)
    # The means of the channels of CIFAR-10 are 0.491, 0.482, 0.447 of 1 with standard deviation 0.25 of a pixel and
    # about 0.12 of an image's mean: five standard errors of 100 images are 0.06, 0.12 on [-1, 1].
    assert (x.mean((0, 2, 3)) - (2 * torch.tensor([0.491, 0.482, 0.447]) - 1)).abs().max() < 0.12


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A folder as of CelebA: 6 images 178 wide and 218 high, 3 of them for training, 1 for validation, 2 for tests."""
    top = tmp_path / "celeba" / "img_align_celeba"
    top.mkdir(parents=True)
    splits, attributes = "", "6\nBald Smiling\n"
    for i, part in enumerate((0, 0, 1, 2, 0, 2)):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[20:198, :, i % 3] = 255  # the centre square alone
        Image.fromarray(pixels).save(top / f"{i}.jpg", format="PNG")  # exact colours; the content tells the format
        splits += f"{i}.jpg {part}\n"
        attributes += f"{i}.jpg {'1' if i < 2 else '-1'}  {'1' if i > 3 else '-1'}\n"
    texts = {"list_eval_partition.txt": splits, "list_attr_celeba.txt": attributes}
    for name, text in texts.items():
        (top.parent / name).write_text(text)
    monkeypatch.setattr(CelebA, "md5", {name: hashlib.md5(text.encode()).hexdigest() for name, text in texts.items()})
    return top.parent


def test_celeba_splits_crops_and_attributes(faces):
    data = CelebA(faces, size=16, attribute="Smiling")
    train, test = data.open(), data.open("test")
    assert (len(train), len(test), data.classes, CelebA(faces).classes) == (3, 2, 2, None)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1], [0, 1])
    assert train.class_names == ("not Smiling", "Smiling")
    # Image 4 is green in its centre square.
    x = train.batch(torch.tensor([2]))[0]
    assert x.shape == (3, 16, 16)
    inside = x[:, 2:-2, 2:-2]  # the filter at an edge takes pixels from outside the square
    assert (inside - torch.tensor([-1.0, 1.0, -1.0])[:, None, None]).abs().max() < 1e-6
    assert CelebA(faces).open().labels is None
    assert torch.equal(pickle.loads(pickle.dumps(train)).batch(torch.tensor([2]))[0], x)


def test_damaged_celeba_is_one_error(faces):
    place = r"https://mmlab\.ie\.cuhk\.edu\.hk/projects/CelebA\.html"
    with pytest.raises(DataError, match=f"does not exist .*{place}"):
        CelebA(faces / "nowhere").open()
    with pytest.raises(ParameterError, match="attribute must be one of Bald, Smiling; got 'Smile'"):
        CelebA(faces, attribute="Smile").open()
    (faces / "img_align_celeba" / "4.jpg").unlink()
    (faces / "img_align_celeba" / "4.jpg").symlink_to("nowhere")
    (faces / "img_align_celeba" / "1.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match=rf"2 of 3 images of the train split are missing, unreadable or empty, such as 1\.jpg.*{place}"
    ):
        CelebA(faces).open()
    (faces / "list_eval_partition.txt").write_text("0.jpg 0\n")
    with pytest.raises(DataError, match=f"has the md5 .*: it is damaged.*{place}"):
        CelebA(faces).open()
    (faces / "list_eval_partition.txt").unlink()
    with pytest.raises(DataError, match=r"has no list_eval_partition\.txt, which goes with the attributes"):
        CelebA(faces, attribute="Bald").open()


def test_celeba_of_a_folder_of_images(faces):
    (faces / "list_eval_partition.txt").unlink()
    for i in range(10, 16):
        Image.new("RGB", (20, 30)).save(faces / "img_align_celeba" / f"{i}.jpg")
    source = CelebA(faces).open()
    assert (len(source), source.labels) == (11, None)
    assert source.stand_in == "celeba has no list_eval_partition.txt; it is read as a folder of images, celeba train."


# --- the library `datasets` ---

PIXELS = RANDOM.integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders that the library itself has written: one split, two splits, and one without images."""
    datasets = pytest.importorskip("datasets", reason="needs the extra unidiff-diffusion[datasets]")
    datasets.disable_progress_bars()
    top = tmp_path_factory.mktemp("saved")
    classes = datasets.ClassLabel(names=["even", "odd", "other"])
    features = datasets.Features({"picture": datasets.Image(), "kind": classes, "score": datasets.Value("float32")})
    columns = {"picture": [Image.fromarray(x) for x in PIXELS], "kind": [i % 2 for i in range(20)], "score": [0.5] * 20}
    rows = datasets.Dataset.from_dict(columns, features)
    rows.save_to_disk(top / "one")
    datasets.DatasetDict({"train": rows, "validation": rows.select(range(4))}).save_to_disk(top / "two")
    datasets.DatasetDict({"other": rows}).save_to_disk(top / "no-train")
    (top / "parquet").mkdir()
    rows.to_parquet(top / "parquet" / "train-0.parquet")
    return top


def photos(path, **changes):
    return HuggingFaceImages(path, **{"image": "picture", "label": "kind", "size": 9, **changes})


@pytest.mark.slow  # importing `datasets` takes some seconds
def test_images_of_the_library(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    train, test = photos(saved / "one").open(), photos(saved / "one").open("test")
    kept = [i for i in range(20) if i % 10 != 9]
    assert (len(train), len(test), train.shape) == (18, 2, (3, 9, 9))
    expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(train.batch(torch.arange(18)), expected[kept])
    assert torch.equal(test.batch(torch.arange(2)), expected[[9, 19]])
    assert train.labels.tolist() == [i % 2 for i in kept]
    assert train.class_names == ("even", "odd", "other")
    assert torch.equal(pickle.loads(pickle.dumps(train)).batch(torch.arange(18)), train.batch(torch.arange(18)))
    assert train.checksum == photos(saved / "one").open().checksum != test.checksum
    two = photos(saved / "two", label=None, channels=1, size=12)
    assert (len(two.open()), len(two.open("test"))) == (20, 4)
    assert two.open().labels is None
    assert two.open("test").batch(torch.tensor([3, 3])).shape == (2, 1, 12, 12)


@pytest.mark.slow  # importing `datasets` takes some seconds
def test_wrong_columns_and_splits_of_the_library(saved, tmp_path):
    with pytest.raises(ParameterError, match=r"image must be a column of images of .* \(picture\), got 'image'"):
        photos(saved / "one", image="image").open()
    with pytest.raises(ParameterError, match=r"label must be a column of classes .*, got 'class'"):
        photos(saved / "one", label="class").open()
    with pytest.raises(ParameterError, match=r"label must be a column of integers .*, got 0\.5 in row 0"):
        photos(saved / "one", label="score").open()
    with pytest.raises(DataError, match="has the splits other, but no train"):
        photos(saved / "no-train").open()
    with pytest.raises(DataError, match=r"cannot be loaded \(\w+: "):
        photos(tmp_path).open()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0, "cat"], r"got 'cat' in row 1\. Make such a column one of classes"),
        ([0, None], r"got None in row 1, where the class is missing\. Remove such rows"),
        ([-1, 0], r"got -1 in row 0, where the class is missing"),
        ([0, -3], r"got -3 in row 1"),
        ([0.5], r"got 0\.5 in row 0"),
        ([True], r"got True in row 0"),
        ([[0, 1]], r"got \[0, 1\] in row 0"),
        ([2**70], r"got 11805\d+ in row 0"),
    ],
)
def test_classes_of_the_library_that_are_none(values, problem):
    with pytest.raises(ParameterError, match=f"^label must be a column of integers >= 0 or of ClassLabel, {problem}"):
        hugging_face._labels(values)
    assert hugging_face._labels([0, np.int64(7)]).tolist() == [0, 7]


def test_the_library_missing_or_no_network(monkeypatch):
    monkeypatch.setattr("unidiff.data.hugging_face.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"path: .*pip install 'unidiff-diffusion\[datasets\]'"):
        photos("somewhere").open()
