"""Networks that are trained for the same CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch

from unidiff.backbone.base import Backbone
from unidiff.data.base import Dataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.evaluation.real import RealData
from unidiff.figures.study import Row, qualities
from unidiff.grid import Uniform
from unidiff.objective.denoising import Denoising
from unidiff.parameterization import V
from unidiff.process.ddpm import DDPM
from unidiff.solver.ddim import DDIM
from unidiff.solver.sample import sample
from unidiff.training.loop import train
from unidiff.training.settings import Training

__all__ = ["networks_at_equal_seconds", "steps_in"]

_TRIAL = 20  # steps


def steps_in(seconds: float, train: Callable[[int], object], clock: Callable[[], float] = time.process_time) -> int:
    """Steps, at least 1, that a training takes in so many seconds, by three short ones.

    What every one of them needs beside its steps is left out, and what the first alone does, such as imports.

    Args:
        seconds: Of the clock.
        train: Trains afresh for a number of steps.
        clock: By default that of CPU seconds.
    """
    spent = []
    for steps in (_TRIAL, _TRIAL, 3 * _TRIAL):
        started = clock()
        train(steps)
        spent.append(clock() - started)
    step = max(spent[2] - spent[1], spent[2] / 3) / (2 * _TRIAL)  # at least half of the mean, whatever else runs
    return max(1, round(seconds / step))


def networks_at_equal_seconds(
    networks: Mapping[str, Callable[[], Backbone]],
    data: Dataset,
    seed: int,
    *,
    seconds: float,
    count: int,
    evaluations: int,
    real: RealData | None = None,
) -> Iterator[Row]:
    """Qualities of samples of networks that predict v on DDPM's linear schedule, with their weights and steps.

    Args:
        networks: By name; each is made anew for a training.
        data: What they learn.
        seed: Of weights, training and samples.
        seconds: CPU seconds of each training.
        count: Samples of each.
        evaluations: Of DDIM, for each sample.
        real: What samples are compared with; by default `data`.
    """
    source, samples, own = data.open(), {}, {}
    for name, network in networks.items():

        def trained(steps: int, network: Callable[[], Backbone] = network) -> NeuralDenoiser:
            torch.manual_seed(seed)
            model = NeuralDenoiser(DDPM(), V(), network())
            settings = Training(steps, batch=32, lr=2e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
            return train(model, source, Denoising(), settings, seed=seed)

        steps = steps_in(seconds, trained)
        model, seeds = trained(steps), range(count * seed, count * (seed + 1))
        samples[name] = sample(model, DDIM(), Uniform(evaluations), data.shape, seeds).x
        own[name] = {"parameters": sum(weight.numel() for weight in model.backbone.parameters()), "steps": steps}
    for name, row in qualities(samples, data if real is None else real, seed).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})
