"""Image folders and arrays: what is read, what is refused, and that prefetching changes nothing."""

from __future__ import annotations

import copy
import io
import os
import pickle
import struct
import warnings

import numpy as np
import PIL
import pretend_gpu
import pytest
import torch
from PIL import Image

from unidiff.data import folder
from unidiff.data.adapt import as_open_dataset
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


def tiff(values, bits, sample_format=1, white_is_zero=False, order="<"):
    """A plain TIFF of grey values (8, 8), each in `bits` bits; SampleFormat 1 is unsigned, 2 signed, 3 floating."""
    if bits == 12:
        digits = "".join(f"{int(value):03x}" for value in values.flatten())
        data = bytes.fromhex(digits)
    else:
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    photometric = 0 if white_is_zero else 1
    tags = {
        256: 8,
        257: 8,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 8,
        279: len(data),
        339: sample_format,
    }
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def grey_of(tmp_path, content, ending):
    """Grey values, 0 to 255, of an image file."""
    (tmp_path / f"a.{ending}").write_bytes(content)
    batch = ImageFolder(str(tmp_path), size=8, channels=1).open().batch(torch.tensor([0]))
    return ((batch[0, 0] + 1) * 127.5).round().int().numpy()


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


EIGHT = np.arange(64).reshape(8, 8) * 4  # up to 252
SIXTEEN = (EIGHT * 257).astype(np.uint16)  # 65535 / 255 = 257
TWELVE = np.round(EIGHT * 4095 / 255).astype(np.uint16)
WIDE = {
    "TIFF of 8 bits": (tiff(EIGHT.astype(np.uint8), 8), "tif"),
    "TIFF of 12 bits": (tiff(TWELVE, 12), "tif"),
    "TIFF of 16 bits": (tiff(SIXTEEN, 16), "tif"),
    "TIFF of 16 bits, big-endian": (tiff(SIXTEEN, 16, order=">"), "tif"),
    "TIFF of 16 bits, white is zero": (tiff(65535 - SIXTEEN, 16, white_is_zero=True), "tif"),
    "TIFF of 8 bits, white is zero": (tiff((255 - EIGHT).astype(np.uint8), 8, white_is_zero=True), "tif"),
    "PNG of 16 bits": (encoded(Image.fromarray(SIXTEEN), "PNG"), "png"),
    "JPEG 2000 of 16 bits": (encoded(Image.fromarray(SIXTEEN), "JPEG2000"), "jp2"),
    "PGM of 16 bits": (b"P5 8 8 65535\n" + SIXTEEN.astype(">u2").tobytes(), "pgm"),
    "PGM up to 1020": (b"P5 8 8 1020\n" + (EIGHT * 4).astype(">u2").tobytes(), "pgm"),
    "PGM up to 85": (b"P5 8 8 85\n" + bytes((EIGHT // 3).flatten().tolist()), "pgm"),
}


@pytest.mark.parametrize("case", WIDE)
def test_grey_values_of_any_depth_span_the_same_range(tmp_path, case):
    # 12 bits: a value is off by at most 1/2 of 4095, 1/32 of 255, and rounds back. 85 = 255 / 3: multiples of 3 only.
    expected = EIGHT // 3 * 3 if "85" in case else EIGHT
    assert np.array_equal(grey_of(tmp_path, *WIDE[case]), expected)


@pytest.mark.parametrize(
    ("values", "bits", "sample_format"),
    [
        (EIGHT.astype(np.int32), 32, 2),
        (EIGHT.astype(np.uint32), 32, 1),
        ((EIGHT.astype(np.uint32) << 23), 32, 1),
        (SIXTEEN.astype(np.int16), 16, 2),
        ((EIGHT - 128).astype(np.int8), 8, 2),
        (EIGHT.astype(np.float32) / 255, 32, 3),
        (EIGHT.astype(np.float64), 64, 3),
    ],
)
def test_grey_values_without_a_known_range_are_an_error(tmp_path, values, bits, sample_format):
    with pytest.raises(DataError, match=r"a\.tif is not a readable image"):
        grey_of(tmp_path, tiff(values, bits, sample_format), "tif")


def test_a_portable_float_map_is_an_error(tmp_path):
    with pytest.raises(DataError, match="floating-point numbers"):
        grey_of(tmp_path, b"Pf 8 8\n-1.0\n" + EIGHT.astype("<f4").tobytes(), "pfm")


RED, HALF = (255, 0, 0), (255, 128, 128)  # half-transparent red on white
MODES = {
    "1": ("1", 1, (255, 255, 255), ("png", "tif", "gif", "bmp", "pbm")),
    "L": ("L", 77, (77, 77, 77), ("png", "tif", "gif", "bmp", "pgm")),
    "LA": ("LA", (0, 127), (128, 128, 128), ("png", "tif", "webp")),
    "RGB": ("RGB", RED, RED, ("png", "tif", "bmp", "ppm", "qoi")),
    "RGBA": ("RGBA", (*RED, 127), HALF, ("png", "tif", "webp")),
    "CMYK": ("CMYK", (0, 255, 255, 0), RED, ("tif", "jpg")),
    "YCbCr": ("YCbCr", (76, 85, 255), RED, ("tif",)),
}


@pytest.mark.parametrize(("mode", "ending"), [(mode, ending) for mode in MODES for ending in MODES[mode][3]])
def test_every_mode_has_its_colours(tmp_path, mode, ending):
    kind, colour, expected, _ = MODES[mode]
    if mode == "YCbCr" and PIL.__version__.startswith("12.3."):
        pytest.skip("Pillow 12.3 cannot read TIFFs of this kind, its own included")
    options = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    Image.new(kind, (8, 8), colour).save(tmp_path / f"a.{ending}", **options)
    pixel = (ImageFolder(str(tmp_path), size=8).open().batch(torch.tensor([0]))[0, :, 3, 3] + 1) * 127.5
    # YCbCr in whole numbers is 1 or 2 off; transparency is rounded to 127/255.
    assert (pixel - torch.tensor(expected)).abs().max() <= (2 if mode in ("YCbCr", "CMYK") else 0.6)


@pytest.mark.parametrize("transparent", [None, 1])
@pytest.mark.parametrize("ending", ["png", "gif", "tif"])
def test_palettes_have_their_colours(tmp_path, ending, transparent):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED, 0, 255, 0])
    if transparent is not None and ending == "tif":
        pytest.skip("a TIFF has no transparent colour of a palette")
    image.save(tmp_path / f"a.{ending}", **({} if transparent is None else {"transparency": transparent}))
    pixel = (ImageFolder(str(tmp_path), size=8).open().batch(torch.tensor([0]))[0, :, 3, 3] + 1) * 127.5
    assert pixel.tolist() == ([*RED] if transparent is None else [255, 255, 255])


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


@pytest.mark.skipif(not pretend_gpu.AVAILABLE, reason="torch < 2.9 has no Python backend")
@pytest.mark.parametrize("kind", ["folder", "array", "scaled array", "images"])
def test_bytes_cross_to_a_device_and_become_the_same_pixels_there(kind, tmp_path, monkeypatch):
    for i in range(3):
        save(tmp_path / "c" / f"{i}.png", 9, 8, 3)
    stored = torch.arange(5 * 3 * 8 * 8).reshape(5, 3, 8, 8).to(torch.uint8)
    np.save(tmp_path / "array.npy", stored.numpy().repeat(2, 0))
    source = {
        "folder": lambda: ImageFolder(str(tmp_path / "c"), size=8, flip=True).open(),
        "array": lambda: ArrayFile(str(tmp_path / "array.npy")).open(),
        "scaled array": lambda: ArrayFile(str(tmp_path / "array.npy"), low=0, high=300).open(),
        "images": lambda: as_open_dataset([*stored]),
    }[kind]()
    indices = torch.tensor([3, 0, 3, 4])
    crossed = set()
    monkeypatch.setattr(pretend_gpu, "_upload", lambda tensor, non_blocking: crossed.add((tensor.dtype, non_blocking)))
    with pretend_gpu.pretend_gpu() as gpu:
        x = source.batch(indices, gpu.device)
    assert not gpu.waits
    assert crossed <= {(torch.uint8, True), (torch.bool, True)}, crossed
    assert torch.equal(x.cpu(), source.batch(indices))


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


def count(root, split="train"):
    """Number of samples, where nothing is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return len(ImageFolder(str(root), size=8).open(split))


def left_out(root, split="train"):
    """Number of samples and the warning of what is left out."""
    with pytest.warns(UserWarning, match="Left out of") as caught:
        number = len(ImageFolder(str(root), size=8).open(split))
    return number, str(caught[0].message)


def fill(folder, number, start=0):
    for i in range(start, start + number):
        save(folder / f"{i}.png", 8, 8)


@pytest.mark.parametrize("target", [".", "../pictures", "..", "deep/er", "deep"])
def test_links_in_a_circle_add_nothing(tmp_path, target):
    fill(tmp_path / "pictures", 3)
    fill(tmp_path / "pictures" / "deep" / "er", 2)
    fill(tmp_path, 4)  # beside the folder: reached only by a link to what holds it
    (tmp_path / "pictures" / "link").symlink_to(target)
    number, said = left_out(tmp_path / "pictures")
    assert number == 5
    assert "1 links to a folder that is listed or holds this one (link)" in said


def test_two_folders_that_hold_links_to_each_other(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        fill(tmp_path / name, 2)
        (tmp_path / name / "link").symlink_to(f"../{other}")
    source = ImageFolder(str(tmp_path), size=8).open()
    assert source.class_names == ("a", "b")
    assert source.labels.tolist() == [0, 0, 1, 1]


def test_hard_links_are_read_once_and_not_in_both_splits(tmp_path):
    fill(tmp_path / "train", 3)
    for i in range(3):
        (tmp_path / "train" / f"again{i}.png").hardlink_to(tmp_path / "train" / f"{i}.png")
    fill(tmp_path / "test", 2)
    number, said = left_out(tmp_path)
    assert number == 3
    assert "3 links to an image that is listed (" in said
    (tmp_path / "test" / "known.png").hardlink_to(tmp_path / "train" / "0.png")
    with pytest.raises(DataError, match=r"train/ and test/ share 1 file, such as known.png"):
        ImageFolder(str(tmp_path), size=8).open()


def test_linked_folders_and_files_are_read_once_each(tmp_path):
    fill(tmp_path / "pool", 3)
    fill(tmp_path / "root" / "own", 2)
    for name in ("cat", "again"):
        (tmp_path / "root" / name).symlink_to("../pool")
    (tmp_path / "root" / "own" / "link.png").symlink_to("0.png")
    (tmp_path / "root" / "own" / "from_pool.png").symlink_to("../../pool/0.png")
    number, said = left_out(tmp_path / "root")
    assert number == 5
    assert "1 links to a folder that is listed or holds this one (cat)" in said  # again/ comes first
    assert "2 links to an image that is listed (own/from_pool.png, own/link.png)" in said
    source = ImageFolder(str(tmp_path / "root"), size=8).open()
    assert source.class_names == ("again", "own")


def test_what_is_no_file_is_left_out_and_named(tmp_path):
    fill(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "empty.png").touch()
    number, said = left_out(tmp_path)
    assert number == 3
    for reason in ("2 that are not regular files, such as pipes and devices (device.png, pipe.png)",
                   "2 broken links (gone.png, self.png)", "1 empty files (empty.png)"):  # fmt: skip
        assert reason in said


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPG", ".jp2", ".tga", ".apng", ".webp", ".pbm", ".qoi", ".ico"])
def test_every_format_that_pillow_reads_is_an_image(tmp_path, ending):
    image = Image.new("1" if ending == ".pbm" else "RGB", (16, 16))
    image.save(tmp_path / f"a{ending}", Image.registered_extensions()[ending.lower()])
    assert count(tmp_path) == 1


def test_other_endings_are_counted(tmp_path):
    fill(tmp_path, 1)
    for name in ("a.heic", "b.heic", "c.txt", "noend", "film.mpg", "data.h5"):
        (tmp_path / name).write_text("x")
    number, said = left_out(tmp_path)
    assert number == 1
    assert "6 without the extension of a readable image format (2 x .heic, 1 x " in said


def test_a_file_without_permission_is_named_before_anything_is_decoded(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("1.png") and access(path, mode))
    with pytest.raises(DataError, match=r"no permission to read .*1\.png"):
        count(tmp_path)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3)
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"b cannot be read \(Permission denied\)"):
        count(tmp_path)


def test_names_that_are_not_utf8_are_read(tmp_path):
    fill(tmp_path, 1)
    os.rename(tmp_path / "0.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert count(tmp_path) == 1


@pytest.mark.parametrize("train", ["train", "training", "Train"])
@pytest.mark.parametrize("other", ["test", "testing", "val", "valid", "validation", "Val"])
def test_the_usual_names_of_splits(tmp_path, train, other):
    fill(tmp_path / train, 12)
    fill(tmp_path / other, 3, 12)
    assert (count(tmp_path), count(tmp_path, "test")) == (12, 3)
    assert ImageFolder(str(tmp_path), size=8).open().class_names is None


def test_with_three_splits_validation_is_left_out_and_said(tmp_path):
    for i, name in enumerate(("train", "val", "test")):
        fill(tmp_path / name, 2 + i, 10 * i)
    number, said = left_out(tmp_path)
    assert (number, left_out(tmp_path, "test")[0]) == (2, 4)
    assert "1 split that is not used, as there is a test split (val/)" in said


def test_what_lies_beside_the_splits_is_said_or_an_error(tmp_path):
    fill(tmp_path / "train", 12)
    assert (count(tmp_path), count(tmp_path, "test")) == (11, 1)
    save(tmp_path / "preview.png", 8, 8)
    number, said = left_out(tmp_path)
    assert number == 11
    assert "1 images that belong to no split (preview.png)" in said
    fill(tmp_path / "plane", 2)  # train/ beside plane/: a class?
    with pytest.raises(DataError, match=r"train/ may be a split or a class, because plane/ contains images too"):
        count(tmp_path)
    fill(tmp_path / "test", 3, 12)
    assert "1 folders of images that belong to no split (plane/)" in left_out(tmp_path)[1]


@pytest.mark.parametrize(
    "folders",
    [
        ("train2017", "val2017"),
        ("train1", "val1"),
        ("trainA", "trainB", "testA", "testB"),
        ("trn", "tst"),
        ("train_images", "val_images"),
        ("Train-Set", "Test-Set"),
        ("images/train", "images/val"),
    ],
)
def test_folders_that_look_like_splits_are_no_classes(tmp_path, folders):
    for name in folders:
        fill(tmp_path / name, 6)
    with pytest.raises(DataError, match="look like splits of the data, and would be read as classes"):
        ImageFolder(tmp_path).open()


def test_classes_may_have_such_a_name(tmp_path):
    for name in ("bus", "dev1", "trains"):
        fill(tmp_path / name, 6)
    assert ImageFolder(tmp_path).open().class_names == ("bus", "dev1", "trains")


def test_deep_images_of_shallow_values_are_mentioned(tmp_path):
    for number in range(10):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 4).save(tmp_path / f"{number}.tif")
    with pytest.warns(UserWarning, match="values up to 65535 has none above 252, so it is read as almost black"):
        ImageFolder(tmp_path, size=8, channels=1).open()


def test_ambiguous_splits_are_an_error(tmp_path):
    fill(tmp_path / "val", 2)
    with pytest.raises(DataError, match=r"val/ but no train/"):
        count(tmp_path)
    fill(tmp_path / "train", 2)
    (tmp_path / "train" / "link").symlink_to("../val")
    with pytest.raises(DataError, match="train/ and val/ share 2 files"):
        count(tmp_path)
    fill(tmp_path / "validation", 2)
    with pytest.raises(DataError, match="has both val/ and validation/"):
        count(tmp_path)


def test_an_opened_folder_can_be_pickled_and_copied(tmp_path):
    fill(tmp_path, 3)
    source = ImageFolder(str(tmp_path), size=8).open()
    source.prefetch(torch.arange(3))
    for twin in (pickle.loads(pickle.dumps(source)), copy.deepcopy(source)):
        assert torch.equal(twin.batch(torch.arange(3)), source.batch(torch.arange(3)))


def test_other_files_are_passed_over(tmp_path):
    save(tmp_path / "a.png", 8, 8)
    save(tmp_path / ".hidden.png", 8, 8)
    save(tmp_path / ".thumbnails" / "a.png", 8, 8)
    assert count(tmp_path) == 1


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
    with pytest.raises(DataError, match="contains no images"):
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
    assert "is unavailable (the folder does not exist)" in source.stand_in


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
    data = array(tmp_path, np.array([[[0, 255]], [[51, 102]]], dtype=np.uint8), layout="NHW")
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
        (np.full((3, 1, 4, 4), 1.5), {}, "from 1.5 to 1.5; they must be in"),
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


@pytest.mark.parametrize(
    "shape", [(20, 3, 64), (20, 64, 3), (20, 1, 128), (20, 28, 20), (20, 4, 4), (20, 32, 32, 3), (20, 1, 4, 8, 8)]
)
def test_shapes_that_may_mean_two_things_are_an_error(tmp_path, shape):
    with pytest.raises(DataError, match=r"whose layout is ambiguous; .*Set layout: NCL for signals, NCHW, NHW or NHWC"):
        _ = array(tmp_path, np.zeros(shape)).shape


@pytest.mark.parametrize(
    ("given", "layout", "expected"),
    [
        ((20, 8, 8), None, (1, 8, 8)),
        ((20, 28, 20), "NHW", (1, 28, 20)),
        ((20, 3, 64), "NHW", (1, 3, 64)),
        ((20, 5, 7, 3), "NHWC", (3, 5, 7)),
        ((20, 5, 7, 3), "NCHW", (5, 7, 3)),
        ((20, 16, 9, 9), None, (16, 9, 9)),
        ((20, 3, 4, 4), None, (3, 4, 4)),
        ((20, 3), None, (3,)),
        ((20, 3), "ND", (3,)),
        ((20, 3, 64), "NCL", (3, 64)),
        ((20, 1, 8, 8), "NCHW", (1, 8, 8)),
        ((20, 2, 4, 8, 8), "NCDHW", (2, 4, 8, 8)),
    ],
)
def test_layouts(tmp_path, given, layout, expected):
    values = np.random.default_rng(0).uniform(-1, 1, given).astype(np.float32)
    data = array(tmp_path, values, layout=layout)
    source = data.open()
    assert data.shape == source.shape == expected
    sample = values[4].transpose(2, 0, 1) if layout == "NHWC" else values[4]
    assert torch.equal(source.batch(torch.tensor([4]))[0], torch.from_numpy(sample.copy()).reshape(expected))


def test_a_layout_that_the_array_does_not_have_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"shape \(20, 3\), which is not NHW"):
        _ = array(tmp_path, np.zeros((20, 3)), layout="NHW").shape
    with pytest.raises(ParameterError, match="layout must be NCHW or NHW or NHWC or ND or NCL or NCDHW, got 'CHW'"):
        array(tmp_path, np.zeros((20, 3)), layout="CHW")


@pytest.mark.parametrize(
    ("least", "most", "ends"),
    [(0, 255, "low: 0, high: 255"), (0, 200, "low: 0, high: 255"), (-3, 400, "low: -3, high: 400")],
)
def test_images_beyond_one_are_an_error_that_names_the_likely_ends(tmp_path, least, most, ends):
    with pytest.raises(DataError, match=rf"must be in \[-1, 1\].*{ends}"):
        array(tmp_path, np.linspace(least, most, 640).reshape(10, 1, 8, 8)).open()
    with pytest.raises(DataError, match=rf"must be in \[-1, 1\].*{ends}"):
        array(tmp_path, np.linspace(least, most, 640).reshape(10, 1, 4, 4, 4), layout="NCDHW").open()


def test_signals_may_have_any_finite_values(tmp_path):
    values = 40 * np.random.default_rng(0).standard_normal((10, 2, 9))
    assert torch.equal(everything(array(tmp_path, values, layout="NCL")), torch.from_numpy(values[:9]).float())
    values[3, 1, 2] = np.nan
    with pytest.raises(DataError, match="NaN or infinity, first in sample 3"):
        array(tmp_path, values, layout="NCL").open()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_values_that_look_like_zero_to_one_are_reported(tmp_path, dtype):
    values = (np.arange(640).reshape(10, 1, 8, 8) % 2).astype(dtype)
    with pytest.warns(UserWarning, match="values from 0 to 1, .*set low: 0, high: 1"):
        array(tmp_path, values).open()
    for ends in ({"low": 0, "high": 1}, {"low": 0, "high": 255}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array(tmp_path, values, **ends).open()


def test_whole_numbers_need_low_and_high(tmp_path):
    with pytest.raises(ParameterError, match="set low and high"):
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


@pytest.mark.parametrize(
    "labels", [np.arange(3), np.full(4, -1), np.zeros(4), np.zeros((4, 1), dtype=int), np.full(4, 2**63, "u8")]
)
def test_wrong_labels_are_refused(tmp_path, labels):
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(DataError, match="integers >= 0 of shape"):
        array(tmp_path, np.zeros((4, 2)), labels=str(tmp_path / "y.npy")).open()
