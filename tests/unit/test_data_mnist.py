"""MNIST and Fashion-MNIST: where they are found, what is verified, when the digits stand in. No network."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from unidiff import search_paths
from unidiff.data import mnist
from unidiff.data.digits import Digits
from unidiff.data.mnist import MNIST, FashionMNIST
from unidiff.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (20, 28, 28), dtype=np.uint8)
CLASSES = (np.arange(20) % 10).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path, request):
    """No network, no data of this computer (except for the test of the real files), an empty cache."""

    def refuse(url, target, limit):
        raise ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(mnist, "_download", refuse)
    monkeypatch.setattr(search_paths, "cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("UNIDIFF_OFFLINE", raising=False)
    if request.node.originalname != "test_real_mnist":
        monkeypatch.delenv("UNIDIFF_DATA", raising=False)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder that holds twenty images as if they were all of MNIST."""
    monkeypatch.setattr(MNIST, "counts", {"train": 20, "test": 20})
    monkeypatch.setattr(MNIST, "content_md5", {IMAGES: md5(idx(PIXELS)), LABELS: md5(idx(CLASSES))})
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (folder / LABELS).write_bytes(idx(CLASSES))
    return folder


def test_files_are_read_compressed_or_not(small):
    source = MNIST(root=str(small)).open()
    assert source.name == "MNIST train"
    assert torch.equal(source.values.squeeze(1), torch.from_numpy(PIXELS))
    assert source.labels.tolist() == CLASSES.tolist()
    assert source.checksum == f"md5:{md5(idx(PIXELS))}"
    assert source.class_names == tuple("0123456789")


def test_the_spelling_with_a_dot_is_found(small):
    (small / LABELS).rename(small / "train-labels.idx1-ubyte")
    assert len(MNIST(root=str(small)).open()) == 20


@pytest.mark.parametrize("size", [8, 32])
def test_other_sizes(small, size):
    source = MNIST(size=size, root=str(small)).open()
    assert source.batch(torch.arange(20)).shape == (20, 1, size, size)


def test_found_under_the_shared_folder_and_in_the_cache(small, monkeypatch, tmp_path):
    monkeypatch.setenv("UNIDIFF_DATA", str(small.parent))
    assert len(MNIST().open()) == 20
    assert len(MNIST(root="mnist").open()) == 20  # a relative root is looked up there, too
    monkeypatch.delenv("UNIDIFF_DATA")
    (tmp_path / "cache").mkdir()
    small.rename(tmp_path / "cache" / "mnist")
    assert len(MNIST().open()) == 20


@pytest.mark.parametrize("fallback", [None, "digits"])
def test_a_wrong_checksum_is_an_error_with_or_without_stand_in(small, fallback):
    changed = PIXELS.copy()
    changed[0, 0, 0] ^= 1
    path = small / f"{IMAGES}.gz"
    path.write_bytes(gzip.compress(idx(changed)))
    with pytest.raises(DataError) as caught:
        MNIST(root=str(small), fallback=fallback).open()
    for part in (str(path), md5(idx(changed)), md5(idx(PIXELS)), "Delete it"):
        assert part in str(caught.value)


