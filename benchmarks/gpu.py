"""Tests and speed on one CUDA card, as one table: `make gpu` runs this.

The tests of tests/gpu; training and sampling of the U-Net of `ddpm_mnist` in several number formats and ways of
execution; some steps of the recipes that follow papers, with the time that all of their steps would take; and the
network of Higham, Higham & Grindrod on MNIST for as long as is left. The table is printed and replaces the last one in
docs/gpu.md. What fails is a row with its error, and the rest goes on. Without a card nothing is run or written.

    python benchmarks/gpu.py --seconds 420
    python benchmarks/gpu.py --device cpu --seconds 5    # tiny networks: whether this script works, not how fast
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rows import replaced

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.files import whole_file
from unidiff.training.device import arithmetic, resolve_device
from unidiff.training.loop import Interrupted, accelerator_for

ROOT = Path(__file__).parents[1]
BUDGET = "UNIDIFF_GPU_BUDGET"
WARM_UP = 3  # steps before the clock starts: compilation, choice of algorithms
PAPERS = ("ddpm_mnist", "ncsn_mnist", "heat_mnist", "blurring_mnist")
HIGHAM, EPOCHS, MINUTES = "ddpm_mnist", 500, 35  # on an RTX 3090


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured."""

    device: torch.device
    tests: Path

    @property
    def small(self) -> bool:
        """Whether this is no card, so that numbers say nothing and everything is tiny."""
        return self.device.type != "cuda"

    def wait(self) -> float:
        """The time at which the device has done all that it was given."""
        if not self.small:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def memory(self) -> float | None:
        """The most memory that tensors have taken since the last call, in GiB."""
        if self.small:
            return None
        most = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return most


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    part: str
    what: str
    rate: float | None = None  # images / s
    step: float | None = None  # s
    memory: float | None = None  # GiB
    remark: str = ""

    def cells(self) -> list[str]:
        """The line's cells."""
        numbers = [(self.rate, "{:,.4g}", 1.0), (self.step, "{:.4g}", 1e3), (self.memory, "{:.2f}", 1.0)]
        shown = ["" if value is None else form.format(scale * value) for value, form, scale in numbers]
        return [self.part, self.what, *shown, self.remark.replace("|", "/")]


Part = Callable[[Setting, float], Iterator[Row]]


