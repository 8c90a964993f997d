"""Couplings: which noise belongs to which sample in training.

A flow learns E[d alpha/dt x0 + d sigma/dt eps | u_t], and carries noise to data for any joint law of x0 and eps whose
marginals are the data and the standard normal (Tong et al. 2023, from memory, proposition 3.4; Liu et al. 2022, theorem
3.3, from memory). If the two are dependent, eps given x0 is no longer normal: E[eps | u_t] is not -sigma times a score,
and only the probability flow (DDIM, Euler, Heun, the deterministic multistep solvers) is meaningful, no reverse SDE.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.basis import Basis
from unidiff.errors import DataError, ParameterError
from unidiff.files import digest
from unidiff.memory import require_memory
from unidiff.reading import map_array
from unidiff.search_paths import Absent, find
from unidiff.text import rows_of

if TYPE_CHECKING:
    from unidiff.data.base import OpenDataset

__all__ = ["Coupling", "Independent", "OptimalTransport", "Pairs"]

_READ_TOGETHER = 1000  # rows


@dataclass(frozen=True)
class Coupling(PlainArguments, ABC):
    """The joint distribution of a sample and its noise, whose marginals are the data and the standard normal.

    Attributes:
        independent: Whether sample and noise are independent.
        reads_batch: Whether `couple` does anything; if not, the noise is drawn on the device where it is used.
    """

    independent: ClassVar[bool] = False
    reads_batch: ClassVar[bool] = True

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ParameterError or a DataError if samples of this shape cannot be coupled; reads no values."""
        return

    def check_data(self, source: OpenDataset) -> None:
        """Raise a ParameterError or a DataError if opened data cannot be coupled; before the first batch is read."""
        return

    def check_batch(self, count: int) -> None:
        """Raise a ParameterError if a batch of so many samples cannot be coupled."""
        return

    def digests(self) -> dict[str, str]:
        """The digest of each file that it reads, by the parameter that names it: a run is resumed with these only."""
        return {}

    @abstractmethod
    def couple(self, source: OpenDataset, indices: Tensor, noise: Tensor, basis: Basis) -> Tensor:
        """The noise of each sample of a batch, on the CPU and in the dtype of `noise`.

        It sees the whole batch of a step, so it depends neither on the parts that the batch is split into nor on the
        processes that share it.

        Args:
            source: The opened data. In training, `source.batch(indices)` returns the samples of the step as they are
                trained on, augmented perhaps, on the CPU; they are read once.
            indices: Which samples, (B,) integers.
            noise: Standard normal noise, (B, *modes), independent of the samples.
            basis: The basis whose modes these are.
        """


@dataclass(frozen=True)
class Independent(Coupling):
    """Independent noise: the product of the two marginals (Ho et al. 2020, algorithm 1; Lipman et al. 2023)."""

    independent: ClassVar[bool] = True
    reads_batch: ClassVar[bool] = False

    def couple(self, source: OpenDataset, indices: Tensor, noise: Tensor, basis: Basis) -> Tensor:
        """The noise as it is."""
        return noise


@dataclass(frozen=True)
class Pairs(Coupling):
    """The noise of each sample from a file: for reflow, pairs that a trained flow made (Liu et al. 2022, section 2.1).

    Args:
        path: A .npy file of floating-point numbers (N, *modes), standard normal over all rows: what `ud.sample` starts
            from. Row i is the noise of sample i; of an `ArrayFile`, of row i of its array, whose tenth rows are for
            the test. If relative, it may be under $UNIDIFF_DATA.
    """

    path: str

    def _array(self, shape: tuple[int, ...], count: int | None = None) -> np.ndarray:
        """The mapped array, with rows of this shape, as many as `count`; reads the header only."""
        try:
            array = map_array(find(self.path, "path"), "path")
        except Absent:
            raise
        except DataError as error:  # a recipe's message points at the key
            raise ParameterError("path", str(error).removeprefix("path").lstrip(": ")) from error
        expected = (len(array) if count is None and array.ndim else count, *shape)
        if array.shape != expected or array.dtype.kind != "f":
            allowed = rows_of(shape, "N" if count is None else count)
            problem = f"must hold float32 noise of shape {allowed}, one row for each sample"
            raise ParameterError("path", f"{problem}; {self.path} holds {array.dtype} of shape {array.shape}")
        return array

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """See `Coupling.check_shape`; reads the file's header."""
        self._array(shape)

    def check_data(self, source: OpenDataset) -> None:
        """See `Coupling.check_data`: one row for each sample, all values finite."""
        _, count = source.positions()
        array = self._array(source.shape, count)
        for start in range(0, count, _READ_TOGETHER):
            with np.errstate(over="ignore"):  # of float64, in the format of training
                rows = array[start : start + _READ_TOGETHER].astype(np.float32)
            if not np.isfinite(rows).all():
                problem = f"NaN or infinity in rows {start} to {min(start + _READ_TOGETHER, count) - 1}"
                raise ParameterError("path", f"must hold finite noise; {self.path} has {problem}")

    def digests(self) -> dict[str, str]:
        """See `Coupling.digests`."""
        return {"path": digest(find(self.path, "path"))}

    def couple(self, source: OpenDataset, indices: Tensor, noise: Tensor, basis: Basis) -> Tensor:
        """The rows of the file."""
        rows, count = source.positions()
        values = self._array(source.shape, count)[rows[indices].numpy()]
        return torch.from_numpy(values).to(noise.dtype)


@dataclass(frozen=True)
class OptimalTransport(Coupling):
    """The permutation of a batch's noise with the least sum of |x0 - eps|^2 (Pooladian et al. 2023; Tong et al. 2023).

    An exact assignment (`scipy.optimize.linear_sum_assignment`) of the whole batch of a step, at most O(B^3). As B
    grows it tends to the optimal transport between the marginals, whose flow has straight paths. The host computes it,
    from data on the CPU: it waits for a GPU only if the data were handed over on one. Samples are
    read once, by each process the whole batch.
    """

    def check_batch(self, count: int) -> None:
        """See `Coupling.check_batch`: the distances of all pairs must fit into the memory."""
        require_memory("batch", 8 * count**2, f"the distances of {count:,} samples and noises", "Lower it.")

    def couple(self, source: OpenDataset, indices: Tensor, noise: Tensor, basis: Basis) -> Tensor:
        """The noise, permuted: each row is used once."""
        from scipy.optimize import linear_sum_assignment

        # sum |x_i - e_p(i)|^2 differs from -2 sum x_i e_p(i) by a number that no permutation p changes.
        u0 = basis.forward(source.batch(indices)).flatten(1).double()
        _, chosen = linear_sum_assignment((u0 @ noise.flatten(1).double().T).numpy(), maximize=True)
        return noise[torch.from_numpy(chosen)]
