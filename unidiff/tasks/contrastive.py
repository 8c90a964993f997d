"""Training a contrastive encoder of noisy images and captions, for retrieval and for CLIP guidance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import torch
from typing_extensions import Unpack

from unidiff.arguments import plain_arguments
from unidiff.backbone.pair import PairEncoder
from unidiff.condition.base import Condition
from unidiff.conditioning.captions import Captions
from unidiff.contrastive import NeuralContrastive
from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser
from unidiff.errors import RecipeError, require
from unidiff.guidance.clip import CLIPGuidance
from unidiff.noise_condition import NoiseCondition, Timestep
from unidiff.noisy_network import NoisyNetwork
from unidiff.objective.contrastive import InfoNCE
from unidiff.objective.times import TimeSampling, UniformTimes
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.run.execute import Session
from unidiff.run.load import LoadOptions, Run, load
from unidiff.run.records import Report
from unidiff.tasks.guide import TESTED, GuideRun, GuideTask
from unidiff.training.settings import Training

__all__ = ["ContrastiveReport", "ContrastiveRun", "ContrastiveTask", "load_contrastive"]


@dataclass(frozen=True)
class ContrastiveReport(Report):
    """How often the first match is right among the different captions of the test split, by noise level.

    Attributes:
        captions: Number of different captions.
        caption_of_image: Share of images whose most similar caption is their own.
        image_of_caption: Share of captions whose most similar image has that caption.
    """

    captions: int
    caption_of_image: dict[str, float]
    image_of_caption: dict[str, float]

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        titles = {"caption of an image": self.caption_of_image, "image of a caption": self.image_of_caption}
        return {
            f"{title}, of {self.captions}": ", ".join(f"{value:.1%} at t = {t}" for t, value in shares.items())
            for title, shares in titles.items()
        }


@dataclass(frozen=True, repr=False)
class ContrastiveRun(GuideRun):
    """A trained contrastive encoder with everything that made it; see `Run`."""

    model: NeuralContrastive

    @property
    def asked(self) -> tuple[Condition, ...]:
        """The captions."""
        return self.model.conditions

    def guide(self, model: Denoiser, scale: float) -> CLIPGuidance:
        """See `GuideRun.guide`."""
        return CLIPGuidance(model, self.model, scale)


@dataclass(frozen=True, kw_only=True, repr=False)
class ContrastiveTask(GuideTask[NeuralContrastive, PairEncoder]):
    """Train a contrastive encoder. Its parameters are the top-level keys of its recipe.

    Args:
        data: What to learn from; data with captions.
        process: How images become noise: the process of the model to be guided.
        contrastive: The two networks, not built yet; they get the words of the captions from the data.
        times: How training times are drawn.
        training: How it is trained; a batch has at least two pairs, which are told apart.
        noise_condition: How the noise level is passed to the image network.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
        start: The run whose averaged weights training begins with; null for fresh weights.
        train: Names of the modules or parameters to train, such as `text.*`; the others are frozen. Null trains all.
    """

    data: Dataset
    process: Process
    contrastive: Blueprint[PairEncoder]
    times: TimeSampling = field(default_factory=UniformTimes)
    training: Training
    noise_condition: NoiseCondition = field(default_factory=Timestep)
    seed: int = 0
    smaller_recipe: str | None = None
    start: str | None = None
    train: tuple[str, ...] | None = None

    key: ClassVar[str] = "contrastive"
    noun: ClassVar[str] = "the training of a contrastive encoder"
    model_class: ClassVar[type[NoisyNetwork]] = NeuralContrastive
    run_class: ClassVar[type[Run]] = ContrastiveRun

    def __post_init__(self) -> None:
        if self.training.batch < 2 * self.training.accumulate:
            parts = "" if self.training.accumulate == 1 else f" in each of {self.training.accumulate} parts"
            allowed = f"at least {2 * self.training.accumulate}, two pairs to tell apart{parts}"
            require(False, "training.batch", self.training.batch, allowed)
        super().__post_init__()

    def conditions(self) -> Captions:
        """The captions, of every sample; see `TrainingTask.conditions`."""
        return Captions(dropout=0.0)

    def loss(self) -> InfoNCE:
        """InfoNCE; see `TrainingTask.loss`."""
        return InfoNCE(times=self.times)

    def report(self, model: NeuralContrastive, session: Session) -> ContrastiveReport:
        """Retrieval on the test split, by time; see `TrainingTask.report`."""
        test = self.data.open("test")
        # In random order: of data in which copies follow one another, the first thousand would be a part of the kinds.
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(self.seed))[:TESTED]
        x, captions = test.examples(order)
        assert captions is not None
        different, own = captions.unique(dim=0, return_inverse=True)
        found: tuple[dict[str, float], dict[str, float]] = ({}, {})
        with torch.no_grad():
            texts = model.texts(caption=different.to(next(model.parameters()).device)).cpu()
            for t, states in self.noisy(x, model, session):
                similar = torch.cat([model.images(u, level).cpu() for u, level in states]) @ texts.T
                right = similar.argmax(1) == own, own[similar.argmax(0)] == torch.arange(len(different))
                for shares, rows in zip(found, right):
                    shares[t] = round(float(rows.double().mean()), 4)
        return ContrastiveReport(*session.trained(), len(different), *found)


@plain_arguments
def load_contrastive(directory: str | Path, **options: Unpack[LoadOptions]) -> NeuralContrastive:
    """Read the encoder of a run: `unidiff.load(directory).model`, of a contrastive encoder's run only.

    Args:
        directory: The run directory of a recipe that has a key `contrastive`.
        **options: `device`, `allow_imports` and `report`; see `unidiff.load`.

    Raises:
        RunError: If there is no run, or it has no usable checkpoint.
        RecipeError: If the run is of another task.
    """
    run = load(directory, **options)
    if run.recipe.key != ContrastiveTask.key:
        raise RecipeError(f"{directory}: this run is {run.recipe.noun}, not of a contrastive encoder.")
    return cast(NeuralContrastive, run.model)
