"""Samples of a trained model, and how far a solver has carried them from the model's own flow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff import plot
from unidiff.app.choices import DEFAULT_METHOD, Method, draws_noise
from unidiff.denoiser import Denoiser
from unidiff.errors import require_whole
from unidiff.evaluation.conditional import rms
from unidiff.evaluation.reference import Flow, reference_flow
from unidiff.solver.finite import not_finite
from unidiff.solver.sample import Solution, draw_samples
from unidiff.solver.spec import SolverSpec
from unidiff.tasks.conditioned import conditioned
from unidiff.tasks.generation import GenerationRun
from unidiff.tasks.sample_conditions import SampleConditions
from unidiff.text import count_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_STEPS", "TOLERANCE", "Drawn", "Explored", "Request", "draw", "error_of", "reference"]

TOLERANCE, MOST_STEPS = 1e-3, 128  # of the reference flow, as in `unidiff compare`
_MOST = 256  # samples


@dataclass(frozen=True)
class Request:
    """What to draw.

    Args:
        method: Solver, grid, steps and eta.
        seed: Seed of the first sample, at least 0; sample i has seed + i.
        count: Samples, 1 to 256.
        classes: Classes that samples take in turn; empty for those of an unconditional model.
        guidance: Guidance scale; 1 is the plain conditional model, None for none.
    """

    method: Method = DEFAULT_METHOD
    seed: int = 0
    count: int = 9
    classes: tuple[int, ...] = ()
    guidance: float | None = None

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        require_whole("count", self.count, 1, _MOST)

    @property
    def seeds(self) -> range:
        """One for each sample."""
        return range(self.seed, self.seed + self.count)


@dataclass(frozen=True, eq=False)
class Explored:
    """A loaded run, told apart from others by being another object."""

    run: GenerationRun

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample of the model: of a latent, for a model of latents."""
        return tuple(self.run.recipe.data.shape)

    def model(self, request: Request) -> tuple[Denoiser, dict[str, Any]]:
        """The model, guided perhaps, and the conditions of the samples.

        Raises:
            ParameterError: If the model has no such class, or cannot be guided.
        """
        scale = None if request.guidance == 1 else request.guidance
        chosen = conditioned(self.run, SampleConditions(classes=request.classes, guidance=scale), report=_silent)
        return chosen.denoiser, chosen.in_turn(request.count)


@dataclass(frozen=True)
class Drawn:
    """Samples.

    Attributes:
        solution: As `unidiff.sample` returned it.
        spec: The solver and its grid.
        random: Whether the solver draws noise, so that the samples follow no flow.
        seconds: What drawing took.
        images: The samples decoded, for a picture; `solution.x` itself for a model of pixels.
    """

    solution: Solution
    spec: SolverSpec
    random: bool
    seconds: float
    images: Tensor

    def figure(self) -> Figure:
        """The picture of the samples."""
        return plot.save_samples(self.images, None)

    def words(self) -> str:
        """How they were drawn."""
        steps, nfe = len(self.solution.times) - 1, self.solution.nfe
        problem = not_finite(self.solution.x)
        each = f"{count_of(steps, 'step')}, {count_of(nfe, 'evaluation')} per sample"
        said = f"{self.spec.label}: {each}, {self.seconds:.2f} s."
        return said if problem is None else f"{said} {problem}"


@lru_cache(maxsize=2)  # the picture is drawn, and then the distance is measured
def draw(explored: Explored, request: Request) -> Drawn:
    """Draw samples, exactly those of `unidiff.sample` with the same model, solver, grid and seeds.

    Raises:
        ParameterError: If the process does not allow the solver or the grid, or the model the classes or the guidance.
    """
    run, begun = explored.run, time.perf_counter()
    denoiser, cond = explored.model(request)
    spec = request.method.spec(denoiser.process)
    options = {"device": _device(run), **cond}
    solution = draw_samples(denoiser, spec.solver, spec.grid, explored.shape, request.seeds, **options)
    images = run.recipe.data.decode(solution.x)
    seconds = time.perf_counter() - begun
    random = draws_noise(spec, denoiser.process, explored.shape)
    return Drawn(solution, spec, random, seconds, images.cpu())


@lru_cache(maxsize=32)
def reference(explored: Explored, seed: int, count: int, classes: tuple[int, ...], guidance: float | None) -> Flow:
    """The model's own probability flow from the same starts, as `unidiff compare` follows it; kept for the next call.

    Args:
        explored: The model.
        seed: Seed of the first sample.
        count: Samples.
        classes: Classes of the samples, in turn.
        guidance: Guidance scale.
    """
    request = Request(seed=seed, count=count, classes=classes, guidance=guidance)
    denoiser, cond = explored.model(request)
    options: dict[str, Any] = {"tolerance": TOLERANCE, "most_steps": MOST_STEPS, "dtype": torch.float32}
    return reference_flow(denoiser, explored.shape, request.seeds, device=_device(explored.run), **options, **cond)


def error_of(explored: Explored, request: Request, drawn: Drawn) -> tuple[float | None, str]:
    """Root mean square distance of samples from the model's reference flow, and a sentence that says it.

    None where the solver draws noise: its samples follow no flow, and only their distribution can be judged.
    """
    if drawn.random:
        return None, "This solver draws noise, so its samples follow no flow: only their distribution can be compared."
    flow = reference(explored, request.seed, request.count, request.classes, request.guidance)
    error = rms(drawn.solution.x.cpu(), flow.x)
    known = f"which is known to about {flow.error:.1e}"
    return error, f"rms distance {error:.2e} from the model's own flow from the same noise, {known}."


def _device(run: GenerationRun) -> torch.device:
    return next(run.denoiser.parameters()).device


def _silent(message: str) -> None:
    """Notices about classes are of no use here: classes are chosen by number."""
