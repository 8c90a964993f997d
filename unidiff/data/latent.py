"""Latents of images: data for diffusion in a learned space (Rombach et al. 2022)."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unidiff import search_paths
from unidiff.codec.codec import Autoencoder, Layout
from unidiff.codec.folder import CONFIG, KEPT, WEIGHTS, codec_folder, digest, load_codec, read_layout
from unidiff.data.base import Dataset, OpenDataset, TensorSource, content_checksum
from unidiff.data.captioned import CaptionedSource
from unidiff.errors import DataError, require
from unidiff.files import digest_of, whole_file
from unidiff.reading import open_regular, read_bytes
from unidiff.text import count_of

__all__ = ["Latent"]

_BATCH = 256  # images read together
_ENCODING = 1  # part of the cache's key: to be changed whenever the result of `encode` changes


@dataclass(frozen=True)
class Latent(Dataset):
    """The latents of images under a codec, scaled to about unit variance.

    Images are encoded before any noise, samples are decoded at the end, and process, network and solver see only
    latents. The data are encoded once, as the mean of the posterior, and the latents are cached. A cache entry is used
    only for the same codec, data, split and arguments, byte for byte; a damaged one is computed again. The checksum is
    that of codec and images together.

    Args:
        data: The images.
        codec: A run of a recipe with a `codec`, a folder saved by diffusers, or `hub:OWNER/NAME`. If relative, it may
            be under $UNIDIFF_DATA. A run directory keeps a copy, which is then used unless an override names another.
        cache: Keep the latents in the user's cache; otherwise they are encoded whenever the data are opened.
    """

    data: Dataset
    codec: str
    cache: bool = True
    _kept: Path | None = field(default=None, init=False, repr=False, compare=False)

    coded: ClassVar[bool] = True
    replaced: ClassVar[str] = "codec"

    def __post_init__(self) -> None:
        require(not self.data.coded, "data", self.data, "images that are not encoded yet")
        require(isinstance(self.cache, bool), "cache", self.cache, "true or false")

    @property
    def folder(self) -> Path:
        """The folder of the codec; raises a DataError if there is none."""
        return self._kept or codec_folder(self.codec)

    @property
    def layout(self) -> Layout:
        """Shapes and scale of the codec; reads its configuration."""
        return read_layout(self.folder)

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w), from the codec's configuration; raises a DataError if there is none."""
        return self.layout.latent_shape(self.data.shape)

    @property
    def decoded_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images."""
        return self.data.shape

    @property
    def images(self) -> Dataset:
        """The images."""
        return self.data

    @property
    def classes(self) -> int | None:
        """As for the images."""
        return self.data.classes

    def network(self, device: torch.device | str = "cpu") -> Autoencoder:
        """The codec, read once for each device."""
        return _load(self.folder.absolute(), digest(self.folder), str(device))

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Images, (B, C, H, W), of latents, (B, c, h, w)."""
        return self.network(x.device).decode(x.float())

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents, (B, c, h, w), of images, (B, C, H, W)."""
        return self.network(x.device).encode(x.float())

    def kept(self) -> dict[str, bytes]:
        """The codec's files; see `Dataset.kept`."""
        _ = digest(self.folder)  # raises an error that explains what is wrong with the weights, if anything is
        return {f"{KEPT}/{name}": read_bytes(self.folder / name) for name in (CONFIG, WEIGHTS)}

    def kept_in(self, directory: Path) -> Dataset:
        """The same, with the codec of a run directory; see `Dataset.kept_in`."""
        if not os.path.isfile(directory / KEPT / CONFIG):
            remedy = "The model works only with this codec: restore the folder"
            raise DataError(f"{directory / KEPT}: the codec of this run is missing. {remedy}.")
        twin = replace(self)
        object.__setattr__(twin, "_kept", directory / KEPT)
        return twin

    def look(self, split: str = "train") -> TensorSource:
        """Zeros instead of the latents: nothing is encoded; see `Dataset.look`."""
        source = self.data.look(split)
        return self._source(source, torch.zeros(()).expand(len(source), *self.shape))

    def open(self, split: str = "train") -> TensorSource:
        """Open the images and encode them, or read the cached latents; see `Dataset.open`."""
        shape = self.shape
        source = self.data.open(split)
        identity = f"{_ENCODING} {digest(self.folder)} {source.fingerprint} {self.data!r} {split} {len(source)}"
        key = digest_of([identity.encode()]).removeprefix("sha256:")
        path = search_paths.cache() / "latents" / f"{key}.safetensors"
        values = _read(path, (len(source), *shape)) if self.cache else None
        if values is None:
            values = self._encoded(source, (len(source), *shape))
            if self.cache:
                _write(values, path)
        return self._source(source, values)

    def _source(self, source: OpenDataset, values: Tensor) -> TensorSource:
        name = f"latents of {source.name}"
        checksum = digest_of([f"{digest(self.folder)} {source.checksum}".encode()])
        captions = getattr(source, "captions", None)
        if captions is not None:
            return CaptionedSource(values, captions, name, checksum)
        return TensorSource(values, name, checksum, source.stand_in, source.labels, source.class_names)

    def _encoded(self, source: OpenDataset, shape: tuple[int, ...]) -> Tensor:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if sys.stderr.isatty():
            print(f"Encoding {source.name}, {count_of(len(source), 'image')}.", file=sys.stderr)
        values = torch.empty(shape)
        batches = torch.arange(len(source)).split(_BATCH)
        for indices, following in zip(batches, [*batches[1:], batches[0][:0]]):
            source.prefetch(following)
            values[indices] = self.encode(source.batch(indices, device)).cpu()
        return values


@lru_cache(maxsize=2)
def _load(folder: Path, codec: str, device: str) -> Autoencoder:
    """The codec of a folder; the digest is part of the key, so that a codec that has changed is read again."""
    return load_codec(folder, device=device)


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Cached latents; None if there are none, or they are not what was written."""
    try:
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            values: Tensor = file.get_tensor("latents")
            checksum = file.metadata()["checksum"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return values if tuple(values.shape) == shape and content_checksum(values) == checksum else None


def _write(values: Tensor, path: Path) -> None:
    """Write latents whole or not at all. A cache that cannot be written is not an error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            save_file({"latents": values}, partial, {"checksum": content_checksum(values)})
