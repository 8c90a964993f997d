"""`unidiff sample`: draw from a trained run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AllowImports, AsJson, Device, Overrides
from unidiff.errors import RunError, RunFailed

__all__ = ["sample"]


def sample(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    count: Annotated[int | None, typer.Option(help="Number of samples; short for --set sampling.count.")] = None,
    overrides: Overrides = None,
    array: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Write the samples: float32, (N, *shape), in [-1, 1].")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write the picture here.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Draw samples from a trained run with any solver and grid."""
    changes = [*(overrides or []), *([f"sampling.count={count}"] if count is not None else [])]
    for option, path in (("--array", array), ("--out", out)):
        _check_place(option, path)
    import numpy as np

    from unidiff import plot
    from unidiff.cli.console import Console
    from unidiff.run.directory import RunDirectory
    from unidiff.run.load import load

    with Console() as console:
        loaded = load(run, changes, device=device, allow_imports=allow_imports, report=console.notice)
        picture = out or _free_name(RunDirectory(run).samples)
        _check_place("--out", picture)
        if stand_in := loaded.manifest.get("data", {}).get("stand_in"):
            console.notice(stand_in)
        started = time.perf_counter()
        solution = loaded.sample(progress=lambda done, total: console.progress("sample", done, total))
        seconds = time.perf_counter() - started
    sampling = loaded.recipe.sampling
    grid = sampling.grid_for(loaded.recipe.process)
    title = f"{run.absolute().name}. {sampling.solver!r}, {grid!r}, seeds from {sampling.seed}."
    try:
        plot.save_samples(solution.x, picture, f"{title}\n{stand_in}" if stand_in else title)
        if array is not None:
            values = solution.x.cpu().numpy().astype(np.float32)
            with array.open("wb") as file:  # np.save would add .npy to another ending
                np.save(file, values.clip(-1, 1) if values.ndim == 4 else values)
    except OSError as error:
        raise RunFailed(f"{error}. Choose other places with --out and --array.") from error
    result = {
        "run": str(run),
        "step": loaded.step,
        "count": sampling.count,
        "nfe": solution.nfe,
        "seconds": round(seconds, 2),
        "samples": str(picture),
        "array": str(array) if array else None,
        "stand_in": stand_in,
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{sampling.count} samples, {solution.nfe} evaluations each, {seconds:.1f} s: {picture}")
        if array is not None:
            print(f"values: {array}")


def _check_place(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the time of sampling is spent."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise RunError(f"{option} {path}: this is a directory; name a file.")
    if not folder.is_dir():
        raise RunError(f"{option} {path}: there is no directory {folder}. Make it, or choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{option} {path}: there is no permission to write in {folder}. Choose another place.")


def _free_name(folder: Path) -> Path:
    number = 1
    while (path := folder / f"drawn-{number:03d}.png").exists():
        number += 1
    return path
