"""Images with noise and blurred ones among the images themselves, told apart by their classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.basis import DCT
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, require, require_whole
from unidiff.files import digest_of
from unidiff.noise import Seeded

__all__ = ["Distorted"]

_KINDS = ("", ", noisy", ", blurred")


@dataclass(frozen=True)
class Distorted(Dataset):
    """Images as they are, with noise, and blurred: three times as many, in three times as many classes.

    A classifier of clean images may be blind to noise and to blur. One that tells these kinds apart is not, and neither
    are its features, in which `unidiff evaluate` compares samples; the probabilities of a class in its three kinds are
    added up there.

    Sample i + N k of N images is image i of kind k: 0 as it is, 1 noisy, 2 blurred; a function of its number, so that
    training is resumed bit for bit. Class c becomes 3 c + k. Distorted images are clipped to [-1, 1].

    Args:
        data: The images, with classes, whose sizes are known.
        noise: Standard deviation of the noise, above 0, of values in [-1, 1].
        blur: Standard deviation in pixels of the Gaussian blur, above 0: that of the heat equation without flux at the
            border, at the time blur^2 / 2.
        seed: Seed of the noise, at least 0.
    """

    data: Dataset
    noise: float = 0.1
    blur: float = 0.7
    seed: int = 0

    kinds: ClassVar[int] = len(_KINDS)

    def __post_init__(self) -> None:
        if len(self.data.shape) != 3 or self.data.coded:
            samples = "latents" if self.data.coded else f"of shape {self.data.shape}"
            raise ParameterError("data", f"must be images, but the samples of {self.data} are {samples}")
        if self.data.kinds > 1:
            raise ParameterError("data", f"must be images that are not distorted yet, got {self.data}")
        for name in ("noise", "blur"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a number > 0")
        require_whole("seed", self.seed, 0, 2**62)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the images."""
        return self.data.shape

    @property
    def classes(self) -> int | None:
        """Three times as many as the images have."""
        return None if self.data.classes is None else self.kinds * self.data.classes

    def open(self, split: str = "train") -> OpenDataset:
        """Open the images, which are distorted when a batch needs them; see `Dataset.open`."""
        source = self.data.open(split)
        if source.labels is None:
            raise DataError(f"{source.name} has no classes. Use images with classes, or subfolders of them.")
        return _Distorted(self, source, source.labels)


class _Distorted(OpenDataset):
    """Distorts the images of a batch."""

    def __init__(self, data: Distorted, source: OpenDataset, labels: Tensor) -> None:
        names = None
        if source.class_names is not None:
            names = tuple(f"{name}{kind}" for name in source.class_names for kind in _KINDS)
        identity = f"{data.noise} {data.blur} {data.seed} {source.checksum}"
        checksum = digest_of([identity.encode()])
        label = torch.cat([data.kinds * labels + kind for kind in range(data.kinds)])
        super().__init__(f"{source.name}, distorted", source.shape, checksum, source.stand_in, label, names)
        self.data, self.source = data, source
        basis = DCT(source.shape[1:])
        self.damping = (-0.5 * data.blur**2 * basis.eigenvalues()).exp().float()  # exp(-lambda t), t = blur^2 / 2
        self.basis = basis

    def __len__(self) -> int:
        return self.data.kinds * len(self.source)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """See `OpenDataset.batch`."""
        x = self.source.batch(indices % len(self.source), device)
        kinds = indices.cpu() // len(self.source)
        noisy, blurred = ((kinds == kind).nonzero()[:, 0] for kind in (1, 2))
        if len(noisy):
            eps = Seeded([self.data.seed + row for row in indices.cpu()[noisy].tolist()])(x[noisy.to(device)])
            x[noisy.to(device)] += self.data.noise * eps
        if len(blurred):
            u = self.basis.forward(x[blurred.to(device)])
            x[blurred.to(device)] = self.basis.inverse(u * self.damping.to(device))
        return x.clamp_(-1, 1)

    def prefetch(self, indices: Tensor) -> None:
        """See `OpenDataset.prefetch`."""
        self.source.prefetch(indices % len(self.source))

    @property
    def fingerprint(self) -> str:
        """See `OpenDataset.fingerprint`."""
        return f"{self.checksum} {self.source.fingerprint}"
