"""`unidiff.compare`: the true flow, evaluations for a budget, and the table, held against closed forms."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from dataclasses import dataclass

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.evaluation.budget import plan, plan_steps, probe
from unidiff.evaluation.comparison import Comparison, Distances, Row
from unidiff.evaluation.compatibility import check_same_data
from unidiff.recipe.registry import PUBLIC
from unidiff.solver.spec import SolverSpec, short, solver_specs

F64 = torch.float64
PROCESSES = [ud.DDPM(), ud.NCSN(0.01, 5.0, 20), ud.EDM(), ud.FlowMatching(), ud.SubVPSDE(), ud.VESDE()]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
UNIFORM = ud.Uniform()


def gaussian(process, variance=0.25):
    return ud.GaussianMixture(process, [[0.0, 0.0]], variance)


def starts(process, count=4, dtype=F64):
    return process.start(ud.Seeded(range(count)), torch.empty(count, 2, dtype=dtype))


# ---------------------------------------------------------------------------------------------- solvers for the tests


@dataclass(frozen=True)
class Twice(ud.DDIM):
    """DDIM that asks twice at each step."""

    order = 1

    def step(self, denoiser, u, t, s, noise, **cond):
        denoiser(u, t, **cond)
        return super().step(denoiser, u, t, s, noise, **cond)


@dataclass(frozen=True)
class Adaptive(ud.Solver):
    """A solver that takes no notice of the grid: 7 evaluations."""

    order = 1

    def states(self, denoiser, u, levels, noise, **cond):
        own = denoiser.process.levels_at(ud.Uniform(7).times(denoiser.process)[:-1])
        *_, end = ud.DDIM().states(denoiser, u, own, noise, **cond)
        yield from [end] * len(levels)


@dataclass(frozen=True)
class Wasteful(ud.DDIM):
    """Draws noise, and does not use it."""

    def step(self, denoiser, u, t, s, noise, **cond):
        noise(u)
        return super().step(denoiser, u, t, s, noise, **cond)


@dataclass(frozen=True)
class Picky(ud.DDIM):
    """A solver that refuses every process."""

    def check(self, process):
        raise ParameterError("process", "not this one.")


@dataclass(frozen=True)
class Broken(ud.DDIM):
    """A solver whose samples are no numbers."""

    def finish(self, denoiser, u, t, noise, **cond):
        return super().finish(denoiser, u, t, noise, **cond) / 0.0


@dataclass(frozen=True)
class FromTwo(ud.Uniform):
    """A grid of at least two steps."""

    def __post_init__(self):
        if self.steps < 2:
            raise ParameterError("steps", "too few.")


# ---------------------------------------------------------------------------------------------- the true flow


@pytest.mark.slow  # a second or more
@every_process
def test_the_flow_of_a_gaussian(process):
    # y = u / alpha and q = sigma / alpha follow dy/dq = q y / (C + q^2): y_0 = y_T sqrt(C / (C + q_T^2)), which is
    # u_T sqrt(C / (alpha_T^2 C + sigma_T^2)), also where alpha_T = 0.
    top, variance = process.level(1.0), 0.25
    exact = starts(process) * math.sqrt(variance / (top.alpha**2 * variance + top.sigma**2))
    flow = ud.evaluation.reference_flow(gaussian(process), (2,), 4, tolerance=1e-9)
    assert flow.error <= 1e-9
    # A fifteenth of 1e-9 by the steps, and q^2 / (2 C) = 2e-10 of |y| <= 2 by the denoise at q = 1e-5.
    torch.testing.assert_close(flow.x, exact, rtol=0, atol=1e-9)


class Opaque(ud.Denoiser):
    """An exact denoiser that is taken for a network: it knows nothing below t_min."""

    def __init__(self, exact):
        super().__init__()
        self.exact, self.process = exact, exact.process

    def forward(self, u, level, **cond):
        assert self.process.t_min <= level.time <= 1
        return self.exact(u, level)


@pytest.mark.slow  # a second or more
@every_process
def test_the_flow_of_a_model_that_ends_at_t_min(process):
    top, low, variance = process.level(1.0), process.level(process.t_min), 0.25
    spread = [level.alpha**2 * variance + level.sigma**2 for level in (top, low)]
    # The state keeps its quantile down to t_min; there E[x0 | u] = alpha C / (alpha^2 C + sigma^2) u.
    exact = starts(process) * math.sqrt(spread[1] / spread[0]) * low.alpha * variance / spread[1]
    flow = ud.evaluation.reference_flow(Opaque(gaussian(process)), (2,), 4, tolerance=1e-8)
    # DDPM's time is found to 2^-53, and log SNR falls by up to 1e3 in a unit of time: 1e-13.
    torch.testing.assert_close(flow.x, exact, rtol=0, atol=1e-8)


@pytest.mark.slow  # a second or more
def test_the_flow_says_how_right_it_is():
    ring = ud.data.Ring()
    model = ud.GaussianMixture(ud.DDPM(), *ring.mixture)
    rough = ud.evaluation.reference_flow(model, (2,), 30, tolerance=1e-3)
    fine = ud.evaluation.reference_flow(model, (2,), 30, tolerance=1e-7)
    off = float((rough.x - fine.x).square().mean().sqrt())
    assert off < rough.error < 1e-3 < 1  # halving moves the ends by fifteen times what is left
    assert fine.error < 1e-7
    assert rough.steps < fine.steps
    limited = ud.evaluation.reference_flow(model, (2,), 30, tolerance=0.0, most_steps=64)
    assert limited.steps == 64
    assert limited.error > 0


@pytest.mark.slow  # a second or more
def test_the_flow_does_not_depend_on_the_batch_and_takes_the_seeds():
    model = ud.GaussianMixture(ud.DDPM(), *ud.data.Ring().mixture)
    whole, parts = (ud.evaluation.reference_flow(model, (2,), 10, tolerance=1e-3, batch=batch).x for batch in (10, 3))
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        ud.evaluation.reference_flow(model, (2,), [7], tolerance=1e-3).x, whole[7:8], rtol=0, atol=1e-2
    )


def test_the_flow_of_a_finite_data_set_ends_in_it():
    data = torch.tensor([[0.5, -0.2], [-0.4, 0.3], [0.1, 0.6]], dtype=F64)
    flow = ud.evaluation.reference_flow(ud.Empirical(ud.DDPM(), data), (2,), 20, tolerance=1e-4)
    assert torch.cdist(flow.x, data).min(1).values.max() < 1e-9
    drawn = ud.Empirical(ud.DDPM(), data).draw(torch.zeros(300, 2, dtype=F64), torch.linspace(0, 1, 300, dtype=F64))
    assert torch.equal(torch.cdist(drawn, data).argmin(1).bincount(), torch.tensor([100, 100, 100]))


# ---------------------------------------------------------------------------------------------- short texts


def test_short_texts():
    read = lambda text: SolverSpec.of(text, UNIFORM)  # noqa: E731
    assert read("ddim") == SolverSpec(ud.DDIM(), UNIFORM)
    assert read("DDIM:0.5") == SolverSpec(ud.DDIM(eta=0.5), UNIFORM)
    assert read("ances:1@native") == SolverSpec(ud.Ancestral(variance_interpolation=1.0), ud.Native())
    assert read("annealed_langevin:3").solver == ud.AnnealedLangevin(steps_per_level=3)
    assert read(" ddim @ unif ") == SolverSpec(ud.DDIM(), ud.Uniform())
    assert SolverSpec.of(ud.DDIM(), ud.Native()).grid == ud.Native()
    assert SolverSpec.of((ud.DDIM(), ud.Native()), UNIFORM).grid == ud.Native()
    assert solver_specs(["ddim", ud.DDIM(), "DDIM"], UNIFORM) == [read("ddim")]


@pytest.mark.parametrize("base", [ud.Solver, ud.Grid])
def test_every_public_solver_and_grid_has_a_short_text(base):
    for name in PUBLIC.choices(base):
        text = name.lower() if base is ud.Solver else f"ddim@{name.lower()}"
        spec = SolverSpec.of(text, UNIFORM)
        assert type(spec.solver if base is ud.Solver else spec.grid).__name__ == name


@dataclass(frozen=True)
class DPM(ud.DDIM):
    eta: float = 0.0
    order: int = 2


@dataclass(frozen=True)
class DPMLonger(DPM):
    pass


@dataclass(frozen=True)
class Deis(DPM):
    pass


def test_beginnings_of_names(monkeypatch):
    known = {"DPM": DPM, "DPMLonger": DPMLonger, "Deis": Deis, "DDIM": ud.DDIM}
    monkeypatch.setattr(ud, "EXPORTS", dict.fromkeys(known, "solver.mine"))
    for name, cls in known.items():
        monkeypatch.setattr(ud, name, cls, raising=False)
    assert SolverSpec.of("dpm:3", UNIFORM).solver == DPM(order=3)  # `order`, though `eta` comes first
    assert SolverSpec.of("dp", UNIFORM).solver == DPM()  # DPMLonger is a longer form of it
    assert SolverSpec.of("dpml", UNIFORM).solver == DPMLonger()
    with pytest.raises(ParameterError, match=r"'d' is ambiguous: ddim or deis or dpm or dpmlonger\. Write more"):
        SolverSpec.of("d", UNIFORM)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ddimm", r"there is no solver 'ddimm'\. Did you mean 'ddim'\? Choose one of "),
        ("ddim@unifrom", "there is no grid 'unifrom'"),
        ("ddim:x", "eta must be a number, got 'x'"),
        ("annealed:2.5", "steps_per_level must be an integer, got '2.5'"),
        ("ddim:3", r"eta must be a number in \[0, 1\], got 3"),
        ("ddim@native:3", "Native has no numeric parameter for ':3'"),
        ("ddim@uniform:3", "Uniform has no numeric parameter"),  # steps follow from the evaluations
        ("", "there is no solver ''"),
    ],
)
def test_short_texts_that_mean_nothing(text, said):
    with pytest.raises(ParameterError, match=said):
        SolverSpec.of(text, UNIFORM)


def test_labels_leave_out_what_is_not_chosen():
    assert short(ud.DDIM()) == "DDIM"
    assert short(ud.DDIM(eta=0.5)) == "DDIM(eta=0.5)"
    assert SolverSpec(ud.DDIM(), ud.Uniform(steps=7)).label == "DDIM @ Uniform"
    assert SolverSpec(ud.DDIM(), ud.Power(steps=7, rho=5.0)).label == "DDIM @ Power(rho=5.0)"
    assert SolverSpec(ud.DDIM(), ud.Native()).label == "DDIM @ Native"


# ---------------------------------------------------------------------------------------------- evaluations


@pytest.mark.parametrize(("solver", "expected"), [(ud.DDIM(), [1, 4, 50]), (Twice(), [1, 3, 49])])
def test_the_most_steps_that_a_budget_buys(solver, expected):
    # DDIM asks once in each interval; Twice twice in all but the last: 2 N - 1.
    runs, note = plan(SolverSpec(solver, UNIFORM), ud.DDPM(), (2,), [50, 1, 4])
    assert [run.spec.grid.times(ud.DDPM()).shape[0] - 1 for run in runs] == (
        expected if solver == ud.DDIM() else [1, 2, 25]
    )
    assert [probe(run.spec, ud.DDPM(), (2,))[0] for run in runs] == expected
    assert [run.requested for run in runs] == [1, 4, 50]
    assert note == ""
    assert all(run.deterministic for run in runs)


def test_numbers_of_steps_in_place_of_evaluations():
    model = gaussian(ud.DDPM())
    found = ud.compare(model, [(ud.DDIM(), UNIFORM), (Twice(), UNIFORM)], steps=[4, 2], seeds=20, tolerance=1e-2)
    assert [(row.label.split()[0], row.steps, row.requested, row.nfe) for row in found.rows] == [
        *[("DDIM", 2, 2, 2), ("DDIM", 4, 4, 4)],
        *[("Twice", 2, 2, 3), ("Twice", 4, 4, 7)],  # 2 N - 1
    ]
    runs, note = plan_steps(SolverSpec(ud.DDIM(), FromTwo()), ud.DDPM(), (2,), [1, 5])
    assert [run.spec.grid.steps for run in runs] == [5]
    assert note.endswith("is left out at 1 step: it needs at least 2.")
    (run,), note = plan_steps(SolverSpec(ud.DDIM(), ud.Native()), ud.DDPM(T=30), (2,), [5])
    assert (run.requested, note, run.spec.grid) == (None, "", ud.Native())
    with pytest.raises(ParameterError, match="steps must be empty where `nfes` are given"):
        ud.compare(model, ud.DDIM(), [5], steps=[5], seeds=20)
    with pytest.raises(ParameterError, match="nfe must be a list of at least one integer"):
        ud.compare(model, ud.DDIM(), seeds=20)


@dataclass(frozen=True)
class Uneven(ud.DDIM):
    """A solver whose evaluations are no straight line in the steps: every third step asks twice."""

    def trajectory(self, denoiser, u, times, noise, **cond):
        for number, state in enumerate(super().trajectory(denoiser, u, times, noise, **cond)):
            if number % 3 == 2:
                denoiser(u, denoiser.process.level(1.0))
            yield state


def test_evaluations_that_are_no_straight_line_are_searched():
    asked = [1, 2, 7, 20, 21, 22, 43]
    runs, _ = plan(SolverSpec(Uneven(), UNIFORM), ud.DDPM(T=10), (2,), asked)
    cost = {steps: steps + (steps + 1) // 3 for steps in range(1, 60)}
    for run in runs:
        steps = run.spec.grid.steps
        assert cost[steps] <= run.requested < cost[steps + 1]


def test_what_a_budget_does_not_buy():
    langevin = SolverSpec(ud.AnnealedLangevin(steps_per_level=3, step_size=1e-9), UNIFORM)
    runs, note = plan(langevin, ud.DDPM(), (2,), [2, 3, 10, 11, 12])
    # 3 at each level and a denoise at the end: 4, 7, 10, ...; three requests buy the same run.
    assert [(run.spec.grid, run.requested) for run in runs] == [(ud.Uniform(3), 10)]
    assert note == f"{langevin.label} is left out at 2, 3 evaluations: its smallest run takes 4."


def test_solvers_that_take_their_own_steps():
    assert plan(SolverSpec(Adaptive(), UNIFORM), ud.DDPM(), (2,), [5, 50])[0][0].requested is None
    (run,), note = plan(SolverSpec(ud.DDIM(), ud.Native()), ud.DDPM(T=30), (2,), [5, 50])
    assert (run.requested, note, run.spec.grid) == (None, "", ud.Native())


def test_a_refusal_is_a_note():
    runs, note = plan(SolverSpec(Picky(), UNIFORM), ud.DDPM(), (2,), [5])
    assert (runs, note) == ([], "Picky @ Uniform is left out: process: not this one.")
    runs, note = plan(SolverSpec(ud.DDIM(), ud.Native()), ud.VPSDE(), (2,), [5])
    assert runs == []
    assert "Native needs a table of times" in note
    runs, note = plan(SolverSpec(ud.DDIM(), FromTwo()), ud.DDPM(), (2,), [1, 5])
    assert [run.spec.grid.steps for run in runs] == [5]
    assert "at 1 evaluation: its smallest run takes 2" in note


def test_determinism_is_measured():
    expected = {ud.DDIM(): True, ud.DDIM(eta=0.5): False, ud.Ancestral(): False, Wasteful(): True}
    for solver, deterministic in expected.items():
        for grid in (UNIFORM, ud.Native()):
            runs, _ = plan(SolverSpec(solver, grid), ud.DDPM(T=10), (2,), [4])
            assert [run.deterministic for run in runs] == [deterministic]


# ---------------------------------------------------------------------------------------------- the comparison


def without_clock(found: Comparison):
    facts = found.to_dict()
    return {**facts, "rows": [{**row, "seconds": 0} for row in facts["rows"]]}


def ring():
    model = ud.GaussianMixture(ud.DDPM(), *ud.data.Ring().mixture)
    solvers = ["ddim", "ancestral", ud.AnnealedLangevin(3, 1e-9), (Adaptive(), UNIFORM)]
    options = {"grid": UNIFORM, "followed": 40, "tolerance": 1e-5}
    return ud.compare(model, solvers, [3, 10], (2,), 60, **options)


@pytest.fixture(scope="module")
def found():
    return ring()


@pytest.mark.slow  # a second or more
def test_a_comparison(found):
    assert [(row.label, row.nfe, row.requested, row.steps) for row in found.rows] == [
        ("DDIM @ Uniform", 3, 3, 3),
        ("DDIM @ Uniform", 10, 10, 10),
        ("Ancestral @ Uniform", 3, 3, 3),
        ("Ancestral @ Uniform", 10, 10, 10),
        ("AnnealedLangevin(steps_per_level=3, step_size=1e-09) @ Uniform", 10, 10, 3),
        ("Adaptive @ Uniform", 7, None, 50),
    ]
    assert [row.rms is not None for row in found.rows] == [True, True, False, False, False, True]
    assert found.rows[0].rms > found.rows[1].rms > 1000 * found.flow_errors[""] > 0
    assert len(found.notes) == 1
    assert (found.count, found.followed) == (60, 40)
    assert found.truth[""].shape == (40, 2)
    for row in found.rows:
        assert row.x.shape == (60, 2)
        assert row.seconds > 0
        assert row.distances.energy.error > 0
        assert row.distances.features is None
    assert abs(found.baseline.energy.value) < 5 * found.baseline.energy.error
    assert without_clock(ring()) == without_clock(found)


def test_rows_are_samples_of_unidiff_sample(found):
    model = ud.GaussianMixture(ud.DDPM(), *ud.data.Ring().mixture)
    for row, solver in ((found.rows[1], ud.DDIM()), (found.rows[3], ud.Ancestral())):
        x = ud.sample(model, solver, ud.Uniform(10), (2,), 60, dtype=F64).x
        assert torch.equal(row.x, x)
    assert found.rows[1].solver == "DDIM(eta=0.0)"
    assert found.rows[1].grid == "Uniform(steps=10)"
    rms = float((found.rows[1].x[:40] - found.truth[""]).square().mean().sqrt())
    assert found.rows[1].rms == rms


def test_all_start_from_the_same_noise():
    seen = []

    @dataclass(frozen=True)
    class Looks(ud.DDIM):
        def trajectory(self, denoiser, u, times, noise, **cond):
            if len(u) > 1:
                seen.append(u)
            return super().trajectory(denoiser, u, times, noise, **cond)

    @dataclass(frozen=True)
    class LooksToo(Looks):
        eta: float = 0.7

    solvers = [(Looks(), UNIFORM), (LooksToo(), UNIFORM)]
    ud.compare(gaussian(ud.DDPM()), solvers, [3, 5], (2,), range(5, 30), batch=100, tolerance=1e-2)
    assert len(seen) == 4
    expected = ud.Seeded(range(5, 30))(torch.empty(25, 2, dtype=F64))
    assert all(torch.equal(u, expected) for u in seen)


@pytest.mark.slow  # a second or more
@every_process
def test_ddim_is_of_order_one(process):
    found = ud.compare(gaussian(process), ["ddim"], [100, 200, 400], (2,), 20, grid=UNIFORM)
    (line,) = found.lines
    assert abs(line.order - 1) < 0.15
    assert all(row.rms > 100 * found.flow_errors[""] for row in line.rows)


def test_orders_are_fitted_to_what_the_reference_resolves():
    def rows(rms):
        fixed = {"model": "", "label": "A", "solver": "A()", "grid": "G()", "requested": None, "seconds": 1.0}
        return tuple(
            Row(**fixed, steps=n, nfe=n, deterministic=True, rms=e, distances=Distances(), x=torch.zeros(1, 2))
            for n, e in rms.items()
        )

    def order(rms, floor=0.0):
        return Comparison(rows(rms), 1, 1, {"": floor}, Distances(), ()).lines[0].order

    assert abs(order({n: 5.0 / n**2 for n in (10, 20, 40)}) - 2) < 1e-12
    assert abs(order({1: 9.0, 2: 8.0} | {n: 5.0 / n**2 for n in (10, 20, 40)}) - 2) < 1e-12  # the last three points
    # Two resolved points are one slope, with nothing to compare it with; and a floor leaves two.
    assert order({10: 1e-2, 20: 1e-3, 40: 1e-7}, 1e-6) is None
    assert order({n: 5 / n**2 + (1e-3 if n < 30 else 1e-2) for n in (10, 20, 40, 80)}) is None
    # An error c h^p (1 + e h): asymptotic where e h is small. At h = 1/10 to 1/40 the slopes of p = 2 and e = 20 are
    # log2(4 (1 + 2) / (1 + 1)) = 2.58 and log2(4 (1 + 1) / (1 + 1/2)) = 2.42: they differ by 6 %. With e = -8 they are
    # log2(4 / 3) = 0.42 and log2(4 * 0.6 / 0.8) = 1.58.
    assert abs(order({n: (1 + 20 / n) / n**2 for n in (10, 20, 40)}) - 2.5) < 0.01
    assert order({n: (1 - 8 / n) / n**2 for n in (10, 20, 40)}) is None
    # Slopes that are alike by chance, before others that are not: those at the finest steps decide.
    assert order({5: 1.0, 10: 0.25, 20: 0.0625, 40: 0.0078}) is None
    assert abs(order({n: 5.0 / n**2 for n in (5, 10, 20)} | {40: 1e-2, 80: 9e-3}) - 2) < 1e-12
    # A slow beginning is no floor.
    assert abs(order({2: 1.0, 4: 0.9} | {n: 50.0 / n**3 for n in (8, 16, 32)}) - 3) < 1e-12
    assert order({10: 1e-2}) is None
    assert order({10: 1e-2, 20: math.inf}) is None
    assert order({10: 0.0, 20: 0.0}) is None
    assert order({10: None, 20: None}) is None


def test_csv_and_json(found):
    facts = json.loads(found.to_json())
    assert facts == found.to_dict()
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(table) == len(facts["rows"]) == 6
    for line, row in zip(table, facts["rows"]):
        assert list(line) == list(row)
        assert line["label"] == row["label"]
        assert (float(line["energy"]), float(line["energy_error"])) == (row["energy"], row["energy_error"])
        assert line["rms"] == ("" if row["rms"] is None else repr(row["rms"]))
        assert line["features"] == ""


def test_samples_that_are_no_numbers():
    found = ud.compare(gaussian(ud.DDPM()), [(Broken(), UNIFORM)], [4], (2,), 20, tolerance=1e-2)
    assert "20 of 20 samples are not finite" in found.notes[0]
    (row,) = json.loads(found.to_json())["rows"]
    assert (row["rms"], row["energy"], row["sliced"]) == (None, None, None)


def test_several_models_and_features():
    models = [("small", gaussian(ud.DDPM())), ("flow", gaussian(ud.FlowMatching()))]
    found = ud.compare(models, ["ddim"], [5], (2,), 30, features=lambda x: x[:, :1], tolerance=1e-3)
    assert [line.model for line in found.lines] == ["small", "flow"]
    assert set(found.flow_errors) == set(found.truth) == {"small", "flow"}
    for row in found.rows:
        assert row.distances.features.value != row.distances.energy.value
    # Straight paths of one Gaussian: the ends differ from the truth by the steps alone, and from each other.
    assert found.rows[0].rms != found.rows[1].rms


def test_a_model_that_is_not_exact_needs_data_for_distances():
    model = Opaque(gaussian(ud.DDPM()))
    bare = ud.compare(model, ["ddim"], [5], (2,), 20, tolerance=1e-3)
    assert bare.rows[0].distances == bare.baseline == Distances()
    data = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    full = ud.compare(model, ["ddim"], [5], (2,), 20, reference_data=data, tolerance=1e-3, dtype=torch.float32)
    assert full.rows[0].distances.energy is not None
    assert full.rows[0].x.dtype == torch.float32
    assert full.baseline == Distances()


def test_refusals():
    model = gaussian(ud.DDPM())
    with pytest.raises(ParameterError, match="at least 20 samples"):
        ud.compare(model, ["ddim"], [5], (2,), 19)
    with pytest.raises(ParameterError, match="nfe"):
        ud.compare(model, ["ddim"], [0], (2,), 20)
    with pytest.raises(ParameterError, match="nfe"):
        ud.compare(model, ["ddim"], [], (2,), 20)
    with pytest.raises(ParameterError, match="at least one solver"):
        ud.compare(model, [], [5], (2,), 20)
    with pytest.raises(ParameterError, match="one label for each model"):
        ud.compare([("a", model), ("a", model)], ["ddim"], [5], (2,), 20)
    with pytest.raises(ParameterError, match=r"one that can run\. Picky @ Uniform is left out"):
        ud.compare(model, [(Picky(), UNIFORM)], [5], (2,), 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"solvers": [3]}, r"solvers must be a Solver or a string or a list, .*got \(3,\)"),
        ({"solvers": [("ddim", UNIFORM)]}, "solvers must be a"),
        ({"solvers": [(ud.DDIM(), UNIFORM, 3)]}, "solvers must be a"),
        ({"batch": 0}, r"batch must be an integer .*got 0"),
        ({"followed": 0}, r"followed must be an integer .*got 0"),
        ({"most_steps": 0}, r"most_steps must be an integer .*got 0"),
        ({"tolerance": 0.0}, r"tolerance must be a number > 0, got 0.0"),
        ({"tolerance": math.nan}, r"tolerance must be a number > 0, got nan"),
        ({"dtype": torch.int32}, r"dtype must be a floating type"),
        ({"reference_data": torch.zeros(50, 3)}, "reference_data"),
        ({"reference_data": torch.zeros(9, 2)}, "reference_data must be .*at least 10"),
        ({"fresh_data": torch.full((50, 2), math.nan)}, "fresh_data: contains NaN"),
        ({"shape": (3,)}, r"shape must be that of the data, \(2,\), got \(3,\)"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_before_any_work(changes, said):
    class Untouchable(ud.GaussianMixture):
        def forward(self, u, level, **cond):
            raise AssertionError("asked after all")

    arguments = {"solvers": ["ddim"], "nfes": [5], "seeds": 20, **changes}
    with pytest.raises(ParameterError, match=said):
        ud.compare(Untouchable(ud.DDPM(), [[0.0, 0.0]], 0.25), **arguments)


CORNERS, SPREADS, SHARES = [[-0.6, 0.3], [0.5, -0.2]], torch.tensor([0.06, 0.04], dtype=F64), [0.3, 0.7]
TURNED = torch.tensor([[0.06, 0.01], [0.01, 0.04]], dtype=F64)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (([[0.0, 0.0]], 0.25), ([[0.0, 1e-6]], 0.25)),
        (([[0.0, 0.0]], 0.25), ([[0.0, 0.0]], 0.25 + 1e-6)),
        ((CORNERS, SPREADS, SHARES), (CORNERS, SPREADS, [0.3001, 0.6999])),
        ((CORNERS, SPREADS, SHARES), (CORNERS, SPREADS.flip(0), SHARES)),
        (([[0.0, 0.0]], TURNED), ([[0.0, 0.0]], TURNED.diag().diag())),
        (([[0.0, 0.0]], 0.25), ([[0.0, 0.0], [3.0, 0.0]], 0.25, [1.0, 1e-3])),
    ],
)
def test_closed_forms_of_different_data_are_refused(one, other):
    models = [("a", ud.GaussianMixture(ud.DDPM(), *one)), ("b", ud.GaussianMixture(ud.FlowMatching(), *other))]
    with pytest.raises(ParameterError, match="models: 'a' and 'b' are of different data"):
        ud.compare(models, "ddim", [5], seeds=20)


def test_the_same_data_in_other_words_are_accepted():
    data = torch.tensor([[0.5, -0.2], [-0.4, 0.3], [0.1, 0.6]], dtype=F64)
    check_same_data(
        [
            ("a", ud.GaussianMixture(ud.DDPM(), CORNERS, SPREADS, SHARES)),
            ("another order", ud.GaussianMixture(ud.VESDE(), CORNERS[::-1], SPREADS.flip(0), [7.0, 3.0])),
            ("a different basis", ud.GaussianMixture(ud.Blurring((2,), blur_max=2.0), CORNERS, SPREADS, SHARES)),
            (
                "matrices",
                ud.GaussianMixture(ud.EDM(), CORNERS, SPREADS[:, None, None] * torch.eye(2, dtype=F64), SHARES),
            ),
            ("a network", Opaque(gaussian(ud.DDPM()))),
        ]
    )
    check_same_data([
        ("a", ud.Empirical(ud.DDPM(), data)),
        ("points", ud.GaussianMixture(ud.EDM(), data, 0.0)),
    ])  # fmt: skip
    with pytest.raises(ParameterError, match="'a' and 'b'"):
        check_same_data([("a", ud.Empirical(ud.DDPM(), data)), ("b", ud.Empirical(ud.DDPM(), data[:2]))])


def test_models_of_different_shapes_are_refused():
    models = [("a", gaussian(ud.DDPM())), ("b", ud.GaussianMixture(ud.DDPM(), [[0.0]], 0.25))]
    with pytest.raises(ParameterError, match=r"models must .*'a' of \(2,\), 'b' of \(1,\)"):
        ud.compare(models, "ddim", [5], seeds=20)


@pytest.mark.parametrize("solver", ["ddim", ud.DDIM()], ids=repr)
def test_one_solver_need_not_be_a_list(solver):
    found = ud.compare(gaussian(ud.DDPM()), solver, [2], seeds=20, tolerance=1e-1)
    assert [row.solver for row in found.rows] == ["DDIM(eta=0.0)"]


def test_progress_ends():
    said = []
    report = lambda *words: said.append(words)  # noqa: E731
    ud.compare(gaussian(ud.DDPM()), ["ddim"], [2, 4], seeds=20, tolerance=1e-1, progress=report)
    assert said == [(0, 2), (1, 2), (2, 2)]
    flow, order = [], []
    options = {"seeds": 20, "tolerance": 1e-1, "most_steps": 128, "progress": lambda *words: order.append(words)}
    ud.compare(
        gaussian(ud.DDPM()),
        ["ddim"],
        [2],
        **options,
        flow_progress=lambda *words: (flow, order)[bool(order)].append(words),
    )
    assert order == [(0, 1), (1, 1)]  # the whole flow comes first
    assert flow[0] == (0, 256)
    assert flow[-1] == (256, 256)
    assert flow == sorted(flow)


def test_results_are_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.count = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.rows[0].rms = 0.0


# ---------------------------------------------------------------------------------------------- one start, conditions

MEANS = [[-0.6, 0.3], [0.5, -0.2]]


def public_processes():
    data = 0.3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    known = {
        "NCSN": ud.NCSN(0.01, 5.0, 60),
        "RenormalizedHeat": ud.RenormalizedHeat((2,), 0.5).fit([data]),
        "Blurring": ud.Blurring((2,), 2.0),
        "InverseHeat": ud.InverseHeat((2,), 0.8, levels=100).fit([data]),  # starts from these data, blurred
    }
    return [known.get(name) or cls() for name, cls in PUBLIC.choices(ud.Process).items()]


@pytest.mark.cases(1)
@pytest.mark.parametrize("process", public_processes(), ids=lambda process: type(process).__name__)
def test_the_error_of_every_process_falls_to_its_floor(process):
    model = Opaque(gaussian(process))  # both the solver and the true flow end with a denoise at t_min: the floor is 0
    found = ud.compare(model, "ddim", [16, 64, 256], (2,), 20, tolerance=1e-5, most_steps=256)
    few, more, most = (row.rms for row in found.rows)
    # DDIM is of order 1: an error c h (1 - e h / h0) falls by 4 (1 - e) / (1 - e / 4) from h0 to h0 / 4, where e is the
    # share of the higher orders at h0: by 3 for Blurring, whose e of 0.3 is the largest; by 2.5 for e = 0.44. Starts
    # other than the true flow's leave an error of the size of the data, 0.5, at any number of steps.
    assert more < few / 2.5
    assert most < more / 2.5
    assert most < 0.02


class Tilted(ud.Denoiser):
    """The score of p(u) p(label | u)^scale of a mixture, by automatic differentiation."""

    def __init__(self, mixture, label, scale):
        super().__init__()
        self.mixture, self.process, self.label, self.scale = mixture, mixture.process, label, scale

    def forward(self, u, level, **cond):
        with torch.enable_grad():
            state = u.detach().requires_grad_()
            joint = self.mixture.log_joint(state, level)
            whole = joint.logsumexp(1)
            (score,) = torch.autograd.grad((whole + self.scale * (joint[:, self.label] - whole)).sum(), state)
        eps = -level.sigma * score
        return ud.Prediction((u - level.sigma * eps) / level.alpha, eps, level)


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("scale", [0.0, 3.0, 1.0])
def test_a_guided_model_is_compared_as_guided(scale):
    mixture = ud.GaussianMixture(ud.VPSDE(), MEANS, 0.05)
    label = torch.zeros(20, dtype=torch.long)
    found = ud.compare(ud.ClassifierFree(mixture, scale), "ddim", [32, 128], (2,), 20, most_steps=256, label=label)
    truth = ud.compare(Tilted(mixture, 0, scale), "ddim", [32, 128], (2,), 20, most_steps=256)
    # 1e-9: rounding of the score, 1e-16 / sigma^2 with sigma^2 = 1e-4 at t_min, through at most 512 steps.
    torch.testing.assert_close(found.truth[""], truth.truth[""], rtol=0, atol=1e-9)
    for row, true in zip(found.rows, truth.rows):
        torch.testing.assert_close(row.x, true.x, rtol=0, atol=1e-9)
    assert found.rows[1].rms < found.rows[0].rms / 3  # order 1


@pytest.mark.slow  # 1 s: many samples
def test_true_samples_are_of_the_conditions():
    mixture = ud.GaussianMixture(ud.VPSDE(), [[-3.0, 0.0], [3.0, 0.0]], 0.01)
    label = torch.zeros(40, dtype=torch.long)
    distances = ud.compare(mixture, "ddim", [50], (2,), 40, label=label).rows[0].distances
    # Half of the true samples would be 6 away if the labels were not theirs: the energy distance would be about 3.
    assert distances.energy.value < 0.05


MISSING = "classifier-free guidance needs the condition 'label'"
ENTRIES = {
    "sample": lambda model: ud.sample(model, seeds=2),
    "compare": lambda model: ud.compare(model, "ddim", [5], (2,), 20),
    "reference_flow": lambda model: ud.evaluation.reference_flow(model, (2,), 2),
    "encode": lambda model: ud.encode(model, torch.zeros(2, 2)),
    "decode": lambda model: ud.decode(model, torch.zeros(2, 2)),
    "round_trip": lambda model: ud.round_trip(model, torch.zeros(2, 2)),
    "edit": lambda model: ud.edit(model, torch.zeros(2), 0.5),
    "inpaint": lambda model: ud.inpaint(model, torch.zeros(2), torch.tensor([1, 0])),
    "variations": lambda model: ud.variations(model, torch.zeros(2), 0.5),
    "log_likelihood": lambda model: ud.log_likelihood(model, torch.zeros(2, 2), ud.ExactTrace()),
    "variational_bound": lambda model: ud.variational_bound(model, torch.zeros(2, 2), ud.Uniform(5)),
    "mean_prediction": lambda model: ud.evaluation.mean_prediction(model, seeds=2),
    "forward": lambda model: model(torch.zeros(2, 2), model.process.level(0.5)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_guided_model_without_its_condition_is_an_error(entry):
    guided = ud.ClassifierFree(ud.GaussianMixture(ud.VPSDE(), MEANS, 0.05), 2.0)
    for model in (guided, ud.GuidanceInterval(guided, 0.2, 0.3), ud.RescaledGuidance(guided)):
        model.shape = (2,)
        with pytest.raises(ParameterError, match=MISSING):
            ENTRIES[entry](model)


@pytest.mark.parametrize("model", [gaussian(ud.VPSDE()), ud.Empirical(ud.VPSDE(), torch.zeros(3, 2))])
def test_unknown_conditions_of_exact_models_are_errors(model):
    with pytest.raises(ParameterError, match=r"^labels: "):
        ud.sample(model, shape=(2,), labels=torch.zeros(1, dtype=torch.long))
    with pytest.raises(ParameterError, match=r"^labels: "):
        model(torch.zeros(1, 2), model.process.level(0.5), labels=torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("solver", [ud.DDIM(), ud.Ancestral(), ud.ExponentialAdams()])
def test_samples_do_not_depend_on_the_batch(solver):
    model = ud.ClassifierFree(ud.GaussianMixture(ud.VPSDE(), MEANS, 0.05), 2.0)
    label, seen = torch.tensor([0, 1, 1, 0, 1]), []
    options = {"label": label, "dtype": F64}
    whole = ud.sample(model, solver, ud.Uniform(10), (2,), [3, 1, 4, 1, 5], **options)
    parts = ud.sample(
        model, solver, ud.Uniform(10), (2,), [3, 1, 4, 1, 5], batch=2, progress=lambda *at: seen.append(at), **options
    )
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-12, atol=1e-12)  # sums may round unlike in another batch
    assert parts.nfe == whole.nfe
    assert seen == [(done, 30) for done in range(1, 31)]
