"""Optimisers in training: what a run with each has, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import equal

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted
from unidiff.training.optimizer_state import require_like
from unidiff.training.power_average import Snapshots

RING = ud.data.Ring(count=60).open()
EACH = [ud.AdamW(), ud.Muon(), ud.Adafactor(), ud.ScheduleFree(), ud.TorchOptimizer("NAdam")]


def fit(optimizer, steps=3, **options):
    torch.manual_seed(0)
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), ud.MLP((2,), width=8, depth=1))
    changes = options.pop("changes", {})
    settings = ud.Training(steps, batch=8, lr=0.01, precision="fp32", optimizer=optimizer, **changes)
    return model, ud.train(model, RING, ud.Denoising(), settings, **options)


def test_weight_decay_is_set_in_one_place():
    assert ud.Training(1, weight_decay=0.1).make_optimizer([torch.nn.Parameter(torch.ones(2))]).defaults[
        "weight_decay"
    ] == pytest.approx(0.1)
    assert ud.Training(1, optimizer=ud.Muon(weight_decay=0.2)).optimizer.decay(0.0) == 0.2
    with pytest.raises(ParameterError, match=r"weight_decay: 0.1 is set beside optimizer.weight_decay = 0.2"):
        ud.Training(1, weight_decay=0.1, optimizer=ud.Muon(weight_decay=0.2))
    with pytest.raises(ParameterError, match=r"write arguments: \{weight_decay: 0.1\} in the optimizer"):
        ud.Training(1, weight_decay=0.1, optimizer=ud.TorchOptimizer("SGD"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ud.Training(1, optimizer="Muon"), r'Pass an object, such as AdamW\(\), or TorchOptimizer\("Muon"\)'),
        (lambda: ud.Training(1, optimizer=ud.Muon), r"got the class Muon. Make an object of it: Muon\(\)"),
        (
            lambda: ud.Training(1, optimizer=torch.optim.SGD([torch.zeros(1)], 0.1)),
            r"Pass its class, Training\(optimizer=torch.optim.SGD\)",
        ),
        (lambda: ud.Training(1, optimizer=torch.optim.LBFGS), "name: LBFGS needs several evaluations of the loss"),
        (lambda: ud.TorchOptimizer("Adan"), r"name must be a class of torch.optim \(.*RAdam.*\), got 'Adan'"),
        (lambda: ud.TorchOptimizer("SGD", {"lr": 1}), "arguments: lr is set by training. Set training.lr."),
        (lambda: ud.TorchOptimizer("SGD", {"beta": 1}), "torch.optim.SGD cannot be made of them: .*'beta'"),
        (lambda: ud.TorchOptimizer(lambda weights, lr: None), "must return a torch.optim.Optimizer, got None"),
        (lambda: ud.Training(1, optimizer=ud.Muon(), sharded=True), "divided between processes with AdamW only"),
        (lambda: ud.Training(1, posthoc_every=2, sharded=True), "posthoc_every: .* Use sharded: false"),
        (lambda: ud.Muon(momentum=1.0), r"momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: ud.AdamW(betas=(0.9, 1.0)), r"betas must be two numbers in \[0, 1\)"),
        (lambda: ud.Adafactor(decay_power=0), r"decay_power must be a number in \(0, 1\], got 0"),
        (lambda: ud.ScheduleFree(eps=math.nan), "eps must be a number > 0, got nan"),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_a_class_of_torch_and_a_function_are_taken():
    assert ud.Training(1, optimizer=torch.optim.RAdam).optimizer == ud.TorchOptimizer("RAdam")

    def mine(weights, lr, momentum=0.5):
        return torch.optim.SGD(weights, lr, momentum)

    assert equal(
        *(dict(fit(each)[0].backbone.state_dict()) for each in (mine, ud.TorchOptimizer("SGD", {"momentum": 0.5})))
    )


def test_samples_of_schedule_free_are_drawn_with_its_own_average(tmp_path):
    seen, folder = [], Checkpoints(tmp_path)
    model, averaged = fit(ud.ScheduleFree(), changes={"warmup": 2}, on_step=seen.append, checkpoints=folder)
    saved = folder.load(print)
    assert [now.lr for now in seen] == [0.005, 0.01, 0.01]  # constant after warm-up
    names = [name for name, _ in model.backbone.named_parameters()]
    for number, name in enumerate(names):
        z, y = saved.optimizer["state"][number]["z"], saved.model[name]
        # y = 0.1 z + 0.9 x: a few roundings of 2^-24 of numbers below 2.
        torch.testing.assert_close(y, 0.1 * z + 0.9 * averaged.backbone.state_dict()[name], rtol=0, atol=1e-6)


def test_a_run_does_not_continue_with_another_optimiser(tmp_path):
    with pytest.raises(Interrupted):
        fit(ud.Muon(), checkpoints=Checkpoints(tmp_path), stop=lambda: True)
    with pytest.raises(RunError, match=r"training.optimizer: these checkpoints are those of a training with Muon\. "):
        fit(ud.AdamW(), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(RunError, match=r"training.posthoc_every: this training began without averages"):
        fit(ud.Muon(), checkpoints=Checkpoints(tmp_path), changes={"posthoc_every": 1})
    fit(ud.Muon(momentum=0.5), checkpoints=Checkpoints(tmp_path))  # with another number it does


def test_what_a_continued_run_may_change():
    began = ud.Training(9, optimizer=ud.Muon())
    ud.Training(9, optimizer=ud.Muon(momentum=0.9), lr=1.0).check_continues(began)
    with pytest.raises(ParameterError, match=r"optimizer: cannot change in a run from Muon to torch\.optim\.SGD"):
        ud.Training(9, optimizer=torch.optim.SGD).check_continues(began)
    with pytest.raises(ParameterError, match="posthoc_every must be 0 in a run that began without"):
        ud.Training(9, optimizer=ud.Muon(), posthoc_every=3).check_continues(began)


@pytest.mark.parametrize("settings", EACH, ids=lambda each: each.kind)
def test_the_state_of_each_is_checked(settings):
    """Its own state is taken; one of another shape, with an entry too few, or of no number is not."""
    weights = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))]
    optimizer = settings.make(weights, 0.1, 0.0, [w.detach().clone() for w in weights])
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer.step()
    saved = optimizer.state_dict()
    require_like(saved, optimizer, settings)
    for name, value in saved["state"][0].items():
        tensor = isinstance(value, torch.Tensor)
        others = [torch.ones(7), torch.full_like(value, math.nan)] if tensor else ["x", math.nan, True, -1]
        for wrong in others:
            state = {**saved["state"], 0: {**saved["state"][0], name: wrong}}
            with pytest.raises(ValueError, match=r"optimizer\.pt has"):
                require_like({**saved, "state": state}, optimizer, settings)
    entries = dict(list(saved["state"][0].items())[:-1])
    with pytest.raises(ValueError, match=r"optimizer\.pt has the moments"):
        require_like({**saved, "state": {**saved["state"], 0: entries}}, optimizer, settings)


def test_tied_weights_and_buffers_of_snapshots(tmp_path):
    _, _ = fit(ud.AdamW(), 4, checkpoints=Checkpoints(tmp_path), changes={"posthoc_every": 3})
    assert {step for step, _ in Snapshots(tmp_path / "averages").paths()} == {3, 4}  # the last one, too
    with pytest.raises(ParameterError, match="posthoc_every: the averages are written beside checkpoints"):
        fit(ud.AdamW(), changes={"posthoc_every": 3})
