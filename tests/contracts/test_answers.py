"""What the library answers to slips: names and numbers where objects stand, and what to pass instead."""

from __future__ import annotations

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
MIXTURE = ud.GaussianMixture(ud.VPSDE(), [[-0.5, 0.0], [0.5, 0.1]], 0.01)
FLAT = ud.GaussianMixture(ud.Blurring(shape=(2,), blur_max=2.0), [[0.1, 0.2]], 0.3)
X = torch.linspace(-1, 1, 8).reshape(4, 2).double()
OBJECTS = ud.DDIM(eta=0.5), ud.Karras(steps=5)
NETWORK = ud.MLP((2,), width=8, depth=1)


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[i]


def train(model=None, data=X, objective=ud.Denoising(), settings=ud.Training(steps=1, batch=2)):  # noqa: B008
    return ud.train(model or ud.NeuralDenoiser(ud.VPSDE(), ud.V(), NETWORK), data, objective, settings)


@pytest.mark.parametrize(
    "run",
    [
        lambda solver, grid: ud.sample(MIXTURE, solver, grid, seeds=3, dtype=F64).x,
        lambda solver, grid: ud.edit(MIXTURE, X[0], 0.7, solver, grid, seeds=2).x,
        lambda solver, grid: ud.inpaint(MIXTURE, X[0], torch.tensor([1, 0]), solver, grid, seeds=2).x,
    ],
    ids=["sample", "edit", "inpaint"],
)
def test_a_name_is_its_solver_and_a_number_its_grid(run):
    expected = run(*OBJECTS)
    for solver, grid in (("ddim:0.5", OBJECTS[1]), ("ddim:0.5@karras", 5), (OBJECTS[0], OBJECTS[1])):
        assert torch.equal(run(solver, grid), expected)
    assert torch.equal(run("ddim:0.5@karras", None), run(OBJECTS[0], ud.Karras()))
    assert torch.equal(run(OBJECTS[0], 5), run(OBJECTS[0], ud.Tapered(5)))
    assert torch.equal(run(OBJECTS[0], "uniform"), run(OBJECTS[0], ud.Uniform()))


@pytest.mark.slow  # reference flows
def test_names_and_numbers_where_a_flow_is_integrated():
    latent = ud.encode(MIXTURE, X, ud.Heun(), ud.Uniform(6))
    assert torch.equal(ud.encode(MIXTURE, X, "heun@uniform", 6), latent)
    assert torch.equal(ud.decode(MIXTURE, latent, "heun", 6), ud.decode(MIXTURE, latent, ud.Heun(), ud.Tapered(6)))
    one, other = (ud.variations(MIXTURE, X[0], 0.3, *chosen) for chosen in (("heun", 6), (ud.Heun(), ud.Tapered(6))))
    assert torch.equal(one, other)
    one, other = (ud.variational_bound(MIXTURE, X, grid).log_prob for grid in (6, ud.Tapered(6)))
    assert torch.equal(one, other)
    one, other = (ud.sample(FLAT, grid=grid, seeds=2).x for grid in (4, ud.ArcLength(4)))
    assert torch.equal(one, other)
    rows = ud.compare(MIXTURE, ["ddim"], [5], seeds=20, grid="uniform").rows
    assert [row.label for row in rows] == ["DDIM @ Uniform"]
    assert ud.Sampling("ddim:0.5@karras") == ud.Sampling(ud.DDIM(eta=0.5), ud.Karras())


SLIPS = {
    "solver must be a Solver or a string, got the class DDIM. Make an object of it: DDIM()": lambda: ud.sample(
        MIXTURE, ud.DDIM
    ),
    "solver: 'dim': there is no solver 'dim'. Did you mean 'ddim'?": lambda: ud.sample(MIXTURE, "dim"),
    "steps must be an integer from 1 to 1000000, got 0": lambda: ud.sample(MIXTURE, grid=0),
    "grid: 'ddim@karras' names a grid already": lambda: ud.sample(MIXTURE, "ddim@karras", ud.Uniform(3)),
    "grid: Native() of 'ddim@native' has no number of steps": lambda: ud.sample(MIXTURE, "ddim@native", 3),
    "it accepts label. Did you mean grid=20?": lambda: ud.sample(MIXTURE, steps=20),
    "it accepts label. Did you mean seeds=?": lambda: ud.sample(MIXTURE, sedes=2),
    "Make a model of a function: FromFunction(process, Score(), function)": lambda: ud.sample(lambda u, t: u),
    "models must be a Denoiser or a list, each item a list of 2: a string, a Denoiser, got the function <lambda>. "
    "Make a model of a function": lambda: ud.compare(lambda u, t: u, ["ddim"], [5]),
    "NeuralDenoiser(process, parameterization, network)": lambda: ud.log_likelihood(NETWORK, X, ud.ExactTrace()),
    "Pass the model of a run: load('runs/a').denoiser": lambda: ud.sample("runs/a"),
    "got [GaussianMixtu": lambda: ud.compare([MIXTURE], ["ddim"], [5]),
    "Make an object of it: GaussianMixture(...)": lambda: ud.sample(ud.GaussianMixture),
    "objective must be an objective, such as Denoising(), got the class Denoising. Make": lambda: train(
        objective=ud.Denoising
    ),
    "such as a NeuralDenoiser, got an object of GaussianMixture": lambda: train(MIXTURE),
    "settings must be a Training, got 20": lambda: train(settings=20),
    "got the class Ring. Make an object of it: Ring()": lambda: train(data=ud.data.Ring),
    "Pass its dataset, loader.dataset": lambda: train(data=torch.utils.data.DataLoader(Samples())),
    "such as data.open().batch(torch.arange(100))": lambda: ud.log_likelihood(MIXTURE, ud.data.Ring(), ud.ExactTrace()),
    "such as data.batch(torch.arange(100))": lambda: ud.encode(MIXTURE, ud.data.Ring(count=20).open()),
    "such as torch.stack([data[i] for i in range(100)])": lambda: ud.encode(MIXTURE, Samples()),
    "such as next(iter(data))": lambda: ud.encode(MIXTURE, torch.utils.data.DataLoader(Samples())),
    "covariance must be positive semi-definite, got -1.0": lambda: ud.GaussianMixture(ud.VPSDE(), X, -1),
}


@pytest.mark.parametrize(("answer", "slip"), SLIPS.items(), ids=range(len(SLIPS)))
def test_a_slip_is_answered_with_what_to_write(answer, slip):
    with pytest.raises(ParameterError) as caught:
        slip()
    assert "tensor(" not in str(caught.value)
    said = f"{caught.value}$" if answer.endswith("$") else str(caught.value)
    assert answer in said


def test_a_network_that_returns_no_tensor_is_named():
    class Wrapped(torch.nn.Module):
        shape = (2,)

        def forward(self, x, c):
            return {"sample": x}

    with pytest.raises(ParameterError, match=r"backbone must return a tensor, got an object of dict. Wrap it"):
        ud.sample(ud.NeuralDenoiser(ud.VPSDE(), ud.V(), Wrapped()), grid=3)


def test_tensors_are_never_printed():
    big = torch.zeros(3, 2)
    with pytest.raises(ParameterError, match=r"got \[torch.float32 of shape \(3, 2\), 1\]"):
        ud.errors.require(False, "x", [big, 1], "anything else")
