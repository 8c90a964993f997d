"""Folders of captioned images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import unidiff as ud
from unidiff.data.captioned_folder import text_of, texts_as_tensor
from unidiff.errors import DataError


@pytest.fixture
def photos(tmp_path):
    for number in range(10):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"image {number}, ünïcode 猫\n", encoding="utf-8")
    return tmp_path


def captions(source, rows):
    return [text_of(row) for row in source.examples(torch.tensor(rows))[1]]


def test_captions_beside_the_images(photos):
    data = ud.data.CaptionedFolder(str(photos), size=8, flip=True)
    train, test = data.open(), data.open("test")
    assert (len(train), len(test), train.shape) == (18, 2, (3, 8, 8))
    assert captions(train, [8, 17, 0]) == ["image 8, ünïcode 猫", "image 8, ünïcode 猫", "image 0, ünïcode 猫"]
    assert captions(test, [0]) == ["image 9, ünïcode 猫"]
    # The checksum covers the captions.
    (photos / "3.txt").write_text("another")
    assert data.open().checksum != train.checksum
    assert data.open("test").checksum == test.checksum


def test_captions_in_a_table(photos):
    lines = [json.dumps({"file_name": f"{number}.png", "text": f"row {number}"}) for number in range(10)]
    for number in range(9):
        (photos / f"{number}.txt").unlink()
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    data = ud.data.CaptionedFolder(str(photos), size=8)
    assert captions(data.open(), [4]) == ["row 4"]
    assert captions(data.open("test"), [0]) == ["image 9, ünïcode 猫"]  # the nearer one


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("4.txt", None, r"4\.png has no caption, neither in 4\.txt beside it nor in .*metadata\.jsonl\. Write one"),
        ("4.txt", b"\xff\xfe\xfa", r"4\.txt: it is not a text in UTF-8"),
        ("metadata.jsonl", b'{"file_name": 3}', r"metadata\.jsonl:1: a line must be such as"),
        ("metadata.jsonl", b'{"file_name": "4.png", "text": 3}', r"metadata\.jsonl:1: a caption must be a text"),
    ],
)
def test_captions_that_are_missing_or_broken(photos, name, content, problem):
    (photos / name).unlink(missing_ok=True)
    if content is not None:
        (photos / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        ud.data.CaptionedFolder(str(photos), size=8).open()


def test_texts_as_numbers():
    texts = ["", "a", "äöü 猫"]
    assert [text_of(row) for row in texts_as_tensor(texts)] == texts
