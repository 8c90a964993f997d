"""Averages of the weights whose length is chosen after training (Karras et al. 2024, section 3 and appendix C).

The average of the weights w(1), ..., w(t) with exponent gamma gives step k a share of (k / t)^(gamma + 1) -
((k - 1) / t)^(gamma + 1): the integral, over its unit of time, of the profile (gamma + 1) tau^gamma / t^(gamma + 1) on
[0, t]. Its relative length sigma_rel is the standard deviation of tau / t under this profile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unidiff.errors import ParameterError, RunError, RunFailed, require
from unidiff.files import remove, remove_leftovers, whole_file
from unidiff.training.tied import load_tied, without_ties

__all__ = ["LENGTHS", "Mix", "PowerAverages", "Snapshots", "exponent", "mix", "relative_length"]

LENGTHS = (0.05, 0.10)  # sigma_rel of the two that are kept, as in section 3.2
LONGEST = 1 / math.sqrt(12)  # sigma_rel of the mean of all steps, gamma = 0
_NAME = re.compile(r"step-([0-9]{8,})-(0\.[0-9]+)\.safetensors")


def relative_length(gamma: float) -> float:
    """sigma_rel of an exponent: the standard deviation of the Beta distribution of tau / t."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def exponent(sigma_rel: float) -> float:
    """The exponent gamma of a relative length: the positive root of (gamma + 2)^2 (gamma + 3) sigma_rel^2 = gamma + 1.

    Args:
        sigma_rel: The relative length, above 0 and below 0.288 (1 / sqrt(12), the mean of all steps).

    Raises:
        ParameterError: If it is not.
    """
    require(0 < sigma_rel < LONGEST, "sigma_rel", sigma_rel, f"a number above 0 and below {LONGEST:.4f}")
    inverse = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def inner_product(t: np.ndarray, gamma: np.ndarray, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The integral of the product of two profiles: with exponent gamma on [0, t], and with delta on [0, s].

    (gamma + 1) (delta + 1) / (t^(gamma + 1) s^(delta + 1)) times the integral of tau^(gamma + delta) up to min(t, s).
    """
    later = np.where(t < s, delta, gamma)  # the exponent of the profile that ends later
    shrunk = np.power(np.minimum(t, s) / np.maximum(t, s), later)
    product: np.ndarray = (gamma + 1) * (delta + 1) / (gamma + delta + 1) * shrunk / np.maximum(t, s)
    return product


@dataclass(frozen=True)
class Mix:
    """An average as a sum of others.

    Attributes:
        shares: The factor of each.
        error: Distance of the sum's profile from the one that is wanted, as a share of its norm, both in L2. A weight
            of the sum is nearer to that of the wanted average than this, times the norm of the profile, times the root
            of the squares of the weight, less any constant, summed over the steps (Cauchy and Schwarz).
    """

    shares: tuple[float, ...]
    error: float


def mix(stored: Sequence[tuple[int, float]], step: int, gamma: float) -> Mix:
    """The sum of stored averages whose profile is nearest to that of another average, in L2 (appendix C.3).

    Beyond the paper, the shares sum to 1: weights that did not move, or are frozen, are then those of the sum.

    Args:
        stored: Step and exponent of each.
        step: The step of the other, t.
        gamma: Its exponent.
    """
    t, exponents = (np.array(column, dtype=np.float64) for column in zip(*stored))
    ends, wanted = np.float64(step), np.float64(gamma)
    norms = np.sqrt(inner_product(t, exponents, t, exponents))
    norm = np.sqrt(inner_product(ends, wanted, ends, wanted))
    # In profiles of norm 1, so that none is negligible beside a shorter one.
    gram = inner_product(t[:, None], exponents[:, None], t, exponents) / (norms[:, None] * norms)
    toward = inner_product(t, exponents, ends, wanted) / (norms * norm)
    ones = (norm / norms)[:, None]  # shares, of profiles of norm 1, that sum to 1: with a multiplier of Lagrange
    bordered = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])
    shares = np.linalg.lstsq(bordered, np.append(toward, 1.0), rcond=None)[0][:-1]
    error = math.sqrt(max(0.0, float(1 - 2 * shares @ toward + shares @ gram @ shares)))
    return Mix(tuple((shares * norm / norms).tolist()), error)


class PowerAverages:
    """The averages that are kept in training, those of `LENGTHS`, and the snapshots of them.

    Args:
        network: The network; before the first step an average is its weights.
        every: Steps between snapshots; 0 for no averages.
        folder: Where snapshots are written to, if anything is.
        writes: Whether this process, of several that train together, is the one that writes.

    Raises:
        ParameterError: If there are to be snapshots and nothing is written.
    """

    def __init__(self, network: nn.Module, every: int, folder: Path | None, writes: bool) -> None:
        if every and folder is None:
            remedy = "Pass checkpoints=Checkpoints(folder), or leave it out"
            raise ParameterError("posthoc_every", f"the averages are written beside checkpoints. {remedy}")
        self._network, self._every, self._writes = network, every, writes
        self._snapshots = None if folder is None else Snapshots(folder)
        self._powers = [exponent(sigma_rel) + 1 for sigma_rel in LENGTHS if every]
        self._weights: list[Tensor] = list(network.parameters())
        self._averages = [[weight.detach().clone() for weight in self._weights] for _ in self._powers]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average the weights after a step, from 1: average <- beta average + (1 - beta) weights, eq. (127) there."""
        for power, average in zip(self._powers, self._averages):
            torch._foreach_lerp_(average, self._weights, 1 - (1 - 1 / step) ** power)

    def due(self, step: int, last: bool) -> bool:
        """Whether a step ends with a snapshot."""
        return self._every > 0 and (last or step % self._every == 0)

    def save(self, step: int) -> None:
        """Write a snapshot; see `Snapshots.save`."""
        if self._snapshots is not None and self._writes:
            self._snapshots.save(step, dict(zip(LENGTHS, map(self._state, self._averages))))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"{i}.{j}": x for i, average in enumerate(self._averages) for j, x in enumerate(average)}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what a checkpoint kept.

        Raises:
            RunError: If it kept no averages.
            ValueError: If they are those of another network.
        """
        own = self.state()
        if own and not saved:
            problem = "this training began without averages, which would lack the steps before"
            raise RunError(f"training.posthoc_every: {problem}. Set it to 0.")
        if own and {name: x.shape for name, x in saved.items()} != {name: x.shape for name, x in own.items()}:
            raise ValueError("the averages are those of another network")
        for name, average in own.items():
            average.copy_(saved[name])

    def begin(self, done: int) -> None:
        """Remove the snapshots of steps that will be done again."""
        if self._snapshots is not None and self._writes:
            self._snapshots.drop_after(done)

    def _state(self, average: list[Tensor]) -> dict[str, Tensor]:
        """The state of the network with an average in place of its weights."""
        numbers = {id(weight): number for number, weight in enumerate(self._weights)}
        named = self._network.named_parameters(remove_duplicate=False)
        return self._network.state_dict() | {name: average[numbers[id(weight)]] for name, weight in named}


@dataclass(frozen=True)
class Snapshots:
    """The files of averages, one for each step and length.

    Args:
        folder: Where they are; made when first written to.
    """

    folder: Path

    def paths(self) -> dict[tuple[int, float], Path]:
        """Files by step and relative length."""
        found = {path: _NAME.fullmatch(path.name) for path in self.folder.glob("step-*") if path.is_file()}
        return dict(sorted(((int(name[1]), float(name[2])), path) for path, name in found.items() if name))

    def save(self, step: int, networks: Mapping[float, Mapping[str, Tensor]]) -> None:
        """Write the averages of a step.

        Raises:
            RunFailed: If that fails.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            for sigma_rel, weights in networks.items():
                tensors, ties = without_ties(weights)
                with whole_file(self.folder / f"step-{step:08d}-{sigma_rel:.2f}.safetensors") as partial:
                    save_file(tensors, partial, ties or None)
        except OSError as error:
            remedy = "Free space or correct the permissions, then continue with --resume."
            raise RunFailed(f"{self.folder}: the averages could not be written ({error}). {remedy}") from error

    def drop_after(self, step: int) -> None:
        """Remove those of later steps, which a resumed run takes again."""
        for (taken, _), path in self.paths().items():
            if taken > step:
                with suppress(OSError):
                    remove(path)

    def mixed(self, step: int, sigma_rel: float, averaged: Collection[str]) -> tuple[dict[str, Tensor], Mix]:
        """The state of the network with the average of another length, and how it is made of the stored ones.

        Args:
            step: One of which averages are stored.
            sigma_rel: The relative length.
            averaged: Names of the weights; the rest of the state is that of the step.

        Raises:
            ParameterError: If there is no such average.
            Unreadable: If a file cannot be read.
        """
        paths = self.paths()
        steps = sorted({taken for taken, _ in paths})
        require(step in steps, "step", step, f"a step with stored averages ({_listed(steps)})")
        stored = [(taken, length) for taken, length in paths if taken <= step]
        made = mix([(taken, exponent(length)) for taken, length in stored], step, exponent(sigma_rel))
        sums: dict[str, Tensor] = {}
        for key, share in zip(stored, made.shares):
            weights = load_tied(paths[key])
            for name, value in weights.items():
                if name in averaged:
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + share * value.double()
        # The last file that was read is of this step: what is not averaged, such as running statistics, is from there.
        return {name: sums[name].to(value.dtype) if name in sums else value for name, value in weights.items()}, made


def _listed(steps: Iterable[int]) -> str:
    steps = list(steps)
    return ", ".join(map(str, steps if len(steps) < 9 else [*steps[:3], "...", *steps[-3:]])) or "there is none"
