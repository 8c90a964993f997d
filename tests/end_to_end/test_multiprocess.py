"""Two processes that share a batch are one process with the whole batch."""

from __future__ import annotations

import json
import shutil
import socket
from typing import NamedTuple

import accelerate.utils
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import RING, Forked, metrics, start, unidiff, write

import unidiff as ud
from unidiff.run.load import draw
from unidiff.run.shared import Processes

# `accelerate launch --cpu --num_processes 2` starts one process without a word; --multi_gpu starts two, also on CPUs.
ACCELERATE = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port {port} {what}"
)


# Several commands in the same processes: each launch imports torch twice.
ALL = """
import json, sys
from unidiff.cli import main

for words in sys.argv[1:]:
    sys.argv[1:] = json.loads(words)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def as_torchrun(*words):
    """Two processes with the environment that torchrun gives them: their exit codes, output and messages."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [Forked(*words, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    texts = [process.communicate(timeout=2000) for process in both]
    return [process.returncode for process in both], *map("".join, zip(*texts))


def launch(folder, *commands):
    (folder / "all.py").write_text(ALL)
    module = tuple(ACCELERATE.format(port=free_port(), what=folder / "all.py").split())
    words = ["--json", "--device", "cpu"]
    process = start(*(json.dumps([*map(str, command), *words]) for command in commands), module=module)
    out, err = process.communicate(timeout=2000)
    return process.returncode, out, err


def is_that_of_one_process(one, two):
    manifest = json.loads((two / "manifest.json").read_text())
    assert manifest["processes"] == 2  # the launcher can start one silently
    assert json.loads((one / "manifest.json").read_text())["processes"] == 1
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}

    # The losses are means of the same 16 squared errors, the gradients means over the same samples, added in another
    # order: relative differences of about 10 roundings, 10 * 2^-24 = 6e-7. Adam passes them on to the weights relative
    # to the gradients' size, where a small component has a larger relative error; a hundredfold is allowed for that.
    curves = metrics(one), metrics(two)
    assert [line["step"] for line in curves[1]] == list(range(1, 13))
    assert curves[1][0]["loss"] == pytest.approx(curves[0][0]["loss"], rel=6e-7)
    assert curves[1][0]["grad_norm"] == pytest.approx(curves[0][0]["grad_norm"], rel=6e-6)
    for mine, theirs in zip(*curves):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=6e-5)
        assert mine["lr"] == theirs["lr"]


def test_samples_are_divided_and_joined_as_if_by_one(monkeypatch):
    torch.manual_seed(0)
    network = ud.MLP((2,), width=8, depth=1, classes=2)
    torch.nn.init.normal_(next(network.parameters()))
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.X0(), network)
    data, label = ud.data.Ring(count=300), torch.tensor([0, 1, -1, 1, 0, 1, 1])

    class Process(NamedTuple):
        process_index: int
        num_processes: int
        is_main_process: bool = False

    for count, batch, processes in ((7, 2, 2), (7, 100, 3), (2, 1, 4), (1, 5, 2)):
        sampling = ud.Sampling(ud.Ancestral(), ud.Uniform(3), count=count, batch=batch, seed=5)
        alone = draw(model, sampling, data, torch.float32, label=label[:count])
        made: list = []
        for gathered in (False, True):  # what each process has is gathered first, and given to all then
            monkeypatch.setattr(
                accelerate.utils, "gather_object", lambda own, parts=made, done=gathered: parts if done else own
            )
            for rank in range(processes):
                share = Processes(Process(rank, processes), "cpu")
                try:
                    found = share.draw(model, sampling, data, torch.float32, label=label[:count])
                except ValueError:  # a process without samples, before the others' are there
                    assert not gathered
                    continue
                if not gathered:
                    made.append((found.x, found.times, found.nfe))
                else:
                    torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-5)  # rounding of smaller batches
                    assert found.nfe == alone.nfe


