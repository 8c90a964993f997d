"""What is made once for a grid and kept for further runs: it is found where nothing changed, and nowhere else."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.process.level import once_for_grid

SOLVERS = [ud.DDIM(), ud.ExponentialAdams(), ud.UniPC(), ud.DEIS(), ud.AdamsBashforth()]
GRID = ud.Uniform(6)


class Wave(nn.Module):
    """A network whose answer depends on all that it is passed."""

    def forward(self, x, c):
        return torch.sin(x + c[:, None])


def model(process=None, parameterization=None):
    return ud.NeuralDenoiser(process or ud.DDPM(50), parameterization or ud.Eps(), Wave())


def draw(denoiser, solver=SOLVERS[0], **options):
    return ud.sample(denoiser, solver, GRID, (2,), 3, dtype=torch.float64, **options).x


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_later_runs_are_the_first_one(solver):
    processes = [ud.VPSDE(), ud.SubVPSDE(), ud.VPSDE(beta_max=10.0)]  # which are different at the same times
    first = [draw(model(process), copy.copy(solver)) for process in processes]
    again = [draw(model(process), solver) for _ in range(2) for process in processes]
    assert all(torch.equal(a, b) for a, b in zip(first * 2, again))
    assert not torch.equal(first[0], first[2])
    # Another number of samples, with a batch that is not full, and the format of another run.
    assert torch.equal(draw(model(), solver, batch=2), draw(model(), solver))
    assert ud.sample(model(), solver, GRID, (2,), 3).x.dtype == torch.float32


def test_a_model_that_was_changed_is_another():
    changed = model()
    draw(changed)
    changed.parameterization = ud.X0()
    assert torch.equal(draw(changed), draw(model(parameterization=ud.X0())))
    changed.noise_condition = ud.TableIndex(50)
    twin = model(parameterization=ud.X0())
    twin.noise_condition = ud.TableIndex(50)
    assert torch.equal(draw(changed), draw(twin))


def test_a_subclass_decides_anew_in_every_run():
    class Scaled(ud.NeuralDenoiser):
        factor = 1.0

        def scales(self, level):
            return 1.0, self.factor

    scaled = Scaled(ud.DDPM(50), ud.Eps(), Wave())
    before = draw(scaled)
    scaled.factor = 0.5
    fresh = Scaled(ud.DDPM(50), ud.Eps(), Wave())
    fresh.factor = 0.5
    assert not torch.equal(draw(scaled), before)
    assert torch.equal(draw(scaled), draw(fresh))


def test_a_process_that_changes_or_has_no_hash():
    class Growing(ud.VPSDE):  # no dataclass of its own: what is set later is no field
        offset = 0.0

        def log_sigma(self, t):
            return super().log_sigma(t) + self.offset

    growing = Growing()
    denoiser = model(growing)
    before = draw(denoiser, SOLVERS[1])
    object.__setattr__(growing, "offset", 0.5)
    fresh = Growing()
    object.__setattr__(fresh, "offset", 0.5)
    assert not torch.equal(draw(denoiser, SOLVERS[1]), before)
    assert torch.equal(draw(denoiser, SOLVERS[1]), draw(model(fresh), SOLVERS[1]))

    @dataclass(frozen=True)
    class Unhashable(ud.VPSDE):
        notes: list = None

    assert torch.equal(draw(model(Unhashable(notes=[])), SOLVERS[1]), draw(model(ud.VPSDE()), SOLVERS[1]))


def test_a_model_is_not_kept():
    denoiser = model()
    draw(denoiser, SOLVERS[1])
    gone = weakref.ref(denoiser)
    del denoiser
    gc.collect()
    assert gone() is None


def test_once_for_the_levels_of_a_whole_grid_alone():
    levels, owner, made = ud.DDPM(50).levels_at([1.0, 0.5, 0.1]), SOLVERS[0], []

    def make():
        made.append(len(made))
        return made[-1]

    assert [once_for_grid(levels, owner, make) for _ in range(2)] == [0, 0]
    assert once_for_grid(ud.DDPM(50).levels_at([1.0, 0.5, 0.1]), owner, make) == 0  # an equal grid
    assert once_for_grid(levels[1:], owner, make) == 1  # a part of it
    assert once_for_grid([ud.DDPM(50).level(0.5)], [], make) == 2  # an owner without a hash


def test_hooks_of_a_model_are_called_in_a_run():
    denoiser, seen = model(), []
    of_model = denoiser.register_forward_hook(lambda *_: seen.append("model"))
    with of_model, denoiser.backbone.register_forward_pre_hook(lambda *_: seen.append("network")):
        hooked = draw(denoiser)
    assert seen == ["network", "model"] * 6
    assert torch.equal(hooked, draw(denoiser))
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        draw(denoiser)
    assert seen.count(denoiser) == 6
