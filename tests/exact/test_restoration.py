"""Palette's restoration tasks: JPEG is that of the reference library, and uncropping masks one end of an axis."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import unidiff as ud
from unidiff.errors import ParameterError


@pytest.mark.parametrize("quality", [5, 30, 75, 100])
@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 16, 24)])
def test_jpeg_is_that_of_libjpeg(shape, quality):
    grid = torch.meshgrid(*(torch.linspace(0, 6, side) for side in shape[1:]), indexing="ij")
    smooth = torch.stack([(grid[0] * (1 + c)).sin() * (grid[1] + c).cos() for c in range(shape[0])])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(quality))
    pixels = ((smooth + 1) * 100 + 10 * noise).round().clamp(0, 255)
    array = pixels.permute(1, 2, 0).squeeze(-1).numpy().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality, subsampling=0)
    image: Any = Image.open(file)
    expected = torch.from_numpy(np.asarray(image).astype(np.float32)).reshape(*shape[1:], -1)
    found = ud.JPEG(quality).measure((pixels / 127.5 - 1)[None].double(), torch.zeros(1, 0))[0]
    difference = ((found + 1) * 127.5 - expected.permute(2, 0, 1)).abs()
    # The library transforms integers. Where a coefficient is near the middle between two multiples it may take the
    # other one, seen in up to 2 of 10 blocks: a pixel moves by at most a step of the table / 4, the largest value of an
    # orthonormal cosine; two at once are allowed. All else is within the roundings of pixels, and of colours.
    blocks = F.pad(difference, (0, -shape[2] % 8, 0, -shape[1] % 8)).unflatten(2, (-1, 8)).unflatten(1, (-1, 8))
    close = 1.001 if shape[0] == 1 else 3.001
    same = (blocks <= close).all(0).all(3).all(1)
    assert float(same.double().mean()) >= 0.7
    assert float(difference.max()) < 2 * max(image.quantization[0]) / 4 + close


def test_jpeg_of_a_block_by_hand():
    # A block of one value v has one coefficient, 8 (v - 128), a multiple of the first entry, 16 at quality 50: at
    # v = 131 it is 24, halfway between 16 and 32, and the even multiple is kept: 128 + 32 / 8 = 132.
    x = torch.full((1, 1, 8, 8), 131 / 127.5 - 1, dtype=torch.float64)
    found = ud.JPEG(50).conditions(x, None, torch.ones(1, 1))["image"]
    torch.testing.assert_close((found + 1) * 127.5, torch.full_like(x, 132.0), rtol=0, atol=1e-9)
    for shape in ((1, 8), (2, 8, 8), (1, 2, 8, 8)):
        with pytest.raises(ParameterError, match="images of one or three channels"):
            ud.JPEG().channels(shape)
    with pytest.raises(ParameterError, match="quality must be an integer from 1 to 100, got 0"):
        ud.JPEG(0)


@pytest.mark.parametrize("sizes", [(6,), (8, 5), (2, 4, 3)])
def test_uncropping_masks_each_border_alike(sizes):
    masks = ud.Uncropping(0.5)
    count = 2 * len(sizes)
    uniform = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    known = masks.known(uniform, *sizes)
    for axis, size in enumerate(sizes):
        unknown = round(size / 2)
        first, last = known[2 * axis], known[2 * axis + 1]
        assert not first.narrow(axis, 0, unknown).any()
        assert first.narrow(axis, unknown, size - unknown).all()
        assert torch.equal(last, first.flip(axis))
    x = torch.rand(count, 1, *sizes, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = masks.conditions(x, None, torch.cat([torch.ones_like(uniform), uniform], 1))["image"]
    assert torch.equal(image, torch.cat([torch.where(known[:, None], x, 0.0), known[:, None].float()], 1))
    assert torch.equal(masks.compose(torch.zeros_like(x), {"image": image}), image[:, :1])
    with pytest.raises(ParameterError, match="share must be a fraction above 0 and below 1, got 1"):
        ud.Uncropping(1)
