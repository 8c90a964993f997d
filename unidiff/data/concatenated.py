"""Several data sets as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, is_whole, require
from unidiff.files import digest_of

__all__ = ["Concatenated"]


@dataclass(frozen=True)
class Concatenated(Dataset):
    """The samples of several data sets, such as a model's own beside new ones (prior preservation, Ruiz et al. 2023).

    Each split consists of those of the parts. The checksum is the SHA-256 of theirs and the repeats.

    Args:
        parts: The data sets, with samples of one shape; labels of all of them or of none.
        repeats: How often each sample of each part occurs, so what share it has; () for once.
    """

    parts: tuple[Dataset, ...]
    repeats: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "parts", list(self.parts), "a list of at least one data set")
        for number, part in enumerate(self.parts):
            fits = all(hasattr(part, name) for name in ("open", "shape", "coded"))
            require(fits, f"parts[{number}]", part, "a data set, such as Digits()")
            require(not part.coded, f"parts[{number}]", part, "samples themselves, not latents of an autoencoder")
        counts = isinstance(self.repeats, (list, tuple)) and all(map(is_whole, self.repeats))
        allowed = f"one integer >= 1 for each of {len(self.parts)} parts, or ()"
        require(counts and len(self.repeats) in (0, len(self.parts)), "repeats", self.repeats, allowed)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of all parts."""
        shapes = [part.shape for part in self.parts]
        for number, shape in enumerate(shapes):
            if shape != shapes[0]:
                problem = f"must have samples of shape {shapes[0]}, as parts[0], got {shape}"
                raise ParameterError(f"parts[{number}]", problem)
        return shapes[0]

    @property
    def classes(self) -> int | None:
        """The most that a part is known to have; None if none is known to have any."""
        return max((part.classes for part in self.parts if part.classes is not None), default=None)

    @property
    def features(self) -> str:
        """Those of all parts that have some, if they are the same."""
        names = {part.features for part in self.parts} - {""}
        return names.pop() if len(names) == 1 else ""

    def open(self, split: str = "train") -> OpenDataset:
        """Open the parts; see `Dataset.open`."""
        return self._opened([part.open(split) for part in self.parts], split)

    def look(self, split: str = "train") -> OpenDataset:
        """See `Dataset.look`."""
        return self._opened([part.look(split) for part in self.parts], split)

    def _opened(self, sources: list[OpenDataset], split: str) -> OpenDataset:
        repeats = self.repeats or (1,) * len(sources)
        labels = [source.labels for source in sources]
        if any(own is None for own in labels) and any(own is not None for own in labels):
            missing = sources[[own is None for own in labels].index(True)]
            raise DataError(f"{missing.name} has no labels, and another part has. Label all parts, or none.")
        rows = torch.cat([torch.arange(len(source)).repeat(n) for source, n in zip(sources, repeats)])
        parts = torch.cat([torch.full((len(source) * n,), k) for k, (source, n) in enumerate(zip(sources, repeats))])
        known = [own.repeat(n) for own, n in zip(labels, repeats) if own is not None]
        return _ConcatenatedSource(
            " and ".join(source.name for source in sources),
            self.shape,
            _digest([source.checksum for source in sources], repeats),
            "; ".join(source.stand_in for source in sources if source.stand_in) or None,
            torch.cat(known) if known else None,
            next((source.class_names for source in sources if source.class_names is not None), None),
            sources=sources,
            repeats=repeats,
            parts=parts,
            rows=rows,
        )


def _digest(sums: list[str], repeats: tuple[int, ...]) -> str:
    return digest_of([f"{own} {n}\n".encode() for own, n in zip(sums, repeats)])


@dataclass(repr=False, eq=False, kw_only=True)
class _ConcatenatedSource(OpenDataset):
    """Sample i is sample `rows[i]` of source `parts[i]`."""

    sources: list[OpenDataset]
    repeats: tuple[int, ...]
    parts: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        indices = indices.cpu()
        parts, rows = self.parts[indices], self.rows[indices]
        x = torch.empty(len(indices), *self.shape, device=device)
        for number, source in enumerate(self.sources):
            own = (parts == number).nonzero()[:, 0]
            if len(own):
                x[own.to(device)] = source.batch(rows[own], device)
        return x

    def to(self, device: torch.device | str) -> OpenDataset:
        return replace(self, sources=[source.to(device) for source in self.sources])

    @property
    def fingerprint(self) -> str:
        return _digest([source.fingerprint for source in self.sources], self.repeats)
