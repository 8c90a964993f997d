"""The device path without a GPU: no mix of devices, the numbers of the CPU, and no look of the host inside a loop."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from device_cases import CASES, on_cpu
from pretend_gpu import AVAILABLE, pretend_gpu

import unidiff as ud

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="torch < 2.9 has no Python backend")
FEW, MANY = 3, 5


@pytest.mark.cases(10)  # all take a minute
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_runs_on_a_device_as_on_the_cpu(case):
    expected = on_cpu(case.task(torch.device("cpu"), FEW))
    waits = []
    for steps in (FEW, MANY):
        with pretend_gpu() as gpu:
            out = case.task(gpu.device, steps)
            waits.append(Counter(gpu.waits))
            if steps == FEW:
                found = on_cpu(out)
        if case.adaptive:  # its steps are chosen by the host
            break
    for a, b in zip(found, expected, strict=True):
        # The same operations on the same processor, in float64; weights in training are float32, 1e-7 a step.
        torch.testing.assert_close(a, b, rtol=1e-5 if case.name.startswith("train") else 1e-9, atol=1e-6)
    if not case.adaptive:
        grown = {event: count - waits[0][event] for event, count in waits[1].items() if count > waits[0][event]}
        assert not grown, grown


@pytest.mark.parametrize("guide", ["none", "classifier-free", "classifier"])
@pytest.mark.parametrize("kind", ["mixture", "network"])
def test_a_label_on_the_cpu_meets_a_model_on_a_device(kind, guide):
    x, label, process = torch.randn(3, 2), torch.tensor([0, 1, -1]), ud.VPSDE()
    mixture = ud.GaussianMixture(process, [[-0.5, 0.2], [0.5, -0.1]], 0.01)
    network = ud.NeuralDenoiser(process, ud.Eps(), ud.MLP((2,), width=8, depth=1, classes=2))
    model = mixture if kind == "mixture" else network
    if guide == "classifier-free":
        model = ud.ClassifierFree(model, 2.0)
    elif guide == "classifier":
        model = ud.ClassifierGuidance(model, ud.MixtureClassifier(mixture), 2.0)
    expected = model(x, process.level(0.5), label=label).x0
    with pretend_gpu() as gpu:
        found = model.to(gpu.device)(x.to(gpu.device), process.level(0.5), label=label).x0.cpu()
    torch.testing.assert_close(found, expected)
