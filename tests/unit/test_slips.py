"""Slips at a prompt: names, numbers and arrays in the wrong place are one sentence with what to write instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unidiff as ud

MODEL = ud.GaussianMixture(ud.VPSDE(), [[-0.5], [0.5]], 0.01)
U = torch.zeros(2, 1)


def sentence(slip, kind: type[Exception] = ud.errors.ParameterError) -> str:
    with pytest.raises(kind) as caught:
        slip()
    return str(caught.value)


@pytest.mark.parametrize(("name", "meant"), [("sampel", "sample"), ("ddim", "DDIM"), ("evaluations", "evaluation")])
def test_a_misspelt_name_is_answered_with_the_nearest(name, meant):
    assert f"Did you mean {meant}" in sentence(lambda: getattr(ud, name), AttributeError)


def test_a_misspelt_name_of_a_namespace_too():
    assert sentence(lambda: ud.data.ring, AttributeError).endswith("no attribute 'ring'. Did you mean Ring?")
    assert sentence(lambda: ud.data.__qwerty__, AttributeError).endswith("no attribute '__qwerty__'")


def test_a_model_is_called_with_a_tensor_and_a_level():
    assert "model.process.level(t)" in sentence(lambda: MODEL(U, 0.5))
    assert "got torch.float32 of shape ()" in sentence(lambda: MODEL(U, torch.tensor(0.5)))
    assert "got an object of ndarray" in sentence(lambda: MODEL(np.zeros((2, 1)), MODEL.process.level(0.5)))


@pytest.mark.parametrize("time", [-0.1, 1.5, float("nan"), "a", None, [0.5]])
def test_a_time_is_a_number_from_0_to_1(time):
    assert "t must be a time from 0 (data) to 1 (noise), got" in sentence(lambda: MODEL.process.level(time))


def test_arguments_that_are_missing_are_named_by_python():
    assert "'denoiser'" in sentence(ud.sample, TypeError)


def test_a_number_of_seeds_is_repeated_as_it_was_given():
    for seeds in (0, -1):
        assert sentence(lambda seeds=seeds: ud.sample(MODEL, "ddim", 2, seeds=seeds)).endswith(f"got {seeds}")


def test_a_run_in_place_of_its_model():
    class Run:
        denoiser = MODEL

    assert "Pass the model of a run: run.denoiser" in sentence(lambda: ud.sample(Run(), "ddim", 2))


def test_a_function_that_returns_no_tensor_or_cannot_be_called():
    model = ud.FromFunction(ud.VPSDE(), ud.Score(), lambda u, t: u.numpy(), shape=(1,))
    assert "must return a tensor, and returned an object of ndarray" in sentence(lambda: ud.sample(model, "ddim", 2))
    assert " at 0x" not in sentence(lambda: ud.FromFunction(ud.VPSDE(), ud.Score(), lambda u: u))


def test_the_name_of_the_level_of_a_function_is_one_of_those_that_mean_something():
    said = sentence(lambda: ud.FromFunction(ud.VPSDE(), ud.Score(), lambda u, sig: -u / sig))
    assert said.endswith(
        "called 'sig', and the name decides what it is called with. Write sigma, alpha, log_snr, level or t."
    )
    assert ud.FromFunction(ud.VPSDE(), ud.Score(), lambda u, time: -u).shape is None
