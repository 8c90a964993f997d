"""Samples drawn by several processes, each of them its share: `torchrun --nproc-per-node 2 -m unidiff sample RUN`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser
from unidiff.run.load import draw
from unidiff.solver.sample import Sampling, Solution
from unidiff.training.processes import accelerator_of

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Processes"]


@dataclass(frozen=True)
class Processes:
    """The processes that work together, seen from one of them.

    Args:
        accelerator: What joins them; None for a process alone.
        device: Where this one computes: auto, cpu, cuda, cuda:1 or mps.
    """

    accelerator: Accelerator | None
    device: str

    @staticmethod
    def join(device: str, report: Callable[[str], None]) -> Processes:
        """The processes that the environment describes, when all of them are there.

        Raises:
            ParameterError: If the device is unavailable.
            RunError: If the environment describes processes that do not exist, or only in part.
        """
        if (accelerator := accelerator_of(device, report)) is None:
            return Processes(None, device)
        own = accelerator.device  # accelerate numbers CPUs, too
        return Processes(accelerator, str(own) if own.type == "cuda" else own.type)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.accelerator is None or bool(self.accelerator.is_main_process)

    def draw(
        self,
        denoiser: Denoiser,
        sampling: Sampling,
        data: Dataset,
        precision: torch.dtype,
        *,
        progress: Callable[[int, int], None] | None = None,
        **cond: Tensor,
    ) -> Solution:
        """As `unidiff.run.load.draw`, each process its share of the samples; all have all of them afterwards.

        A sample depends on its own seed alone. The shares are whole batches where there are enough of them, so the
        samples are those of one process to the bit; else to the rounding of smaller batches.
        """
        part: dict[str, Any] = {"progress": progress, **cond}
        if self.accelerator is None:
            return draw(denoiser, sampling, data, precision, **part)
        from accelerate.utils import gather_object

        count, rank, processes = sampling.count, self.accelerator.process_index, self.accelerator.num_processes
        pieces = torch.arange(count).split(min(sampling.batch, -(-count // processes)))
        mine = [piece for number, piece in enumerate(pieces) if number * processes // len(pieces) == rank]
        found: list[tuple[Tensor, Tensor, int]] = []
        if mine:
            rows = slice(int(mine[0][0]), int(mine[-1][-1]) + 1)
            own = replace(sampling, seed=sampling.seed + rows.start, count=rows.stop - rows.start, batch=len(pieces[0]))
            part |= {name: value[rows] for name, value in cond.items()}
            solution = draw(denoiser, own, data, precision, **part)
            found.append((solution.x.cpu(), solution.times, solution.nfe))
        samples, times, nfes = zip(*gather_object(found))
        return Solution(torch.cat(samples), times[0], max(nfes))
