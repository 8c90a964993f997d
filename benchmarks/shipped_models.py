"""The models that come with unidiff, made again by their recipes: `python benchmarks/shipped_models.py [NAME ...]`.

Minutes each, at one thread. With `--runs FOLDER`, runs that are there already are taken. Prints the digests that
`unidiff/run/shipped.py` and `docs/shipped.md` pin.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from unidiff.files import digest, whole_folder
from unidiff.run.directory import RunDirectory
from unidiff.run.shipped import run_digest

NAMES = "ddpm_digits", "ncsn_digits", "heat_digits", "ddpm_digits_classes"
MODELS = Path(__file__).parents[1] / "unidiff" / "run" / "models"
# Of this machine and this directory: nobody else can use them.
PRIVATE = {"command", "git", "samples", "trajectory", "kept"}


def ship(run: Path, folder: Path) -> str:
    """Copy of a finished run what a shipped one has, the averaged weights in float16; the digest of both."""
    files = RunDirectory(run)
    manifest = files.read_manifest()
    assert manifest.status == "finished", f"{run}: {manifest.status}"
    newest = max(files.checkpoints.glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    with whole_folder(folder) as partial:
        kept = [name for name in ("recipe.yaml", "metrics.jsonl", "process.safetensors") if (run / name).exists()]
        (partial / "samples").mkdir()
        for name in kept:
            shutil.copy(run / name, partial / name)
        grid = Image.open(run / "samples/grid.png").convert("L").quantize(16)  # a third of the bytes
        grid.save(partial / "samples/grid.png", optimize=True)
        entries = {name: value for name, value in manifest.entries.items() if name not in PRIVATE}
        (partial / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n")
        weights = partial / "checkpoints" / newest.name
        weights.mkdir(parents=True)
        half = {name: value.half() for name, value in load_file(newest / "ema.safetensors").items()}
        assert all(bool(value.isfinite().all()) for value in half.values())
        save_file(half, weights / "ema.safetensors")
        files_of = {"ema.safetensors": digest(weights / "ema.safetensors").removeprefix("sha256:")}
        (weights / "state.json").write_text(json.dumps({"step": state["step"], "files": files_of, "extra": {}}) + "\n")
    return run_digest(folder / "recipe.yaml", folder / "checkpoints" / newest.name / "ema.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    for name in options.names:
        run = options.runs / name
        if not run.exists():
            command = [sys.executable, "-m", "unidiff", "run", name, "--device", "cpu", "--out", str(run)]
            subprocess.run(command, check=True)
        found = ship(run, MODELS / name)
        size = sum(path.stat().st_size for path in (MODELS / name).rglob("*") if path.is_file())
        print(f'    "{name}": "{found}",  # {size:,} bytes')


if __name__ == "__main__":
    main()
