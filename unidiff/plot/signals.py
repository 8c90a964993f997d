"""Drawings of signals: a curve, and below it the amplitude spectrum."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unidiff.plot.appearance import COLOURS

__all__ = ["signal_images"]

_WIDTH, _CURVE, _SPECTRUM = 192, 88, 56  # pixels
_FINE = 3  # drawn larger by this factor, then averaged


def signal_images(x: Tensor) -> Tensor:
    """Draw signals, (N, C, L), as colour images in [-1, 1], (N, 3, height, width).

    Above, the values over time, from -1 to 1, or farther if some value is; below, |sum_n x_n e^(-2 pi i k n / L)| over
    k = 0..L/2, of which the largest of each signal is the full height. Channels are drawn over one another.
    """
    values = x.detach().double().cpu().numpy()
    reach = max(1.0, float(np.abs(values).max(initial=0.0)))
    spectra = np.abs(np.fft.rfft(values, axis=-1))
    spectra /= np.maximum(spectra.max((1, 2), keepdims=True), 1e-30)
    images = [_drawn(curve / reach, spectrum) for curve, spectrum in zip(values, spectra)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _drawn(curves: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Curves, (C, L) in [-1, 1], above spectra, (C, K) in [0, 1], as bytes, (height, width, 3)."""
    size = _WIDTH, _CURVE + _SPECTRUM
    image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for height in (_CURVE / 2, _CURVE, _CURVE + _SPECTRUM - 1):  # zero, the border, the axis of the spectrum
        draw.line([(0, height * _FINE), (size[0] * _FINE, height * _FINE)], fill=(215, 215, 215), width=_FINE)
    for channel, (curve, spectrum) in enumerate(zip(curves, spectra)):
        for line, zero, unit in ((curve, _CURVE / 2, _CURVE / 2 - 2), (spectrum, size[1] - 2, _SPECTRUM - 5)):
            across = np.linspace(1, size[0] - 2, len(line)) if len(line) > 1 else np.array([size[0] / 2])
            points = np.stack([across, zero - unit * line], axis=1) * _FINE
            draw.line(
                [tuple(point) for point in points.tolist()],
                fill=COLOURS[channel % len(COLOURS)],
                width=_FINE,
                joint="curve",
            )
    return np.asarray(image.resize(size, Image.Resampling.BOX))
