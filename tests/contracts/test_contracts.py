"""What every public part promises, for each class that `unidiff` exports: a class is tested the day it is exported."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from itertools import pairwise

import pytest
import torch
from pairs import kind, rotating
from parts import EXAMPLES, FROZEN, GUIDED, MEANS, NEED_ONE_SNR, Through, classes, every, instances
from torch import nn

import unidiff as ud
from unidiff.backbone.base import Backbone
from unidiff.backbone.encoder import Encoder
from unidiff.data.base import Dataset
from unidiff.errors import ParameterError
from unidiff.grid import Grid
from unidiff.objective.base import Objective
from unidiff.objective.weighting import Weighting
from unidiff.recipe.registry import PUBLIC
from unidiff.schedule import Schedule
from unidiff.solver.per_sample import PerSampleSolver
from unidiff.velocity import VelocityField

PARAMETERIZATIONS, WEIGHTINGS = instances(ud.Parameterization), instances(Weighting)
SOLVERS, PROCESSES = instances(ud.Solver), instances(ud.Process)


# ---------------------------------------------------------------------------------------------- every public name


@every("name", list(ud.EXPORTS))
def test_public_names_exist_and_are_documented(name):
    value = PUBLIC.get(name)
    assert inspect.getdoc(value), name
    if inspect.isclass(value):
        own = value.__dict__.get("__doc__")
        assert own, f"{name} has no docstring of its own"
        assert value.__name__ == name


@every("cls", [value for name in ud.EXPORTS if inspect.isclass(value := PUBLIC.get(name))])
def test_public_methods_are_documented_here_or_in_a_base(cls):
    methods = [name for name in vars(cls) if not name.startswith("_") and callable(getattr(cls, name))]
    assert not [name for name in methods if not inspect.getdoc(getattr(cls, name))]


@every("cls", [*classes(*FROZEN), *classes(Backbone), *classes(ud.Denoiser), *classes(VelocityField)])
def test_parameters_are_documented(cls):
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    # A parameter that a base class documents need not be documented again.
    texts = [inspect.cleandoc(base.__doc__) for base in cls.__mro__ if base.__dict__.get("__doc__")]
    if parameters:
        sections = [text.split("Args:")[1] for text in texts if "Args:" in text]
        missing = [p.name for p in parameters if not any(f"\n    {p.name}: " in section for section in sections)]
        assert not missing, f"{cls.__name__} does not document {missing}"


# ---------------------------------------------------------------------------------------------- frozen parts


@every("part", instances(*FROZEN))
def test_frozen_parts_are_values(part):
    assert dataclasses.is_dataclass(part)
    assert not isinstance(part, nn.Module)
    for twin in (copy.copy(part), copy.deepcopy(part), dataclasses.replace(part)):
        assert twin == part
        assert repr(twin) == repr(part)
        assert hash(twin) == hash(part)
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, getattr(part, field.name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.something_new = 1


@every("part", instances(*FROZEN))
def test_repr_is_a_recipe(part):
    public = {name: PUBLIC.get(name) for name in ud.EXPORTS if name[:1].isupper()}
    assert eval(repr(part), {"__builtins__": {}}, public) == part


@every("part", instances(ud.Process, ud.Solver, ud.Parameterization, Grid))
def test_use_leaves_no_trace(part):
    # State is a local variable or a return value: a used part equals a new one.
    before = repr(part)
    process = part if isinstance(part, ud.Process) else ud.NCSN(levels=4)
    denoiser = Through(process, part if isinstance(part, ud.Parameterization) else ud.V())
    solver = part if isinstance(part, ud.Solver) else ud.DDIM()
    grid = part if isinstance(part, Grid) else ud.Uniform(4)
    first = ud.sample(denoiser, solver, grid, (2,), 2, dtype=torch.float64).x
    second = ud.sample(denoiser, solver, grid, (2,), 2, dtype=torch.float64).x
    assert torch.equal(first, second)
    assert repr(part) == before


# ---------------------------------------------------------------------------------------------- schedules, processes


@every("schedule", [schedule for schedule in instances(Schedule) if not isinstance(schedule, ud.BetaTable)])
@pytest.mark.parametrize("T", [2, 3, 50, 1000])
def test_schedules_lose_signal_at_every_entry(schedule, T):
    betas, log_alpha_bar = schedule.betas(T), schedule.log_alpha_bar(T)
    assert betas.shape == log_alpha_bar.shape == (T,)
    assert betas.dtype == log_alpha_bar.dtype == torch.float64
    assert ((betas > 0) & (betas <= 1)).all()
    assert (log_alpha_bar[0] < 0) & (log_alpha_bar[1:] < log_alpha_bar[:-1]).all()


@every("process", instances(ud.Process))
def test_processes_go_from_data_to_noise(process):
    t = torch.cat([torch.linspace(0, 1, 4001, dtype=torch.float64), torch.tensor([process.t_min]).double()]).unique()
    modes = process.basis.shape
    over = t.reshape(-1, *[1] * len(modes))
    log_snr = process.log_snr(over)
    # No mode gains, and the whole loses: Heat leaves the mean of an image alone.
    assert (log_snr[1:] <= log_snr[:-1]).all()
    assert (log_snr[1:] < log_snr[:-1]).reshape(len(t) - 1, -1).any(1).all()
    assert modes or (log_snr[1:] < log_snr[:-1]).all()
    assert 0 < process.t_min < 1
    assert (process.sigma(over[t >= process.t_min]) > 0).all()
    assert (process.log_alpha(over).dtype, process.log_sigma(over).dtype) == (torch.float64, torch.float64)
    # The two primitives keep any shape of times.
    for shape in ((), (1,), (2, 3)):
        at = torch.full((*shape, *[1] * len(modes)), 0.5)
        expected = (*shape, *modes)
        assert process.log_alpha(at).shape == process.log_sigma(at).shape == process.log_snr(at).shape == expected
    table = process.native_times()
    if table is not None:
        assert table.dtype == torch.float64
        assert (table[1:] > table[:-1]).all()
        assert (table[0], table[-1]) == (process.t_min, 1.0)


@every("process", instances(ud.Process))
def test_rates_are_those_of_a_forward_sde(process):
    modes = process.basis.shape
    t = torch.linspace(process.t_min, 0.99, 50, dtype=torch.float64).reshape(-1, *[1] * len(modes))
    f, g2 = process.rates(t)
    assert f.shape == g2.shape == (50, *modes)
    assert f.isfinite().all()
    assert (g2 >= 0).all()  # noise comes in at all times, because the log-SNR falls
    assert modes or (g2 > 0).all()


@pytest.mark.cases(40)
@every("process", instances(ud.Process))
@every("grid", instances(Grid))
def test_grids_walk_down_every_process(process, grid):
    try:
        grid.check(process)
    except ParameterError:
        with pytest.raises(ParameterError):
            grid.times(process)
        return
    times = grid.times(process)
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert times[-2] in (process.t_min, 1, getattr(grid, "last", None))
    assert (times[1:] < times[:-1]).all()


# ---------------------------------------------------------------------------------------------- everything together


def nothing_left(process):
    """Whether noise can be converted to data at t = 1 in no way that a float32 survives, in some mode."""
    level = process.level(1.0)
    moving = torch.as_tensor(level.alpha_rate).abs() + torch.as_tensor(level.sigma_rate).abs()
    return bool((torch.as_tensor(level.alpha / level.sigma) < 1e-6).any() or (moving == 0).any())


def run(process, parameterization, solver, grid):
    """A short run with a model that answers through the parameterization; None where it is refused."""
    try:
        denoiser = Through(process, parameterization)
    except ParameterError:
        assert nothing_left(process)  # the one reason to refuse a parameterization
        return None
    try:
        solution = ud.sample(denoiser, solver, grid, (2,), 3, dtype=torch.float64, keep=3)
    except ParameterError:
        assert denoiser.calls == [0], "refused only after it had begun"
        return None
    assert solution.x.shape == (3, 2)
    assert solution.x.dtype == torch.float64
    assert all(state.u.isfinite().all() for state in solution.path)
    assert solution.nfe == denoiser.calls[0] > 0
    return solution.x


@every(("solver", "grid"), rotating(instances(ud.Solver), instances(Grid), 2, most=8))
def test_any_solver_runs_on_any_grid(solver, grid):
    # What a grid's times are on every process is tested above.
    assert run(ud.NCSN(0.05, 20.0, 6), ud.V(), solver, grid) is not None


def test_every_guidance_is_tested():
    public = {name for name, module in ud.EXPORTS.items() if module.startswith("guidance") and name != "Guided"}
    public |= {name for name, cls in PUBLIC.choices(ud.inverse.Posterior).items()} | {"Replacement"}
    assert public == set(GUIDED)


def refuses(name: str, process: ud.Process) -> bool:
    """Whether a guidance refuses a process: PiGDM modes that differ, every posterior one that keeps nothing."""
    if not process.basis.shape or name not in PUBLIC.choices(ud.inverse.Posterior):
        return False
    level = process.level(1.0)
    return name == "PiGDM" or bool((torch.as_tensor(level.alpha / level.sigma) < 1e-6).any())


def guided(name: str, process: ud.Process, solver: ud.Solver, seeds: list[int]) -> torch.Tensor:
    """Samples of a guided mixture."""
    solver.check(process)
    model = GUIDED[name](ud.GaussianMixture(process, MEANS, 0.04))
    label = torch.tensor([0, 1, -1])[seeds]
    x = ud.sample(model, solver, ud.Uniform(4), (2,), seeds, dtype=torch.float64, label=label).x
    assert x.shape == (len(seeds), 2)
    assert x.isfinite().all()
    return x


MODES = ud.Blurring(shape=(2,), blur_max=2.0)  # beside the affine ones, guidance meets modes in the next test


CASES = [*((name, ud.VPSDE()) for name in GUIDED), ("ClassifierFree", MODES), ("Replacement", MODES)]


@every(("solver", "case"), rotating(instances(ud.Solver), CASES, 2, lambda case: case[1], most=6))
def test_any_guidance_runs_under_any_solver(case, solver):
    name, process = case
    if refuses(name, process) or (process.basis.shape and solver in NEED_ONE_SNR):
        with pytest.raises(ParameterError):
            guided(name, process, solver, [0, 1, 2])
        return
    if hasattr(solver, "rtol"):  # how it is steered is in question here, not how closely its steps are chosen
        solver = dataclasses.replace(solver, rtol=1e-2, atol=1e-2)
    x = guided(name, process, solver, [0, 1, 2])
    # A sample does not depend on its batch, but for adaptive steps, which are chosen for one.
    if not hasattr(solver, "rtol") and not process.basis.shape:
        torch.testing.assert_close(x[1:2], guided(name, process, solver, [1]), rtol=1e-6, atol=1e-6)


@every(("name", "process"), rotating(GUIDED, instances(ud.Process), 2, kind, most=12))
def test_any_guidance_runs_on_any_process(name, process):
    if refuses(name, process):
        with pytest.raises(ParameterError):
            GUIDED[name](ud.GaussianMixture(process, MEANS, 0.04))
        return
    for solver in (ud.DDIM(), ud.Ancestral(), ud.ExponentialAdams()):
        guided(name, process, solver, [0, 1, 2])


# Every pair is drawn in test_everything.py, of one parameterization.
@every(("solver", "process"), rotating(SOLVERS, PROCESSES, 1, lambda process: bool(process.basis.shape), most=6))
def test_any_solver_runs_on_any_process_with_any_parameterization(process, solver):
    # One model, many ways to write its answer: the samples must not depend on what a network predicts. Two of the
    # ways for each pair, in turn: each solver and each process meets them all, and a solver sees only x0 and eps.
    turn = (SOLVERS.index(solver) + PROCESSES.index(process)) % len(PARAMETERIZATIONS)
    parameterizations = (PARAMETERIZATIONS * 2)[turn:][:2]
    results = [run(process, parameterization, solver, ud.Uniform(4)) for parameterization in parameterizations]
    results = [x for x in results if x is not None]
    # Refusing everything would pass; alpha = 0, where u / alpha and the rates are infinite, excuses it, and for some
    # solvers many noise levels at one time.
    assert len(results) > 1 or process.basis.shape or process.level(1.0).alpha == 0
    for a, b in pairwise(results):
        # Conversions lose u / (smallest alpha), 1e-16 / 5e-5 = 2e-12, a step, on states of up to 1 / alpha. An
        # adaptive method may choose other steps after a rounding, and the kinks in the rates of a table of 12 entries
        # cost it more than its tolerance: 70 of them were seen.
        tolerance = max(1e-6, 100 * getattr(solver, "rtol", 0.0))
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every(
    ("process", "parameterization"),
    rotating(instances(ud.Process), PARAMETERIZATIONS, 1),
)
def test_every_objective_gives_finite_losses_and_gradients(process, parameterization):
    try:
        parameterization.check(process)
    except ParameterError:
        return
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(8, 3, 2, generator=generator)
    turn = PARAMETERIZATIONS.index(parameterization) + instances(ud.Process).index(process)
    for place, cls in enumerate(classes(Objective)):  # each takes the next weighting, on the next process another
        weighting = WEIGHTINGS[(turn + place) % len(WEIGHTINGS)]
        takes_weighting = "weighting" in inspect.signature(cls).parameters
        objective = cls(weighting=weighting) if takes_weighting else cls()
        try:
            objective.check(process)
        except ParameterError:
            assert process.basis.shape or (cls.learns_variance and process.native_times() is None)
            assert cls is not ud.Denoising
            continue
        backbone = ud.MLP((3, 2), width=8, depth=1, learned_variance=cls.learns_variance)
        denoiser = ud.NeuralDenoiser(process, parameterization, backbone)
        level = process.level(objective.times.draw(process, torch.linspace(0, 0.999, 8, dtype=torch.float64)), x0)
        noise = torch.randn(8, *objective.noise_shape(denoiser, (3, 2)), generator=generator)
        if cls.needs_teacher:
            objective = objective.with_teacher(copy.deepcopy(denoiser))
        losses = objective.losses(denoiser, x0, noise, level)
        assert losses.shape == (8,)
        assert losses.isfinite().all()  # of any sign: score matching is known up to a constant
        losses.mean().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in backbone.parameters())


@every("solver", instances(PerSampleSolver))
def test_samplers_of_velocities_draw_or_refuse_before_they_begin(solver):
    process = ud.PerSampleHeat(ud.RenormalizedHeat((2, 3), 1.0))
    exact = ud.PerSamplePosterior(process, torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(0)))
    network = ud.VelocityNetwork(process, ud.MLP((1, 2, 3), width=8, depth=1))
    for model in (exact, network):
        try:
            solver.check(model)
        except ParameterError:
            with pytest.raises(ParameterError):
                solver.sample(model, ud.Uniform(3), seeds=2)
            continue
        x = solver.sample(model, ud.Uniform(3), seeds=2)
        assert x.shape == (2, 1, 2, 3)
        assert x.isfinite().all()
        assert torch.equal(x, solver.sample(model, ud.Uniform(3), seeds=2))


# ---------------------------------------------------------------------------------------------- backbones, data


@every("cls", classes(Backbone))
def test_backbones_map_pixels_to_pixels(cls):
    for arguments in EXAMPLES[cls.__name__]:
        torch.manual_seed(0)
        network = cls(**arguments)
        assert isinstance(network, nn.Module)
        x = torch.randn(2, *network.shape)
        out = network(x, torch.tensor([0.0, 1000.0]))
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        out.square().sum().backward()
        with pytest.raises(ParameterError, match=r"(unconditional|conditioned on tokens), but was passed label"):
            network(x, torch.zeros(2), label=torch.zeros(2))
        # Any backbone makes a denoiser, and a sample.
        denoiser = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network)
        assert ud.sample(denoiser, ud.DDIM(), ud.Uniform(2), network.shape, 2).x.shape == x.shape


@every("cls", classes(Encoder))
def test_encoders_map_samples_of_any_rank_to_classes(cls):
    assert {len(arguments["shape"]) for arguments in EXAMPLES[cls.__name__]} == {2, 3, 4}
    for network in instances(cls):
        x = torch.randn(2, *network.shape)
        out = network(x, torch.tensor([0.0, 1000.0]))
        assert torch.equal(out, torch.zeros(2, 3))  # all classes are equally probable at first
        nn.init.ones_(network.head.weight)
        network(x, torch.tensor([0.0, 1000.0])).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())


@every("cls", [cls for cls in classes(Backbone) if EXAMPLES[cls.__name__]])  # one is made of a folder of diffusers
def test_every_backbone_is_tried_on_signals_images_and_volumes(cls):
    assert {len(arguments["shape"]) for arguments in EXAMPLES[cls.__name__]} == {2, 3, 4}


NAMES_FILES = ("path", "root", "fallback", "codec")  # parameters of data that are read from a disk or a network


@every(
    "data", [data for data in instances(Dataset) if not hasattr(data, "path") and not data.coded]
)  # whose header is not there to read
def test_data_know_their_shape_without_reading(data):
    assert all(isinstance(size, int) and size > 0 for size in data.shape)
    assert data.classes is None or data.classes >= 1


@every(
    "data",
    [data for data in instances(Dataset) if not data.unknown and not any(hasattr(data, name) for name in NAMES_FILES)],
)
def test_data_that_need_no_file_open(data):
    for split in ("train", "test"):
        source = data.open(split)
        batch = source.batch(torch.tensor([0, len(source) - 1]))
        assert source.shape == data.shape
        assert batch.shape == (2, *data.shape)
        assert batch.dtype == torch.float32
        assert batch.isfinite().all()
    with pytest.raises(ParameterError):
        data.open("validation")
