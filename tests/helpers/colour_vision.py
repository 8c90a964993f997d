"""What a figure looks like in grey print and to the colour-blind, and how far apart two colours are then.

    python tests/helpers/colour_vision.py docs/images/compare_exact_errors.png seen.png

writes the figure four times, side by side: as it is, in grey, and as it is seen with deuteranopia and protanopia.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

# Machado, Oliveira & Fernandes 2009, severity 1, for linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
# Of linear sRGB: luminance is the second row (ITU-R BT.709), white the sum of each (D65).
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
GREY = np.tile(TO_XYZ[1], (3, 1))
SEEN = {"as it is": np.eye(3), "grey": GREY, "deuteranopia": DEUTERANOPIA, "protanopia": PROTANOPIA}


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear RGB of sRGB, both in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def coded(rgb: np.ndarray) -> np.ndarray:
    """SRGB of linear RGB."""
    rgb = rgb.clip(0, 1)
    return np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)


def seen(srgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Colours (..., 3), sRGB in [0, 1], through a matrix of linear RGB."""
    return coded(linear(srgb) @ matrix.T)


def lab(srgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB in [0, 1], under D65."""
    xyz = linear(srgb) @ TO_XYZ.T / TO_XYZ.sum(1)
    cube: Callable[[np.ndarray], np.ndarray] = np.cbrt
    f = np.where(xyz > (6 / 29) ** 3, cube(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def main(source: str, target: str) -> None:
    """Write a figure as it is seen, four times."""
    with Image.open(source) as image:
        pixels = np.asarray(image.convert("RGB")) / 255
    rows = [
        np.concatenate([seen(pixels, matrix) for matrix in half], 1) for half in np.split(np.stack([*SEEN.values()]), 2)
    ]
    Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
