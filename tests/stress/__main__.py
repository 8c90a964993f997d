"""`make stress`: the campaign, and its table."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stress.cases import Part, Table, campaign, tried

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
WORKERS = len(os.sched_getaffinity(0))


def parts() -> dict[str, Part]:
    """All parts of the campaign but the soak, by name."""
    from stress import broken, hostile, inputs

    listed = (
        Part("keys", 1500, 60, inputs.key),
        Part("options", 1500, 60, inputs.option),
        Part("hostile", 1000, 30, hostile.read),
        Part("kills", 1000, 8, broken.kill),
        Part("storage", 300, 8, broken.storage),
        Part("together", 100, 2, broken.together),
    )
    return {part.name: part for part in listed}


def warm() -> None:
    """Import all that commands need and build the schemas, so that a forked command starts at once."""
    import accelerate  # noqa: F401
    import diffusers
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tensorboard  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    from stress import inputs
    from unidiff import cli  # noqa: F401
    from unidiff.errors import UnidiffError
    from unidiff.interop.diffusers import export, load  # noqa: F401
    from unidiff.plot import figure
    from unidiff.recipe.shipped import shipped_recipes
    from unidiff.run.task import load_recipe

    figure._LAYOUT = None  # half of the time of the smallest run, and of no interest here
    inputs.all_keys(), inputs.all_options()
    for name in shipped_recipes():
        with contextlib.suppress(UnidiffError):  # a codec that has not been trained
            load_recipe(name)
    _ = diffusers.DDPMPipeline, diffusers.AutoencoderKL, diffusers.UNet2DModel


def main(words: list[str] | None = None) -> int:
    """Run the campaign; 0 if all columns but the first are zero."""
    options = _options(words)
    if options.list:
        print("\n".join(f"{part.name}: {part.full} cases" for part in parts().values()))
        return 0
    begun, folder = time.monotonic(), Path(options.templates or tempfile.mkdtemp(prefix="unidiff-templates-"))
    os.environ |= {
        "UNIDIFF_OFFLINE": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "UNIDIFF_DATA": str(folder / "data"),
    }
    table, steady = Table(options.log), True
    try:
        warm()
        if not (folder / "expected.json").is_file():
            from stress.jobs import prepare

            folder.mkdir(exist_ok=True)
            prepare(folder)
        print(f"seed {options.seed}, ready after {time.monotonic() - begun:.0f} s", flush=True)
        if options.repeat:
            name, seed, index = options.repeat.split("/")
            verdict = tried(parts()[name], int(seed), int(index), folder)
            for result in verdict.results:
                print(f"\n$ unidiff {shlex.join(result.words)}\n{result.out}{result.err}exit code {result.code}")
            table.add(name, verdict)
        else:
            for part, verdict in campaign(_cases(options), options.seed, folder, options.workers):
                table.add(part.name, verdict)
            if options.soak:
                from stress.soak import soak

                steady = soak(options.soak * 60, [*parts().values()], options.seed, folder, options.workers, table)
    finally:
        if not options.templates:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\nseed {options.seed}, {(time.monotonic() - begun) / 60:.1f} minutes\n{table.text()}")
    return 0 if table.clean and steady else 1


def _cases(options: argparse.Namespace) -> Iterator[tuple[Part, int]]:
    for part in parts().values():
        if options.only and part.name not in options.only.split(","):
            continue
        count = part.quick if options.quick else part.full
        count = count if options.count is None else options.count
        yield from ((part, options.first + index) for index in range(count))


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases of each part, without the soak")
    parser.add_argument("--only", metavar="PART,...", help="these parts only")
    parser.add_argument("--count", type=int, help="cases of each part [default: as `--list` says]")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="[default: 30, or 0 with --quick or --only]")
    parser.add_argument("--workers", type=int, default=WORKERS, help="cases at once [default: the cores]")
    parser.add_argument("--repeat", metavar="PART/SEED/NUMBER", help="one case alone, as it was printed")
    parser.add_argument("--templates", metavar="DIR", help="keep what all cases start from here, and use it again")
    parser.add_argument("--log", type=Path, metavar="FILE.jsonl", help="append a line for each case")
    parser.add_argument("--list", action="store_true", help="print the parts and stop")
    options = parser.parse_args(words)
    if options.soak is None:
        options.soak = 0 if options.quick or options.only or options.repeat else 30
    return options


if __name__ == "__main__":
    sys.exit(main())
