"""What launchers, schedulers and notebooks leave in the environment."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
import torch
from tiny import RING, Forked, write

import unidiff as ud
from unidiff.errors import RunError, RunFailed
from unidiff.training import processes
from unidiff.training.processes import TIMEOUT, accelerator_for, together

SETTINGS = ud.Training(steps=1, batch=4)
TWO = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29873"}


def set_all(monkeypatch, variables):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=2.*torchrun"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE=4.*unset PMI_SIZE"),
        ({"MV2_COMM_WORLD_SIZE": "3"}, "MV2_COMM_WORLD_SIZE=3"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be an integer from 0 .*'two'.*unset WORLD_SIZE"),
        ({"WORLD_SIZE": "9" * 5000}, r"WORLD_SIZE must be an integer from 0 .*, got '999+\.\.\.9+'\."),
        ({**TWO, "MASTER_PORT": "99999999999"}, "MASTER_PORT must be an integer from 0"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but not RANK, MASTER_ADDR, MASTER_PORT"),
        ({**TWO, "RANK": "2"}, "RANK must be below WORLD_SIZE, got RANK=2, WORLD_SIZE=2"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1, but no WORLD_SIZE.*unset LOCAL_RANK"),
        ({**TWO, TIMEOUT: "soon"}, f"{TIMEOUT} must be a number of seconds"),
    ],
)
def test_what_cannot_be_is_one_message(variables, told, monkeypatch):
    set_all(monkeypatch, variables)
    before = dict(os.environ)
    with pytest.raises(RunError, match=told):
        accelerator_for(SETTINGS, "cpu")
    assert dict(os.environ) == before


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"LOCAL_RANK": "0"}, {"PMI_SIZE": "1"}])
def test_one_process_is_one(variables, monkeypatch):
    set_all(monkeypatch, variables)
    assert accelerator_for(SETTINGS, "cpu", report=pytest.fail).num_processes == 1
    assert not torch.distributed.is_initialized()


def test_the_recipe_decides_and_not_accelerate(monkeypatch):
    said: list[str] = []
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    accelerator = accelerator_for(SETTINGS, "cpu", said.append)
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)
    layer = torch.nn.Linear(1, 1)
    assert accelerator.prepare_model(layer) is layer  # not compiled
    (notice,) = said
    assert "DYNAMO_BACKEND=inductor, ACCELERATE_MIXED_PRECISION=bf16, ACCELERATE_GRADIENT" in notice
    assert "USE_CPU" not in notice
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_the_wait_has_a_limit_and_signals_are_heard(monkeypatch):
    set_all(monkeypatch, {**TWO, TIMEOUT: "0.02"})
    forever, said = threading.Event(), []
    with pytest.raises(
        RunError, match=r"did not come within 0.02 s.*WORLD_SIZE=2.*torchrun.*unset RANK.*UNIDIFF_LAUNCH"
    ):
        processes._wait_for_all(forever.wait, said.append)
    assert "Waiting for the other processes of WORLD_SIZE=2 at MASTER_ADDR=127.0.0.1" in said[0]
    monkeypatch.setenv(TIMEOUT, "600")
    monkeypatch.setattr(processes, "_PATIENCE", 600)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            processes._wait_for_all(forever.wait, said.append)
    finally:
        signal.signal(signal.SIGINT, before)
        forever.set()

    def broken():
        raise ValueError("no such host")

    with pytest.raises(RunError, match=r"could not be joined \(ValueError: no such host\)"):
        processes._wait_for_all(broken, said.append)

    def unknown(*address):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # PyTorch, which would look it up again and again, is not asked
    with pytest.raises(RunError, match=r"could not be joined \(gaierror: .*not known\)\. .*MASTER_ADDR=127"):
        processes._wait_for_all(pytest.fail, said.append)


@pytest.mark.slow  # a process of its own
def test_a_lonely_process_says_so_and_can_be_ended(tmp_path):
    process = Forked(
        "run", write(tmp_path, RING), "--out", tmp_path / "run", "--device", "cpu", env={**TWO, TIMEOUT: "86400"}
    )
    process.wait_for("Waiting for the other processes")
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "interrupted by SIGTERM before the first step" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["[gloo/transport/tcp/pair.cc:537] Connection reset by peer", "NCCL error: timeout"])
def test_a_partner_that_has_ended_is_named_as_the_cause(monkeypatch, words):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(RunFailed, match=r"another process .*--resume"), together():
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="shapes"), together():
        raise RuntimeError("shapes")
