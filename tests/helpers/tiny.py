"""What the tests of training, runs and the command line share: the smallest recipes, the command in this process."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import yaml

from unidiff.cli import main
from unidiff.recipe.shipped import shipped_recipes

RING: dict[str, Any] = {
    "data": {"type": "Ring", "count": 300},
    "process": {"type": "DDPM", "T": 50},
    "parameterization": {"type": "Eps"},
    "backbone": {"type": "MLP", "width": 16, "depth": 1},
    "training": {
        "steps": 8,
        "batch": 8,
        "lr": 0.01,
        "precision": "fp32",
        "log_every": 3,
        "checkpoint_every": 3,
        "preview_every": 0,
        "tensorboard": False,
    },
    "sampling": {"solver": {"type": "DDIM"}, "grid": {"type": "Uniform", "steps": 4}, "count": 4},
}
DIGITS: dict[str, Any] = {
    **RING,
    "data": {"type": "Digits"},
    "backbone": {"type": "UNet", "width": 8, "multipliers": [1, 2], "blocks": 1},
    "training": {**RING["training"], "batch": 4, "preview_every": 3, "tensorboard": True},
}


@functools.cache
def _keys_of_shipped() -> dict[str, set[str]]:
    return {name: set(yaml.safe_load(path.read_text())) for name, path in shipped_recipes().items()}


def shipped_with(key: str) -> list[str]:
    """Names of the shipped recipes that have this key at their top."""
    return [name for name, keys in _keys_of_shipped().items() if key in keys]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def write(folder: Path, recipe: dict[str, Any], name: str = "tiny.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(recipe))
    return path


def in_process(program: Callable[[], object], *words: object) -> Result:
    """Run a program in this process with these words on its command line, as the shell would."""
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", [*map(str, words)])
    code: Any = 0
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            program()
        except SystemExit as end:
            code = end.code or 0
    return Result(code, out.getvalue(), err.getvalue())


def unidiff(*words: object) -> Result:
    """Run the command in this process."""
    return in_process(main, "unidiff", *words)


def refused(*words: object, code: int = 2) -> str:
    """The one message of a command that must be refused."""
    result = unidiff(*words)
    assert result.code == code, result
    assert "Traceback" not in result.err
    assert result.out == ""
    assert result.err.count("unidiff:") == 1
    return result.err


def _heed_signals() -> None:
    """A shell in the background ignores Ctrl-C, nohup a closed terminal, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(*words: object, module: tuple[str, ...] = ("-m", "unidiff"), **options: Any) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    command = [sys.executable, *module, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command, env=environment, preexec_fn=_heed_signals, **pipes)


class Forked:
    """The command as a process forked from one that has imported all it needs, so that it starts at once.

    It is not forked from the tests' own process, whose automatic differentiation may have threads.

    Args:
        words: What stands behind `unidiff` on the command line.
        env: Variables of the environment, beside those of the tests.
        terminal: Name of a terminal that it reads and writes instead of files.

    Attributes:
        pid: Number of the process.
    """

    def __init__(self, *words: object, env: dict[str, str] | None = None, terminal: str = "") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tiny", "accelerate", "matplotlib.pyplot", "torch.optim"])
        self._texts = [tempfile.NamedTemporaryFile("w+") for _ in range(2)]  # noqa: SIM115  for communicate
        names = [terminal] * 3 if terminal else ["/dev/null", *(file.name for file in self._texts)]
        self._process = context.Process(target=_forked, args=([*map(str, words)], dict(env or {}), names))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and return what it printed and its messages."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            raise TimeoutError
        out, err = (Path(file.name).read_text(encoding="utf-8") for file in self._texts)
        return out, err

    def wait_for(self, message: str, timeout: float = 1200) -> None:
        """Wait until it has said this on standard error."""
        ends = time.monotonic() + timeout
        while message not in Path(self._texts[1].name).read_text(encoding="utf-8"):
            assert self.returncode is None, self.communicate()
            assert time.monotonic() < ends
            time.sleep(0.02)


def _forked(words: list[str], environment: dict[str, str], files: list[str]) -> None:
    os.environ |= {**environment, "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    for number, file in enumerate(files):
        os.dup2(os.open(file, os.O_RDWR | os.O_APPEND | os.O_NOCTTY), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    _heed_signals()
    sys.argv = ["unidiff", *words]
    main()


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def equal(a: Any, b: Any) -> bool:
    """Whether two nested states are the same, tensors bit for bit."""
    if torch.is_tensor(a):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
