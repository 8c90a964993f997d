"""Which noise belongs to which sample: independent, given in pairs, or by the optimal transport of a batch."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiny import RING, refused, write

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.errors import DataError, ParameterError, RunError
from unidiff.training.batches import Batch, BatchPlan
from unidiff.training.loop import Interrupted
from unidiff.training.losses import LossInTraining

COUNT = 24
X = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(7))
SOURCE = TensorSource(X, "points", labels=torch.arange(COUNT))
PIXELS = ud.FlowMatching().basis


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(tmp_path, values, name="noise.npy"):
    np.save(tmp_path / name, np.asarray(values))
    return str(tmp_path / name)


def settings(**changes):
    return ud.Training(**{"steps": 1, "batch": 8, "precision": "fp32", "tensorboard": False, **changes})


def flow(seed=0, width=8):
    torch.manual_seed(seed)
    return ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), ud.MLP((2,), width=width, depth=1, classes=COUNT))


def seen_in_training(coupling, source=SOURCE, **changes):
    """Data, noise, labels and times that the losses of one step are computed from."""
    seen = []

    class Spy(ud.Denoising):
        def losses(self, denoiser, u0, eps, level, **cond):
            seen.append((u0, eps, cond["label"], level.time.flatten()))
            return super().losses(denoiser, u0, eps, level, **cond)

    ud.train(flow(), source, Spy(coupling=coupling), settings(**changes), conditioning=ud.Labels(0.0))
    return [torch.cat(parts) for parts in zip(*seen)]


SILENT = SimpleNamespace(notice=lambda text: None, progress=lambda *done: None)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PLAN = BatchPlan(0, 8, COUNT)
UNIFORM, NOISE = PLAN.uniform(0), PLAN.noise(0, (2,))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_independent_noise_is_that_of_the_plan_bit_for_bit(accumulate):
    x, eps, label, time = seen_in_training(ud.Independent(), accumulate=accumulate)
    assert torch.equal(eps, NOISE)
    assert torch.equal(x, X[PLAN.indices(0)])
    assert torch.equal(label, PLAN.indices(0))
    assert torch.equal(time, ud.UniformTimes().draw(ud.FlowMatching(), UNIFORM).float())
    assert ud.Denoising().coupling == ud.Independent()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_transport_permutes_the_noise_of_the_whole_batch_and_leaves_samples_with_their_labels(accumulate):
    x, eps, label, _ = seen_in_training(ud.OptimalTransport(), accumulate=accumulate)
    assert torch.equal(x, X[PLAN.indices(0)])
    assert torch.equal(label, PLAN.indices(0))
    assert not torch.equal(eps, NOISE)
    _, expected = linear_sum_assignment(torch.cdist(x.double(), NOISE.double()).square().numpy())
    assert torch.equal(eps, NOISE[torch.from_numpy(expected)])


def assigned(x, noise):
    """The noise of least squared distance from each sample."""
    return noise[torch.from_numpy(linear_sum_assignment(torch.cdist(x.double(), noise.double()).square().numpy())[1])]


class Augmented(torch.utils.data.Dataset):
    """Points moved far, by another draw in each read."""

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return X[i] + 10 * torch.randn(2), i


@pytest.mark.parametrize("accumulate", [1, 4])
def test_transport_is_that_of_the_augmented_samples_that_are_trained_on(accumulate):
    x, eps, label, _ = seen_in_training(ud.OptimalTransport(), Augmented(), accumulate=accumulate)
    assert torch.equal(label, PLAN.indices(0))
    assert torch.equal(eps, assigned(x, NOISE))
    assert not torch.equal(eps, assigned(X[label], NOISE))


def test_transport_reads_each_sample_of_an_iterable_once():
    read = []

    class Counting:
        def __iter__(self):
            for i in range(COUNT):
                read.append(i)
                yield X[i], i

    x, eps, label, _ = seen_in_training(ud.OptimalTransport(), Counting(), steps=3)
    assert torch.equal(x, X)
    assert read == list(range(COUNT))
    for step, rows in enumerate(label.split(8)):
        noise = BatchPlan(0, 8, None).noise(step, (2,))
        assert torch.equal(eps[rows], assigned(X[rows], noise))
    once = seen_in_training(ud.OptimalTransport(), iter(Counting()), steps=3)
    assert all(torch.equal(a, b) for a, b in zip(once, (x, eps, label)))


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 4, 4)])
def test_transport_is_an_assignment_of_least_squared_distance(shape):
    x, noise = normal(COUNT, *shape, seed=1) * 3 + 1, normal(COUNT, *shape)
    eps = ud.OptimalTransport().couple(TensorSource(x - x.mean(), "x"), torch.arange(COUNT), noise, PIXELS)
    x = x - x.mean()
    # A permutation: every row once, so the marginal of the noise is unchanged.
    rows = [row.tolist() for row in noise.flatten(1)]
    assert sorted(row.tolist() for row in eps.flatten(1)) == sorted(rows)
    distance = torch.cdist(x.flatten(1).double(), noise.flatten(1).double()).square()
    rows, columns = linear_sum_assignment(distance.numpy())
    cost = (x.double() - eps).square().sum()
    assert float(cost) == pytest.approx(distance[rows, columns].sum().item(), rel=1e-12)
    assert cost < (x.double() - noise).square().sum()
    if shape == (1,):  # in one dimension the optimal map is increasing
        assert torch.equal(eps[x.argsort(0).flatten()], noise.sort(0).values)


def test_transport_is_the_same_in_modes():
    # The cosine basis is orthonormal: distances, and so the permutation, are those of pixels.
    basis, x = ud.Blurring((4, 4)).basis, normal(COUNT, 1, 4, 4, seed=1).clamp(-1, 1)
    pixels, source, all_ = normal(COUNT, 1, 4, 4), TensorSource(x, "x"), torch.arange(COUNT)
    coupled = ud.OptimalTransport().couple(source, all_, basis.forward(pixels), basis)
    expected = basis.forward(ud.OptimalTransport().couple(source, all_, pixels, PIXELS))
    torch.testing.assert_close(coupled, expected, rtol=0, atol=1e-6)  # the transform in float32, values of up to 4


# --- pairs ---


def test_pairs_are_the_rows_of_the_file(tmp_path):
    values = normal(COUNT, 2, seed=5)
    x, eps, label, _ = seen_in_training(ud.Pairs(saved(tmp_path, values)), accumulate=2)
    assert torch.equal(eps, values[label])
    assert torch.equal(x, X[label])


def test_pairs_of_a_split_follow_the_rows_of_its_array(tmp_path):
    values = normal(COUNT, 2, seed=5)
    array = ud.data.ArrayFile(saved(tmp_path, X, "x.npy"), labels=saved(tmp_path, np.arange(COUNT), "labels.npy"))
    source = array.open()
    assert len(source) == 22  # rows 9 and 19 are for the test
    _, eps, label, _ = seen_in_training(ud.Pairs(saved(tmp_path, values)), source, batch=16)
    assert torch.equal(eps, values[label])
    assert {9, 19}.isdisjoint(label.tolist())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (normal(COUNT - 1, 2), "noise of shape (24, 2), one row for each sample; .* holds float32 of shape (23, 2)"),
        (normal(COUNT, 3), "noise of shape (N, 2), .* of shape (24, 3)"),
        (normal(COUNT, 2, 1), "of shape (24, 2, 1)"),
        (torch.tensor(1.0), "of shape ()"),
        (torch.zeros(COUNT, 2, dtype=torch.int64), "holds int64"),
        (torch.full((COUNT, 2), 1e300, dtype=torch.float64), "must hold finite noise; .* in rows 0 to 23"),
        (torch.full((COUNT, 2), float("nan")), "must hold finite noise; .* has NaN or infinity in rows 0 to 23"),
    ],
)
def test_a_file_that_does_not_fit_is_rejected_before_a_batch_is_read(values, said, tmp_path, monkeypatch):
    monkeypatch.setattr(TensorSource, "batch", None)
    pairs = ud.Pairs(saved(tmp_path, values))
    said = said.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ParameterError, match=f"path must hold .*{said}" if "must" not in said else said):
        ud.train(flow(), SOURCE, ud.Denoising(coupling=pairs), settings(), conditioning=ud.Labels())


def test_a_file_that_is_not_there_is_an_error():
    with pytest.raises(DataError, match=r"path: 'no\.npy' does not exist"):
        ud.train(flow(), SOURCE, ud.Denoising(coupling=ud.Pairs("no.npy")), settings(), conditioning=ud.Labels())


def test_a_recipe_names_the_key_and_a_run_writes_nothing(tmp_path, monkeypatch):
    def recipe(path):
        return write(
            tmp_path, {**RING, "objective": {"type": "Denoising", "coupling": {"type": "Pairs", "path": path}}}
        )

    said = refused("run", recipe(saved(tmp_path, normal(5, 3))), "--out", tmp_path / "run")
    assert "objective.coupling.path must hold float32 noise of shape (N, 2)" in said
    said = refused("run", recipe(saved(tmp_path, normal(5, 2))), "--out", tmp_path / "run")
    assert "objective.coupling.path must hold float32 noise of shape (300, 2)" in said
    (tmp_path / "text.npy").write_text("noise")
    for name, message in (("text.npy", "path: {}/text.npy cannot be read as"), ("", "path must be a path, got ''")):
        said = refused("check", recipe(name and str(tmp_path / name)))
        assert f"objective.coupling.{message.format(tmp_path)}" in said
        assert "tiny.yaml:10:5" in said  # the key
    monkeypatch.setattr(ud.data.Ring, "open", None)
    said = refused("run", recipe("none.npy"), "--out", tmp_path / "run")
    assert "objective.coupling.path: 'none.npy' does not exist" in said
    assert not (tmp_path / "run").exists()


def test_what_cannot_fit_into_the_memory_is_rejected_first(tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.memory.memory_of", lambda device: 10**9)
    recipe = {**RING, "objective": {"type": "Denoising", "coupling": "OptimalTransport"}}
    recipe["training"] = {**RING["training"], "batch": 20_000}
    said = "batch: the distances of 20,000 samples and noises need at least 3.2 GB"
    assert f"training.{said}" in refused("check", write(tmp_path, recipe))
    with pytest.raises(ParameterError, match=said):
        ud.train(flow(), SOURCE, ud.Denoising(coupling=ud.OptimalTransport()), settings(batch=20_000))
    with pytest.raises(ParameterError, match="history: 10,000 losses at each of 10,000 times need at least"):
        ud.ImportanceSampled(history=10_000).check(ud.DDPM(10_000, ud.Cosine()))


def test_a_run_is_resumed_with_the_pairs_it_began_with(tmp_path):
    path, run = saved(tmp_path, normal(300, 2)), tmp_path / "run"
    objective = {"type": "Denoising", "coupling": {"type": "Pairs", "path": path}}
    task = ud.load_recipe(write(tmp_path, {**RING, "objective": objective}))
    with pytest.raises(Interrupted):
        task.run(run, SILENT, stop=lambda: True)
    before = files_of(run)
    saved(tmp_path, normal(300, 2, seed=1))
    with pytest.raises(RunError, match=r"objective.coupling.path: the file has changed since this run began \(sha256:"):
        task.run(run, SILENT, resume=True)
    assert files_of(run) == before


class Straight(torch.nn.Module):
    """The velocity of the straight path from eps to a eps + m: (1 - a) eps - m, with eps read off the state."""

    shape = (2,)

    def __init__(self, a, m, process):
        super().__init__()
        self.a, self.m, self.process = a, m, process

    def forward(self, x, c):
        t = (c / 1000)[:, None]
        u = x * ((1 - t) ** 2 + t**2).sqrt()  # a network's input is scaled to unit variance, its output from it
        eps = (u - (1 - t) * self.m) / ((1 - t) * self.a + t)
        return ((1 - self.a) * eps - self.m) / 2**0.5


def test_after_a_reflow_one_step_of_euler_is_exact(tmp_path):
    # Liu et al. 2022: where a map without crossings makes the pairs, here eps -> a eps + m, the state determines the
    # pair, the velocity is constant along each path, and the least loss is 0. In float64, but data are float32 at rest.
    a, m, process = 0.25, 0.5, ud.FlowMatching()
    eps = normal(COUNT, 2, seed=5)
    x, model = a * eps + m, ud.NeuralDenoiser(process, ud.Velocity(), Straight(a, m, process).double())
    source, all_ = TensorSource(x, "pairs"), torch.arange(COUNT)
    uniform = (all_.double() + 0.5) / COUNT
    least = []
    for coupling in (ud.Pairs(saved(tmp_path, eps)), ud.Independent()):
        loss = LossInTraining(ud.Denoising(coupling=coupling), model, source, torch.device("cpu"))
        noise = loss.noise(Batch(source, source, all_), BatchPlan(0, COUNT, COUNT), 0, (2,), range(COUNT))
        least.append(loss.losses(model, x.double(), uniform, noise.double()).max().item())
    # x is rounded to 2^-24 of up to 1.5, and eps = (u - ...) / (0.25 + ...) magnifies that fourfold.
    assert least[0] < (4 * 2 * 2**-24) ** 2
    assert least[1] > 0.1
    drawn = ud.sample(model, ud.Euler(), ud.Uniform(1), (2,), 5, dtype=torch.float64).x
    start = ud.Seeded(range(5))(torch.empty(5, 2, dtype=torch.float64))
    torch.testing.assert_close(drawn, a * start + m, rtol=0, atol=1e-14)
    # The flow of independent noise is curved: one step ends at the mean of the data.
    exact = ud.GaussianMixture(process, torch.full((1, 2), m, dtype=torch.float64), a**2)
    once = ud.sample(exact, ud.Euler(), ud.Uniform(1), (2,), 5, dtype=torch.float64).x
    torch.testing.assert_close(once, torch.full_like(once, m), rtol=0, atol=1e-12)


@pytest.mark.slow  # three trainings of 2 s
def test_transport_and_reflow_straighten_the_paths():
    # The exact flow of independent noise bends: its curvature, by `benchmarks/couplings.py` after any training, is near
    # 0.5. That of pairs on straight paths is 0, that of transport tends to 0 with the size of the batch.
    compare = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "couplings.py"))["compare"]
    rows = compare(steps=80, batch=128, count=200)
    bend, once = ({name: row[column] for name, row in rows.items()} for column in (1, 2))
    print(bend, once)
    for name in ("OptimalTransport", "Pairs"):
        assert bend[name] < bend["Independent"] / 10
        assert once[name] < once["Independent"] / 10  # energy distance from the data after one evaluation


@pytest.mark.parametrize("objective", [ud.Hybrid, ud.SlicedScoreMatching, ud.ExplicitScoreMatching])
def test_objectives_that_assume_independence_say_so(objective):
    with pytest.raises(ParameterError, match=f"coupling: {objective.__name__} assumes"):
        objective(coupling=ud.OptimalTransport()).check(ud.DDPM(10))
    objective().check(ud.DDPM(10))
