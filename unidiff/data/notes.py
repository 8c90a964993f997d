"""Synthesised notes: signals whose pitch and instrument are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unidiff.data.toy import Synthetic

__all__ = ["Notes"]


@dataclass(frozen=True)
class Notes(Synthetic):
    """Notes of 512 samples, (1, 512) in [-1, 1], of three instruments playing a major scale.

    A note of pitch f, in periods per 512 samples, is

        x_n = s e^(-d n / 512) sum_k a_k sin(k (2 pi f n / 512 + phi)),    n = 0..511,

    with the amplitudes a_k of its instrument, a phase phi uniform on [0, 2 pi), a decay d uniform on [0, 2], and s such
    that the largest |x_n| is uniform on [0.5, 1]. The pitches are in the ratios of just intonation, 24 : 27 : 30 : 32 :
    36 : 40 : 45 : 48, so the discrete Fourier transform is largest at k = f. Class c has pitch `PITCHES[c // 3]` and
    instrument c % 3.
    """

    PITCHES: ClassVar[tuple[int, ...]] = (24, 27, 30, 32, 36, 40, 45, 48)
    # Amplitudes of the harmonics; the first is the largest, and 5 * 48 = 240 is below the Nyquist frequency, 256.
    INSTRUMENTS: ClassVar[dict[str, tuple[float, ...]]] = {
        "flute": (1.0, 0.2, 0.05),
        "clarinet": (1.0, 0.0, 0.6, 0.0, 0.3),
        "string": (1.0, 0.5, 0.33, 0.25, 0.2),
    }
    LENGTH: ClassVar[int] = 512

    count: int = 5000
    seed: int = 0

    classes: ClassVar[int] = 24
    class_names: ClassVar[tuple[str, ...]] = tuple(
        f"{pitch} {name}" for pitch in PITCHES for name in ("flute", "clarinet", "string")
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, 512)."""
        return (1, self.LENGTH)

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        labels = random.integers(self.classes, size=self.count)
        phase, decay = 2 * np.pi * random.random((self.count, 1)), 2 * random.random((self.count, 1))
        peak = 0.5 + 0.5 * random.random((self.count, 1))
        pitches = np.array(self.PITCHES)[labels // len(self.INSTRUMENTS)]
        time = np.arange(self.LENGTH) / self.LENGTH
        x = np.zeros((self.count, self.LENGTH))
        for instrument, amplitudes in enumerate(self.INSTRUMENTS.values()):
            rows = labels % len(self.INSTRUMENTS) == instrument
            angle = 2 * np.pi * pitches[rows, None] * time + phase[rows]
            x[rows] = sum(a * np.sin(k * angle) for k, a in enumerate(amplitudes, 1))
        x *= np.exp(-decay * time)
        return (peak * x / np.abs(x).max(1, keepdims=True))[:, None], labels
