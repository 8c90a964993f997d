"""`unidiff run` with the recipe of an evolution: the renormalised heat equation, solved exactly."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["evolve"]


def evolve(
    recipe: str,
    overrides: list[str],
    directory: Path,
    device: str,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    allow_imports: bool,
) -> None:
    """Solve the recipe's equation, and write table and pictures into the directory."""
    from unidiff.run.evolve import check_place, solve, write_evolution
    from unidiff.run.evolving import load_evolving
    from unidiff.training.device import resolve_device

    evolving = load_evolving(recipe, overrides, allow_imports=allow_imports)
    where = resolve_device(device)
    check_place(evolving, directory, overwrite)
    if dry_run:
        summary = {"status": "dry run", "directory": str(directory), "recipe": evolving.to_dict()}
        print(json.dumps(summary) if as_json else f"{directory}{os.sep} (dry run: nothing was written)")
        return
    result = write_evolution(evolving, solve(evolving, where), directory, where)
    if as_json:
        print(json.dumps({"status": "finished", "directory": str(directory), **result}))
        return
    shares = [name for name in result["rows"][0] if name.startswith("share_")][:3]
    head = ["t", "r", "effective modes", "largest |u|", *(name.replace("share_", "share of phi_") for name in shares)]
    print("  ".join(f"{name:>15}" for name in head))
    for row in result["rows"]:
        numbers = [row["t"], row["r"], row["effective_modes"], row["largest_value"], *(row[name] for name in shares)]
        print("  ".join(f"{number:>15.5g}" for number in numbers))
    print(f"{directory}{os.sep}: evolution.csv, evolution.json, values.npy, profiles.png, shares.png")