def attempt(row: Row, measure: Callable[[], Row]) -> Row:
    """The row that a measurement makes, or one that says why it could not."""
    try:
        return measure()
    except Exception as error:
        return replace(row, remark=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    finally:
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()


def tests(setting: Setting, seconds: float) -> Iterator[Row]:
    """The tests of the card, in a process of their own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(setting.tests),
        "-q",
        "--no-header",
        "-rfE",
        "-p",
        "no:cacheprovider",
    ]
    begun = time.perf_counter()
    try:
        wide = {**os.environ, "COLUMNS": "400"}  # pytest shortens its lines
        out = subprocess.run(command, capture_output=True, timeout=seconds, cwd=ROOT, env=wide, check=False).stdout
        end = "in {:.0f} s"
    except subprocess.TimeoutExpired as error:
        out, end = error.stdout or b"", "so far, and stopped after {:.0f} s"
    text = out.decode(errors="replace")
    dots = "".join(re.findall(r"^([.FEsx]+)(?: +\[ *\d+%\])?$", text, re.M))
    counts = {"passed": dots.count("."), "failed": dots.count("F") + dots.count("E"), "skipped": dots.count("s")}
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    name = setting.tests.name
    yield Row("tests", name, remark=f"{words} {end}".format(time.perf_counter() - begun))
    for line in re.findall(r"^(?:FAILED|ERROR) (.+)$", text, re.M)[:20]:
        yield Row("tests", line.split(" - ")[0].split("::")[-1], remark=line.partition(" - ")[2][:200])


def unet(setting: Setting) -> ud.NeuralDenoiser:
    """The network of recipes/ddpm_mnist.yaml, with weights that are not 0."""
    torch.manual_seed(0)
    size: dict[str, Any] = {"width": 48, "multipliers": (1, 2, 2, 4), "blocks": 3, "attention": (16, 8), "heads": 1}
    shape = (1, 32, 32)
    if setting.small:
        shape, size = (1, 8, 8), {"width": 8, "multipliers": (1, 2), "blocks": 1}
    return ud.NeuralDenoiser(ud.DDPM(500), ud.Eps(), ud.UNet(shape, groups=8, **size))


@dataclass(frozen=True)
class Pace:
    """What was seen of a training."""

    steps: int
    step: float  # s
    loss: float | None
    memory: float | None


def paced(setting: Setting, seconds: float, model: Any, source: Any, objective: Any, settings: ud.Training) -> Pace:
    """Train for some seconds after the first steps, or for all steps."""
    every = 1 if setting.small else 10
    settings = replace(settings, log_every=10 * every, checkpoint_every=10**9, preview_every=0)
    marks: list[tuple[int, float]] = []  # (step, time): of the end of the warm-up, and the last
    losses: list[float] = []
    step = 0

    def stop() -> bool:
        nonlocal step
        step += 1
        if step < WARM_UP or (step > WARM_UP and step % every):
            return False
        marks[1:] = [(step, setting.wait())]
        return len(marks) > 1 and marks[-1][1] - marks[0][1] >= seconds

    def note(progress: Any) -> None:
        if progress.loss is not None:
            losses.append(progress.loss)

    setting.memory()
    accelerator = accelerator_for(settings, str(setting.device))
    with contextlib.suppress(Interrupted):
        ud.train(model, source, objective, settings, accelerator=accelerator, stop=stop, on_step=note)
    (first, begun), (last, ended) = marks
    return Pace(last, (ended - begun) / (last - first), losses[-1] if losses else None, setting.memory())


def training(setting: Setting, seconds: float) -> Iterator[Row]:
    """Training in each number format and way of execution."""
    fast = {"precision": "bf16", "channels_last": True}
    variants: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "fp32"},
        "bf16": {"precision": "bf16"},
        "bf16, channels_last": fast,
        "bf16, channels_last, compile": {**fast, "compile": True},
        "bf16, gradient_checkpointing": {"precision": "bf16", "gradient_checkpointing": True},
    }
    batch = 4 if setting.small else 128
    for what, options in variants.items():

        def measure(what: str = what, options: dict[str, Any] = options) -> Row:
            model = unet(setting)
            values = torch.randint(256, (1024, *(model.shape or ())), dtype=torch.uint8)
            settings = ud.Training(steps=10**6, batch=batch, **options)
            source = TensorSource(values, "noise")
            pace = paced(setting, seconds / len(variants), model, source, ud.Denoising(), settings)
            return Row("training", what, batch / pace.step, pace.step, pace.memory, f"batch {batch}")

        yield attempt(Row("training", what), measure)


def sampling(setting: Setting, seconds: float) -> Iterator[Row]:
    """DDIM of one image and of many, in each number format and way of execution."""
    variants: dict[str, tuple[torch.dtype, ud.Acceleration | None]] = {
        "fp32": (torch.float32, None),
        "bf16": (torch.bfloat16, None),
        "bf16, channels_last, compiled": (torch.bfloat16, ud.Compiled(channels_last=True)),
        "bf16, CUDA graphs": (torch.bfloat16, ud.CudaGraphs()),
        "bf16, channels_last, CUDA graphs": (torch.bfloat16, ud.CudaGraphs(channels_last=True)),
    }
    counts, steps = ((1, 2), 2) if setting.small else ((1, 64), 50)
    for count in counts:
        for what, (dtype, acceleration) in variants.items():

            def measure(
                what: str = what,
                count: int = count,
                dtype: torch.dtype = dtype,
                acceleration: ud.Acceleration | None = acceleration,
            ) -> Row:
                model: ud.Denoiser = unet(setting).to(setting.device).eval()
                model = model if acceleration is None else acceleration.apply(model)

                def draw() -> float:
                    with arithmetic(dtype, setting.device):
                        ud.sample(model, ud.DDIM(), ud.Uniform(steps), seeds=count, device=setting.device)
                    return setting.wait()

                setting.memory()
                begun = ended = draw()
                done = 0
                while done == 0 or ended - begun < seconds / len(variants) / len(counts):
                    ended, done = draw(), done + 1
                each = (ended - begun) / done
                return Row(
                    "sampling", what, count / each, each / steps, setting.memory(), f"{count} at a time, DDIM {steps}"
                )

            yield attempt(Row("sampling", what, remark=f"{count} at a time"), measure)


def of_recipe(setting: Setting, name: str, seconds: float, *changes: str) -> tuple[Pace, Any, int]:
    """The pace of a recipe's own training, the recipe, and its number of samples."""
    if setting.small:
        tiny = "{type: UNet, width: 8, multipliers: [1, 2], blocks: 1, groups: 8}"
        changes = (*changes, f"backbone={tiny}", "training.batch=4", "data={type: Digits, size: 32}")
    recipe: Any = ud.load_recipe(ROOT / "recipes" / f"{name}.yaml", changes)
    source = recipe.data.open()
    torch.manual_seed(recipe.seed)
    model = recipe.model(recipe.measure(source))
    return paced(setting, seconds, model, source, recipe.loss(), recipe.training), recipe, len(source)


def recipes(setting: Setting, seconds: float) -> Iterator[Row]:
    """Some steps of the recipes that follow papers, and the time of all steps."""
    for name in PAPERS:

        def measure(name: str = name) -> Row:
            pace, recipe, _ = of_recipe(setting, name, seconds / len(PAPERS))
            steps, batch = recipe.training.steps, recipe.training.batch
            loss = "" if pace.loss is None else f", loss {pace.loss:.4f}"
            remark = f"{pace.steps} steps{loss}; all {steps:,}: {steps * pace.step / 60:.1f} min"
            return Row("recipe", name, batch / pace.step, pace.step, pace.memory, remark)

        yield attempt(Row("recipe", name), measure)


def mnist(setting: Setting, seconds: float) -> Iterator[Row]:
    """The network of Higham, Higham & Grindrod on MNIST for as long as is left."""

    def measure() -> Row:
        fast = ("training.precision=bf16", "training.channels_last=true", "training.compile=true")
        pace, recipe, count = of_recipe(setting, HIGHAM, seconds, *fast)
        batch = recipe.training.batch
        done, all_steps = pace.steps * batch / count, EPOCHS * count / batch
        loss = "" if pace.loss is None else f", loss {pace.loss:.4f}"
        remark = f"{done:.1f} epochs of {count:,}{loss}; {EPOCHS} epochs: {all_steps * pace.step / 60:.1f} min"
        remark += f" (the paper: {MINUTES} min on an RTX 3090)"
        return Row(
            "MNIST", f"{HIGHAM}, bf16, channels_last, compile", batch / pace.step, pace.step, pace.memory, remark
        )

    yield attempt(Row("MNIST", HIGHAM), measure)


# Shares of the time; what a part leaves is there for the others.
PARTS: dict[str, tuple[float, Part]] = {
    "tests": (0.4, tests),
    "training": (0.15, training),
    "sampling": (0.1, sampling),
    "recipes": (0.15, recipes),
    "MNIST": (0.2, mnist),
}


def table(setting: Setting, seconds: float) -> str:
    """Run all parts, and return the table with its heading."""
    begun, left, rows = time.perf_counter(), sum(share for share, _ in PARTS.values()), list[Row]()
    for name, (share, part) in PARTS.items():
        given = max(0.0, seconds - (time.perf_counter() - begun)) * share / left
        left -= share
        print(f"{name}: {given:.0f} s", file=sys.stderr, flush=True)
        for row in part(setting, given):
            rows.append(row)
            print("  " + "  ".join(filter(None, row.cells()[1:])), file=sys.stderr, flush=True)
    card = "no card" if setting.small else torch.cuda.get_device_name(setting.device)
    heading = f"{card}, torch {torch.__version__}, Python {sys.version.split()[0]}, {datetime.date.today()}, "
    heading += f"{time.perf_counter() - begun:.0f} s in all. fp32 is PyTorch's: convolutions may be in TF32."
    head = ["part", "what", "images / s", "ms per step", "memory, GiB", "remark"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join([heading, "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def positive(text: str) -> float:
    """A number of seconds."""
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise ValueError(text)
    return seconds


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    default = os.environ.get(BUDGET) or "420"
    parser.add_argument("--seconds", type=positive, default=default, help=f"time of all parts; {BUDGET} sets it, too")
    parser.add_argument("--docs", type=Path, help="page with the table [of a card: docs/gpu.md]")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests" / "gpu", help="tests of the first part")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was run, and no file was changed.")
        return
    setting = Setting(resolve_device(options.device), options.tests)
    docs = options.docs or (None if setting.small else ROOT / "docs" / "gpu.md")
    page = None if docs is None else docs.read_text()
    section = table(setting, options.seconds)
    print(section)
    if docs is not None and page is not None:
        with whole_file(docs) as partial:
            partial.write_text(replaced(page, section, "make gpu"))


if __name__ == "__main__":
    main()