@pytest.mark.slow  # two processes import torch
def test_the_loss_curve_is_that_of_one_process(tmp_path):
    training = {**RING["training"], "steps": 12, "log_every": 1, "checkpoint_every": 5, "accumulate": 2}
    # Times drawn by the losses of the whole batch, and noise permuted in it: full after the first step.
    objective = {
        "type": "Denoising",
        "times": {"type": "ImportanceSampled", "history": 1},
        "coupling": "OptimalTransport",
    }
    small = {**RING, "process": {"type": "DDPM", "T": 8}, "training": training}
    recipes = {
        "plain": write(tmp_path, small, "plain.yaml"),
        "coupled": write(tmp_path, {**small, "objective": objective}, "coupled.yaml"),
    }
    for name, recipe in recipes.items():
        assert unidiff("run", recipe, "--out", tmp_path / f"one-{name}").code == 0
        codes, out, err = as_torchrun("run", recipe, "--out", tmp_path / f"two-{name}", "--json", "--device", "cpu")
        assert codes == [0, 0], err
        assert json.loads(out)["status"] == "finished"
        assert err.count("training 12/12") == 1
    one, two = tmp_path / "one-plain", tmp_path / "two-plain"
    options = ("--count", 5, "--set", "sampling.batch=3", "--json", "--device", "cpu")
    codes, out, err = as_torchrun("sample", two, "--array", tmp_path / "two.npy", *options)
    assert codes == [0, 0], err
    assert json.loads(out)["count"] == 5
    assert err.count("sampling 4/4") == 1  # one process speaks
    assert unidiff("sample", one, "--array", tmp_path / "one.npy", *options).code == 0
    assert len([*two.glob("samples/drawn-*.png")]) == 1
    found, expected = (np.load(tmp_path / f"{name}.npy") for name in ("two", "one"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)  # of the weights, whose gradients differ by rounding
    options = ("--count", 30, "--json", "--device", "cpu")
    codes, out, err = as_torchrun("evaluate", two, "--out", tmp_path / "shared", *options)
    assert codes == [0, 0], err
    alone = json.loads(unidiff("evaluate", two, "--out", tmp_path / "alone", *options).out)["rows"][0]
    (shared,) = json.loads(out)["rows"]  # of the first process, which alone speaks
    assert shared["measures"].keys() == alone["measures"].keys()
    for name, measure in shared["measures"].items():  # batches of 15 instead of 30 samples round otherwise
        assert measure["value"] == pytest.approx(alone["measures"][name]["value"], rel=1e-4, abs=1e-5)
    for name in recipes:
        is_that_of_one_process(tmp_path / f"one-{name}", tmp_path / f"two-{name}")
    one, two = tmp_path / "one-coupled", tmp_path / "two-coupled"
    states = [load_file(run / "checkpoints/step-00000012/objective.safetensors") for run in (one, two)]
    assert torch.equal(states[0]["counts"], states[1]["counts"])
    torch.testing.assert_close(states[0]["losses"], states[1]["losses"], rtol=6e-5, atol=0)


@pytest.mark.slow  # two processes import torch
def test_a_dry_run_of_two_speaks_once_and_a_mistake_is_said_once_and_ends_both(tmp_path):
    run = ("run", write(tmp_path, RING), "--out", tmp_path / "run")
    code, out, err = launch(tmp_path, [*run, "--dry-run"], [*run, "--set", "training.batch=9"])
    assert code != 0
    assert json.loads(out)["processes"] == 2  # of the dry run; the mistake has no output
    assert err.count("unidiff: ") == 1
    assert "cannot be split evenly over 2 processes" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # each of two pairs of processes imports what divides weights
def test_weights_that_are_divided_are_those_of_one_process(tmp_path):
    training = {**RING["training"], "steps": 12, "log_every": 1, "checkpoint_every": 5, "accumulate": 2}
    training |= {"sharded": True, "gradient_checkpointing": True, "preview_every": 6}
    recipe = write(tmp_path, {**RING, "process": {"type": "DDPM", "T": 8}, "training": training})
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("--json", "--device", "cpu")
    assert unidiff("run", recipe, "--out", one, *words).code == 0
    codes, _, err = as_torchrun("run", recipe, "--out", two, *words)
    assert codes == [0, 0], err
    is_that_of_one_process(one, two)
    wholes = [load_file(run / "checkpoints/step-00000012/ema.safetensors") for run in (one, two)]
    moments = [torch.load(run / "checkpoints/step-00000012/optimizer.pt")["state"] for run in (one, two)]
    for found, expected in ((wholes[1], wholes[0]), *zip(moments[1].values(), moments[0].values())):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)  # gradients differ by rounding
    # Each goes on from a checkpoint of the other number of processes.
    for run, processes in ((one, 2), (two, 1)):
        before = load_file(run / "checkpoints/step-00000012/model.safetensors")
        shutil.rmtree(run / "checkpoints/step-00000012")
        again = ("resume", run, *words)
        codes, err = (as_torchrun(*again)[::2]) if processes == 2 else ([(end := unidiff(*again)).code], end.err)
        assert set(codes) == {0}, err
        after = load_file(run / "checkpoints/step-00000012/model.safetensors")
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)
