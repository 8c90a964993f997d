"""Image folders and arrays: what is read, what is refused, and that prefetching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unidiff.data import folder
from unidiff.data.array import ArrayFile
from unidiff.data.folder import ImageFolder
from unidiff.errors import DataError, ParameterError

RANDOM = np.random.default_rng(1)


def save(path, *shape):
    """Write an image of random values and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return values


# --- folders


def test_an_image_of_the_right_size_is_given_exactly(tmp_path):
    values = save(tmp_path / "a.png", 16, 16, 3)
    source = ImageFolder(str(tmp_path), size=16).open()
    expected = torch.from_numpy(values).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(source.batch(torch.tensor([0]))[0], expected)
    assert source.labels is None
    assert source.class_names is None


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(21, 16, slice(2, 18), slice(0, 16)),
                                                                 (16, 40, slice(0, 16), slice(12, 28))])  # fmt: skip
def test_the_centre_is_cut_out_without_blurring(tmp_path, height, width, rows, columns):
    values = save(tmp_path / "a.png", height, width)
    batch = ImageFolder(str(tmp_path), size=16, channels=1).open().batch(torch.tensor([0]))
    assert torch.equal(batch[0, 0], torch.from_numpy(values[rows, columns]).float() / 127.5 - 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_or_colour(tmp_path, channels):
    for i, shape in enumerate([(9, 9), (50, 31, 3), (31, 50, 4), (8, 200), (1, 1, 3)]):
        save(tmp_path / f"{i}.png", *shape)
    source = ImageFolder(str(tmp_path), size=12, channels=channels).open()
    batch = source.batch(torch.arange(5))
    assert batch.shape == (5, channels, 12, 12)
    assert batch.abs().max() <= 1


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))  # 64x64: the finest stripes there are
    Image.fromarray(stripes).save(tmp_path / "a.png")
    batch = ImageFolder(str(tmp_path), size=8, channels=1).open().batch(torch.tensor([0]))
    assert batch.abs().max() < 0.05  # even grey away from the edges and nearly so at them; point sampling gives +-1


def test_transparency_is_laid_on_white_and_16_bits_are_scaled(tmp_path):
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[0, 0] = [0, 0, 0, 255]
    Image.fromarray(clear).save(tmp_path / "0.png")
    Image.fromarray(np.array([[0, 257, 65535, 32896] * 2] * 8, dtype=np.uint16)).save(tmp_path / "1.png")
    batch = ImageFolder(str(tmp_path), size=8, channels=1).open().batch(torch.arange(2))
    assert batch[0, 0, 0, 0] == -1
    assert (batch[0].flatten()[1:] == 1).all()
    assert ((batch[1, 0, 0, :4] + 1) * 127.5).round().tolist() == [0, 1, 255, 128]


