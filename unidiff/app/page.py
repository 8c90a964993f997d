"""The page of the explorer: four tabs, whose sliders call the plain functions beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

from unidiff.app import heat, noise, ring, samples
from unidiff.app.choices import DEFAULT, Method, eta_of, grids, solvers
from unidiff.app.gradio import gradio
from unidiff.app.picture import complaint, picture
from unidiff.errors import DataError, UnidiffError
from unidiff.page.html import Markup, element

__all__ = ["page"]

_ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "explorer"}  # all share the processor
_ALL = "each in turn"
_UNGUIDED = 1.0  # a scale
_SHEET = "32rem"  # of a square of samples


def answered(drawn: Callable[..., Iterator[Markup]]) -> Callable[..., Iterator[Markup]]:
    """The pictures of a tab one after another; in place of one that cannot be drawn, the sentence that says why."""

    @wraps(drawn)
    def pictures(*values: Any) -> Iterator[Markup]:
        try:
            yield from drawn(*values)
        except UnidiffError as error:
            yield complaint(str(error))

    return pictures


def page(explored: samples.Explored) -> Any:
    """The page of a model, a `gradio.Blocks` that sends nothing anywhere.

    Args:
        explored: The model.
    """
    gr = gradio()
    run = explored.run
    name = run.directory.name
    with gr.Blocks(title=f"unidiff: {name}", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(Markup("<h2>Explorer</h2>") + picture_of_model(explored))
        with gr.Tab("Samples"):
            _samples(gr, explored, blocks)
        with gr.Tab("Noise"):
            _noise(gr, explored, blocks)
        with gr.Tab("The ring"):
            _ring(gr, blocks)
        with gr.Tab("Heat"):
            _heat(gr, blocks)
    return blocks


def picture_of_model(explored: samples.Explored) -> Markup:
    """What is explored, in a line."""
    run = explored.run
    return element("p", f"{run.directory.name}: {run.denoiser.process!r}, samples of shape {explored.shape}.")


def _samples(gr: Any, explored: samples.Explored, blocks: Any) -> None:
    process, classes = explored.run.denoiser.process, explored.run.denoiser.classes
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            solver, grid, steps, eta = _method(gr, solvers(process, explored.shape), grids(process))
            label = gr.Dropdown(
                [_ALL, *map(str, range(classes or 0))], value=_ALL, label="class", visible=bool(classes)
            )
            scale = gr.Slider(0, 8, _UNGUIDED, step=0.1, label="guidance scale", visible=bool(classes))
            seed = gr.Slider(0, 1000, 0, step=1, label="seed of the first sample")
            count = gr.Slider(1, 64, samples.Request.count, step=1, label="samples")
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML(min_height=400, elem_id="samples")
            distance = gr.HTML(elem_id="distance")

    def asked(
        solver: str, grid: str, steps: float, eta: float, label: str, scale: float, seed: float, count: float
    ) -> samples.Request:
        every = range(classes or 0) if label == _ALL else [int(label)]
        guidance = None if scale == _UNGUIDED or not classes else scale
        return samples.Request(Method(solver, grid, int(steps), eta), int(seed), int(count), tuple(every), guidance)

    @answered
    def sheet(*values: Any) -> Iterator[Markup]:
        drawn = samples.draw(explored, asked(*values))
        yield picture([drawn.figure()], f"{len(drawn.images)} samples", drawn.words(), width=_SHEET)

    def draw(*values: Any) -> Iterator[tuple[Markup, str]]:
        for image in sheet(*values):
            yield image, ""  # the distance of the samples before them

    def judge(*values: Any) -> Iterator[Markup]:
        with suppress(UnidiffError):  # said in place of the picture
            request = asked(*values)
            drawn = samples.draw(explored, request)
            if not drawn.random:
                yield element("p", "Following the flow of the model ...")
            yield element("p", samples.error_of(explored, request, drawn)[1])

    controls = [solver, grid, steps, eta, label, scale, seed, count]
    # The flow may take a minute, during which the other tabs answer.
    own: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "reference", "show_progress": "hidden"}
    _live(gr, blocks, draw, controls, [shown, distance]).then(judge, controls, distance, **own)


def _noise(gr: Any, explored: samples.Explored, blocks: Any) -> None:
    try:
        last = len(noise.opened(explored)) - 1
    except DataError as error:
        gr.HTML(complaint(f"The data of this model cannot be read: {error}"))
        return
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            t = gr.Slider(0, 1, 0.3, step=0.005, label="time t")
            index = gr.Slider(0, last, 0, step=1, label="sample of the data")
            seed = gr.Slider(0, 1000, 0, step=1, label="seed of the noise")
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML(min_height=300, elem_id="noise")

    @answered
    def draw(t: float, index: float, seed: float) -> Iterator[Markup]:
        state = noise.noised(explored, int(index), t, int(seed))
        alt = "data, noisy data and the guess of the model"
        yield picture(state.figures(), alt, state.words(), least="10rem")

    _live(gr, blocks, draw, [t, index, seed], shown)


def _ring(gr: Any, blocks: Any) -> None:
    first = next(iter(ring.PROCESSES))
    exact = ring.model(first)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            process = gr.Dropdown([*ring.PROCESSES], value=first, label="process")
            t = gr.Slider(0, 1, 0.3, step=0.01, label="time t of the score")
            solver, grid, steps, eta = _method(gr, solvers(exact.process, (2,)), grids(exact.process))
            seed = gr.Slider(0, 1000, 0, step=1, label="seed of the first path")
            count = gr.Slider(1, 128, 32, step=1, label="paths")
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML(min_height=400, elem_id="ring")

    @answered
    def draw(
        process: str, t: float, solver: str, grid: str, steps: float, eta: float, seed: float, count: float
    ) -> Iterator[Markup]:
        drawn = ring.paths(process, Method(solver, grid, int(steps), eta), int(seed), int(count))
        words = "Circles are the eight Gaussians; dots on the left are the samples at the nearest time of the grid."
        yield picture(ring.figures(process, t, drawn), "score field and paths of samples", drawn.words(), words)

    def fitting(process: str) -> tuple[Any, Any]:
        own = ring.PROCESSES[process]
        return gr.update(choices=solvers(own, (2,)), value=Method.solver), gr.update(choices=grids(own), value=DEFAULT)

    process.input(fitting, process, [solver, grid], show_progress="hidden", **_ONE_AT_A_TIME)
    _live(gr, blocks, draw, [process, t, solver, grid, steps, eta, seed, count], shown)


def _heat(gr: Any, blocks: Any) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            initial = gr.Dropdown([*heat.INITIAL], value=next(iter(heat.INITIAL)), label="initial field")
            log_time = gr.Slider(*heat.TIMES, -3, step=0.05, label="log10 of time t")
            kept = gr.Checkbox(True, label="keep the gradient energy (renormalised equation)")
            seed = gr.Slider(0, 1000, 0, step=1, label="seed of white noise", visible=False)
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML(min_height=400, elem_id="heat")

    @answered
    def draw(initial: str, log_time: float, kept: bool, seed: float) -> Iterator[Markup]:
        flow = heat.solve(initial, log_time, int(seed))
        yield picture(heat.figures(flow, kept), "field, modes, and shares of gradient energy", heat.words(flow))

    def fitting(initial: str) -> Any:
        return gr.update(visible=initial == heat.RANDOM)

    initial.input(fitting, initial, seed, show_progress="hidden", **_ONE_AT_A_TIME)
    _live(gr, blocks, draw, [initial, log_time, kept, seed], shown)


def _method(gr: Any, of_solvers: Sequence[str], of_grids: Sequence[str]) -> tuple[Any, Any, Any, Any]:
    """The controls of a method; eta can be set for a solver that has one."""
    solver = gr.Dropdown([*of_solvers], value=of_solvers[0], label="solver")
    grid = gr.Dropdown([*of_grids], value=of_grids[0], label="grid")
    steps = gr.Slider(1, 100, Method.steps, step=1, label="steps")
    own = eta_of(of_solvers[0])
    eta = gr.Slider(0, 1, own or 0, step=0.05, label="eta, the share of noise in a step", visible=own is not None)

    def fitting(solver: str) -> Any:
        own = eta_of(solver)
        return gr.update(visible=own is not None, value=own or 0)

    solver.input(fitting, solver, eta, show_progress="hidden", **_ONE_AT_A_TIME)
    return solver, grid, steps, eta


def _live(gr: Any, blocks: Any, draw: Callable[..., Any], controls: Sequence[Any], shown: Any) -> Any:
    """Draw when the page opens and whenever a control changes; of changes meanwhile only the last one counts."""
    when = [blocks.load, *(control.change for control in controls)]
    return gr.on(when, draw, [*controls], shown, trigger_mode="always_last", show_progress="minimal", **_ONE_AT_A_TIME)