@pytest.mark.parametrize("fallback", [None, "digits"])
def test_a_truncated_file_is_an_error_with_or_without_stand_in(small, fallback):
    path = small / f"{IMAGES}.gz"
    cut = path.read_bytes()[:-100]
    path.write_bytes(cut)
    with pytest.raises(DataError) as caught:
        MNIST(root=str(small), fallback=fallback).open()
    for part in (str(path), md5(cut), md5(idx(PIXELS)), "Delete it"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (idx(PIXELS)[:10], "too few for the header"),
        (b"\x00\x00\x0d\x03" + idx(PIXELS)[4:], "begins with"),
        (idx(PIXELS[:19]), "shape"),
        (idx(PIXELS)[:-1], "promises"),
        (idx(PIXELS) + b"\x00", "holds more than the 15696 bytes"),
        (idx(PIXELS[:, :27]), "shape"),
    ],
)
def test_headers_are_checked_where_no_checksum_is_known(small, monkeypatch, content, problem):
    monkeypatch.setattr(MNIST, "content_md5", {})
    (small / f"{IMAGES}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=problem) as caught:
        MNIST(root=str(small)).open()
    assert IMAGES in str(caught.value)


def test_labels_beyond_nine_are_an_error(small, monkeypatch):
    monkeypatch.setattr(MNIST, "content_md5", {})
    (small / LABELS).write_bytes(idx(CLASSES + 1))
    with pytest.raises(DataError, match="label 10"):
        MNIST(root=str(small)).open()


def test_a_root_that_does_not_exist_is_an_error_even_with_stand_in(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        MNIST(root=str(tmp_path / "nowhere"), fallback="digits").open()


def test_absent_data_name_the_places_and_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIDIFF_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        MNIST().open()
    for part in (str(tmp_path / "mnist"), str(tmp_path / "cache" / "mnist"), MNIST.mirrors[0], "fallback: digits"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_stand_in_says_so(kind, split):
    source = kind(size=28, fallback="Digits").open(split)
    assert source.stand_in.startswith(f"{kind.title} is unavailable (downloading")
    assert source.stand_in.endswith("using scikit-learn's 8x8 digits, upscaled to 28x28, instead.")
    assert torch.equal(source.values, Digits(28).open(split).values)
    assert source.to("cpu").stand_in == source.stand_in


def test_downloads_can_be_switched_off(monkeypatch):
    def fail(url, target, limit):
        pytest.fail("a download was tried")

    monkeypatch.setattr(mnist, "_download", fail)
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    assert "UNIDIFF_OFFLINE" in MNIST(fallback="digits").open().stand_in
    with pytest.raises(DataError, match="UNIDIFF_OFFLINE"):
        MNIST().open()


def test_a_download_is_verified_kept_and_the_next_mirror_tried(small, monkeypatch, tmp_path):
    asked = []

    def serve(url, target, limit):
        asked.append(url)
        first = url.startswith(MNIST.mirrors[0])
        name = url.rsplit("/", 1)[1]
        content = b"a login page" if first else idx(PIXELS if name == f"{IMAGES}.gz" else CLASSES)
        target.write_bytes(gzip.compress(content))

    monkeypatch.setattr(mnist, "_download", serve)
    assert len(MNIST().open()) == 20
    assert len(asked) == 4  # two files, each wrong at the first mirror and right at the second
    cached = sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir())
    assert cached == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert len(MNIST().open()) == 20
    assert len(asked) == 4


def test_fashion_verifies_the_compressed_file(monkeypatch, tmp_path):
    monkeypatch.setattr(FashionMNIST, "counts", {"train": 20, "test": 20})
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (tmp_path / LABELS).write_bytes(idx(CLASSES))  # not compressed: no checksum is published, the header is checked
    with pytest.raises(DataError, match=FashionMNIST.gz_md5[IMAGES]):
        FashionMNIST(root=str(tmp_path)).open()
    (tmp_path / f"{IMAGES}.gz").rename(tmp_path / "kept.gz")
    (tmp_path / IMAGES).write_bytes(idx(PIXELS))
    assert FashionMNIST(root=str(tmp_path)).open().class_names[9] == "ankle boot"


@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_real_mnist(split, count):
    shared = search_paths.shared()
    if shared is None or not (shared / "mnist").is_dir():
        pytest.skip("UNIDIFF_DATA does not name a folder that holds mnist/")
    source = MNIST().open(split)
    assert len(source) == count
    assert (
        source.checksum == f"md5:{MNIST.content_md5[('train' if split == 'train' else 't10k') + '-images-idx3-ubyte']}"
    )
    # Published counts of each digit (they follow from the md5 of the labels, but a reader can check them by eye).
    counts = {
        "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    }
    assert source.labels.bincount().tolist() == counts[split]
    batch = source.batch(torch.arange(100))
    assert batch.min() == -1
    assert batch.max() == 1
