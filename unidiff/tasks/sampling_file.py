"""Files that hold a recipe's `sampling` section alone: written by `unidiff tune`, read by `unidiff sample`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unidiff.errors import RunFailed
from unidiff.files import whole_file
from unidiff.recipe.read import read_recipe
from unidiff.recipe.save import Record, to_plain
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml, write_yaml
from unidiff.solver.sample import Sampling

__all__ = ["SamplingFile"]


@dataclass(frozen=True, kw_only=True)
class SamplingFile(Record):
    """How samples are drawn, apart from any recipe.

    Args:
        sampling: The section.
    """

    sampling: Sampling

    @staticmethod
    def overrides(path: Path, *, allow_imports: bool = False) -> list[str]:
        """What is written in a file, as values that replace those of a recipe: `sampling.solver=...`.

        Raises:
            RecipeError: If the file is not such a section.
        """
        section = read_recipe(SamplingFile, path, allow_imports=allow_imports).to_dict()["sampling"]
        written = read_yaml(read_source(path)[1], str(path)).plain()
        return [f"sampling.{key}={write_yaml(section[key], flow=True)}" for key in written["sampling"]]

    @staticmethod
    def write(path: Path, sampling: Sampling, comment: str) -> None:
        """Write solver and grid of a section, under a comment.

        Raises:
            RunFailed: If the file cannot be written.
        """
        section: dict[str, Any] = {"solver": to_plain(sampling.solver), "grid": to_plain(sampling.grid)}
        lines = "".join(f"# {line}\n" for line in comment.splitlines())
        try:
            with whole_file(path) as partial:
                partial.write_text(lines + write_yaml({"sampling": section}), "utf-8")
        except OSError as error:
            raise RunFailed(f"{error}. Choose another file with --out.") from error