def test_exif_orientation_is_obeyed(tmp_path):
    image = Image.fromarray(np.repeat(np.array([[0, 255]], dtype=np.uint8), 8, axis=0).repeat(4, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "a.png", exif=exif)
    batch = ImageFolder(str(tmp_path), size=8, channels=1).open().batch(torch.tensor([0]))
    assert (batch[0, 0, :, :4] == 1).all()
    assert (batch[0, 0, :, 4:] == -1).all()


def test_splits_and_labels_by_subfolder(tmp_path):
    for name in ("b", "a"):
        for i in range(10):
            save(tmp_path / name / f"{i}.png", 8, 8)
    data = ImageFolder(str(tmp_path), size=8, channels=1)
    train, test = data.open("train"), data.open("test")
    assert (len(train), len(test)) == (18, 2)  # every tenth in sorted order: a/9.png and b/9.png
    assert train.class_names == test.class_names == ("a", "b")
    assert train.labels.tolist() == [0] * 9 + [1] * 9
    assert test.labels.tolist() == [0, 1]


def test_train_and_test_folders_are_the_splits(tmp_path):
    for name in ("train/cat", "train/dog", "test/dog"):
        save(tmp_path / name / "0.png", 8, 8)
    data = ImageFolder(str(tmp_path), size=8)
    assert data.open("train").labels.tolist() == [0, 1]
    assert data.open("test").labels.tolist() == [1]  # the dog has the same number where there is no cat
    (tmp_path / "train").rename(tmp_path / "other")
    with pytest.raises(DataError, match="no train/"):
        data.open("train")


def test_flip_doubles_the_samples(tmp_path):
    for i in range(3):
        save(tmp_path / "c" / f"{i}.png", 8, 8, 3)
    plain = ImageFolder(str(tmp_path), size=8).open()
    both = ImageFolder(str(tmp_path), size=8, flip=True).open()
    assert len(both) == 6
    assert both.labels.tolist() == [0] * 6
    first, second = both.batch(torch.arange(6)).chunk(2)
    assert torch.equal(first, plain.batch(torch.arange(3)))
    assert torch.equal(second, first.flip(-1))
    with pytest.raises(IndexError):
        both.batch(torch.tensor([6]))


def test_prefetching_changes_nothing_and_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "PENDING", 4)
    for i in range(9):
        save(tmp_path / f"{i}.png", 10, 10, 3)
    source = ImageFolder(str(tmp_path), size=8).open()
    expected = source.batch(torch.arange(9))
    source.prefetch(torch.arange(9))
    source.prefetch(torch.arange(9))
    assert len(source._pending) <= 4
    assert torch.equal(source.batch(torch.arange(9)), expected)
    assert not source._pending


def test_other_files_are_passed_over(tmp_path):
    save(tmp_path / "a.png", 8, 8)
    save(tmp_path / ".hidden.png", 8, 8)
    save(tmp_path / ".thumbnails" / "a.png", 8, 8)
    (tmp_path / "readme.txt").write_text("not an image")
    assert len(ImageFolder(str(tmp_path), size=8).open()) == 1


def test_an_unreadable_image_is_named(tmp_path):
    save(tmp_path / "0.png", 8, 8)
    (tmp_path / "1.png").write_bytes(b"no image at all")
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])  # cut short
    source = ImageFolder(str(tmp_path), size=8).open()
    for i in (1, 2):
        source.prefetch(torch.tensor([0, i]))
        with pytest.raises(DataError, match=rf"{i}\.png is not a readable image"):
            source.batch(torch.tensor([0, i]))


def test_empty_missing_and_too_small_folders(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        ImageFolder(str(tmp_path), fallback="digits").open()
    save(tmp_path / "a.png", 8, 8)
    with pytest.raises(DataError, match="at least 10"):
        ImageFolder(str(tmp_path)).open("test")
    with pytest.raises(DataError, match="is a file"):
        ImageFolder(str(tmp_path / "a.png")).open()
    with pytest.raises(DataError, match="does not exist"):
        ImageFolder(str(tmp_path / "nowhere")).open()
    source = ImageFolder(str(tmp_path / "nowhere"), size=16, fallback="digits").open()
    assert source.shape == (3, 16, 16)
    assert "could not be had (the folder does not exist)" in source.stand_in


def test_the_checksum_follows_names_and_sizes(tmp_path, monkeypatch):
    save(tmp_path / "images" / "a.png", 8, 8)
    monkeypatch.setenv("UNIDIFF_DATA", str(tmp_path))
    before = ImageFolder("images").open().checksum  # a relative root, looked up under UNIDIFF_DATA
    assert ImageFolder(str(tmp_path / "images")).open().checksum == before
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "b.png")
    assert ImageFolder("images").open().checksum != before


# --- arrays


def array(tmp_path, values, **arguments):
    np.save(tmp_path / "x.npy", values)
    return ArrayFile(str(tmp_path / "x.npy"), **arguments)


def everything(data):
    source = data.open()
    return source.batch(torch.arange(len(source)))


