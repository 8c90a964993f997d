"""Runs whose models guide other ones: classifiers and contrastive encoders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from unidiff.classifier import NeuralClassifier
from unidiff.condition.base import Condition, named
from unidiff.contrastive import NeuralContrastive
from unidiff.denoiser import Denoiser
from unidiff.errors import RecipeError
from unidiff.guidance.base import Guided
from unidiff.noise import Seeded
from unidiff.noise_condition import NoiseCondition
from unidiff.noisy_network import NoisyNetwork
from unidiff.objective.times import TimeSampling
from unidiff.process.level import Level
from unidiff.run.load import LoadOptions, Run, load
from unidiff.run.session import Session
from unidiff.tasks.process_task import ProcessTask

__all__ = ["TESTED", "GuideRun", "GuideTask", "load_guide"]

TESTED = 1000  # samples of the test split
_BATCH = 100


N = TypeVar("N", bound=nn.Module)
M = TypeVar("M", NeuralClassifier, NeuralContrastive)


class GuideTask(ProcessTask[M, N]):
    """The training of a model that guides a generative one.

    Attributes:
        times: How training times are drawn.
        noise_condition: How the noise level is passed to the network.
        model_class: The model, of a process, a network and a noise condition.
    """

    times: TimeSampling
    noise_condition: NoiseCondition
    model_class: ClassVar[type[NoisyNetwork]]

    def __post_init__(self) -> None:
        self.process.require_scales()
        self.times.check(self.process)
        self.noise_condition.check(self.process)
        super().__post_init__()

    def model(self, measured: Mapping[str, Tensor]) -> M:
        """The model with fresh weights; see `TrainingTask.model`."""
        network = self.network.build(shape=self.data.shape)
        return cast(M, self.model_class(self.process.with_measured(measured), network, self.noise_condition))

    def noisy(self, x: Tensor, model: M, session: Session) -> Iterator[tuple[str, list[tuple[Tensor, Level]]]]:
        """Samples of the test split as noisy states at some times, in batches on the device of the model."""
        process, device = model.process, next(model.parameters()).device
        u0 = process.basis.forward(x)
        eps = Seeded([self.seed])(u0[None])[0]
        for t in (process.t_min, 0.1, 0.25, 0.5, 0.75):
            u = process.perturb(u0, eps, process.level(t, u0)).to(u0.dtype).to(device)
            session.poll()
            yield f"{t:g}", [(part, process.level(t, part)) for part in u.split(_BATCH)]


@dataclass(frozen=True, repr=False)
class GuideRun(Run):
    """A trained model that guides a generative one; see `Run`."""

    @property
    @abstractmethod
    def asked(self) -> tuple[Condition, ...]:
        """What it guides to."""

    @abstractmethod
    def guide(self, model: Denoiser, scale: float) -> Guided:
        """The model under its guidance."""

    @property
    def classes(self) -> int | None:
        """Number of classes that it tells apart; None if it guides to something else."""
        return getattr(named(self.asked, "label"), "classes", None)


def load_guide(directory: str | Path, **options: Unpack[LoadOptions]) -> GuideRun:
    """Read a run whose model guides another one.

    Raises:
        RecipeError: If it is of another task.
    """
    run = load(directory, **options)
    if not hasattr(run, "guide"):
        noun = "a classifier or a contrastive encoder"
        raise RecipeError(f"{directory}: this run is {run.recipe.noun}, not of {noun}.")
    return cast(GuideRun, run)
