"""Two processes of one thread each beside one: seconds of training at equal batch, and of drawing equal samples.

The efficiency is the time of one process divided by twice that of two; it needs two free cores. Both are launched in
turn by torchrun, train the same small U-Net on digits with each batch shared, and time the steps after the first tenth.

    python benchmarks/two_processes.py --repeats 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rows import Row, machine, show

import unidiff as ud
from unidiff.training.loop import accelerator_for

STEPS, BATCH = 30, 64


def work(answer: Path) -> None:
    """In each of the processes: train, and let the first write the seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ud.UNet((1, 16, 16), width=32, multipliers=(1, 2), blocks=1)
    settings = ud.Training(STEPS, batch=BATCH, precision="fp32")
    accelerator = accelerator_for(settings, "cpu", report=lambda text: None)
    times: list[float] = []
    ud.train(
        ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network),
        torch.rand(1024, 1, 16, 16) * 2 - 1,
        ud.Denoising(),
        settings,
        accelerator=accelerator,
        on_step=lambda progress: times.append(time.perf_counter()),
    )
    if accelerator.is_main_process:
        answer.write_text(repr(times[-1] - times[STEPS // 10]))


def seconds(processes: int) -> float:
    """Of the steps, with so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "seconds"
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launch if processes > 1 else []), __file__, "--work", str(answer)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return float(answer.read_text())


def measure(repeats: int) -> list[Row]:
    """The row of this benchmark: seconds of two processes and of one, and the efficiency."""
    pairs = [(seconds(2), seconds(1)) for _ in range(repeats)]
    two, one = (statistics.median(times) for times in zip(*pairs))
    efficiency = statistics.median(b / (2 * a) for a, b in pairs)
    return [Row(f"efficiency of two processes, {STEPS} steps of training", two, one, efficiency, 0.9, least=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is timed (default 3)")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    show(measure(arguments.repeats))
    print(machine())


if __name__ == "__main__":
    main()