def test_bytes_become_minus_one_to_one(tmp_path):
    data = array(tmp_path, np.array([[[0, 255]], [[51, 102]]], dtype=np.uint8))
    assert data.shape == (1, 1, 2)
    batch = everything(data)
    assert batch[0].flatten().tolist() == [-1.0, 1.0]
    torch.testing.assert_close(batch[1].flatten(), torch.tensor([-0.6, -0.2]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_low_and_high_are_the_ends(tmp_path, dtype):
    data = array(tmp_path, np.array([[2, 4], [3, 6]], dtype=dtype), low=2, high=6)
    assert data.shape == (2,)
    assert everything(data).tolist() == [[-1.0, 0.0], [-0.5, 1.0]]


def test_vectors_may_have_any_finite_value(tmp_path):
    values = RANDOM.normal(size=(5, 3)) * 100
    assert torch.equal(everything(array(tmp_path, values)), torch.from_numpy(values).float())


def test_every_tenth_sample_is_the_test_split(tmp_path):
    data = array(tmp_path, np.arange(25.0).reshape(25, 1), labels=str(tmp_path / "y.npy"))
    np.save(tmp_path / "y.npy", np.arange(25))
    test = data.open("test")
    assert test.batch(torch.arange(2)).flatten().tolist() == [9.0, 19.0]
    assert test.labels.tolist() == [9, 19]
    assert len(data.open("train")) == 23


def test_fortran_order_gives_the_same_samples_and_checksum(tmp_path):
    values = RANDOM.uniform(-1, 1, size=(4, 3, 5, 6))
    plain, plain_sum = everything(array(tmp_path, values)), array(tmp_path, values).open().checksum
    turned = array(tmp_path, np.asfortranarray(values))
    assert torch.equal(everything(turned), plain)
    assert turned.open().checksum == plain_sum


@pytest.mark.parametrize(
    ("values", "arguments", "problem"),
    [
        (np.full((3, 4, 4), 1.5), {}, "from 1.5 to 1.5; they must be in"),
        (np.array([[0.0], [np.nan]]), {}, "NaN or infinity, first in sample 1"),
        (np.array([[0.0, np.inf]]), {"low": 0, "high": 1}, "NaN or infinity, first in sample 0"),
        (np.array([[0.0, 3.0]]), {"low": 0, "high": 2}, "beyond low = 0 and high = 2"),
        (np.array([[{}]], dtype=object), {}, "cannot be read as a .npy file of numbers"),
        (np.zeros((3, 2), dtype=complex), {}, "complex"),
        (np.zeros(3), {}, "allowed are"),
        (np.zeros((0, 3)), {}, "allowed are"),
        (np.zeros((1, 1, 1, 1, 1)), {}, "allowed are"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, values, arguments, problem):
    with pytest.raises(DataError, match=problem):
        array(tmp_path, values, **arguments).open()


def test_whole_numbers_need_low_and_high(tmp_path):
    with pytest.raises(ParameterError, match="give low and high"):
        array(tmp_path, np.zeros((3, 2), dtype=np.int32)).open()


def test_damaged_missing_and_foreign_files(tmp_path):
    data = array(tmp_path, np.zeros((10, 2)))
    path = tmp_path / "x.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cannot be read"):
        data.open()
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot be read"):
        data.open()
    np.savez(tmp_path / "z.npz", np.zeros((3, 2)))
    with pytest.raises(DataError, match="npz archive"):
        ArrayFile(str(tmp_path / "z.npz")).open()
    with pytest.raises(DataError, match="does not exist"):
        _ = ArrayFile(str(tmp_path / "nowhere.npy")).shape
    with pytest.raises(DataError, match="at least 10"):
        array(tmp_path, np.zeros((9, 2))).open("test")


@pytest.mark.parametrize("labels", [np.arange(3), np.full(4, -1), np.zeros(4), np.zeros((4, 1), dtype=int)])
def test_wrong_labels_are_refused(tmp_path, labels):
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(DataError, match="one integer"):
        array(tmp_path, np.zeros((4, 2)), labels=str(tmp_path / "y.npy")).open()
