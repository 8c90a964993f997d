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


def changing(kind, **methods):
    """A class of the user's, an attribute of which, `k`, may change between runs."""
    return type("Changing", (kind,), {"k": 1.0, **methods})


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("parameterization", changing(ud.Eps, coefficients=lambda self, level: (self.k - 1.0, 1.0))),
        ("noise_condition", changing(ud.Timestep, at=lambda self, level: self.k * level.time)),
        (None, changing(ud.ExponentialAdams, variable=lambda self, x: ud.ExponentialAdams.variable(self, self.k * x))),
    ],
    ids=["parameterization", "noise condition", "solver"],
)
def test_parts_of_other_packages_decide_anew_in_every_run(place, part):
    def with_k(k):
        own, denoiser = part(), model()
        object.__setattr__(own, "k", k)
        return own, denoiser

    def drawn(own, denoiser):
        if place is None:
            return draw(denoiser, own)
        setattr(denoiser, place, own)
        return draw(denoiser)

    own, denoiser = with_k(1.0)
    before = drawn(own, denoiser)
    object.__setattr__(own, "k", 2.0)
    assert not torch.equal(drawn(own, denoiser), before)
    assert torch.equal(drawn(own, denoiser), drawn(*with_k(2.0)))


def test_methods_that_a_model_overrides_are_used():
    class Nothing(ud.NeuralDenoiser):
        def network_output(self, u, level, **cond):
            output, variance = super().network_output(u, level, **cond)
            return 0 * output, variance

    zero = model()
    zero.backbone.forward = lambda x, c: 0 * x
    assert torch.equal(draw(Nothing(ud.DDPM(50), ud.Eps(), Wave())), draw(zero))
    denoiser = model()
    before = draw(denoiser)
    denoiser.scales = lambda level: (1.0, 0.5)
    assert not torch.equal(draw(denoiser), before)


def test_a_network_may_write_into_its_condition():
    denoiser, plain = model(), draw(model())
    for write in (lambda c: c.mul_(2), lambda c: c.data.mul_(2), lambda c: c.numpy().__imul__(2)):
        denoiser.backbone.forward = lambda x, c, write=write: (torch.sin(x + c[:, None]), write(c))[0]
        assert all(torch.equal(draw(denoiser), plain) for _ in range(2))
    with torch.inference_mode():
        assert torch.equal(draw(denoiser), plain)


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


@pytest.mark.slow  # a second or more
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
    seen.clear()  # one that is registered while it is drawn
    draw(denoiser, progress=lambda done, _: done == 1 and denoiser.register_forward_hook(lambda *_: seen.append(done)))
    assert len(seen) == 5
