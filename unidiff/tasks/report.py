"""The page of trained runs, as `unidiff report` writes it: what their files say, and what is measured for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unidiff.arguments import plain_arguments
from unidiff.errors import RunError, RunFailed, require, require_whole
from unidiff.page.report import RunFacts, page
from unidiff.page.results import evaluation, solvers
from unidiff.reading import read_json
from unidiff.run.directory import RunDirectory
from unidiff.run.load import load
from unidiff.run.page import PAGES, lost_measurements, read_run, weights_digest, write_page
from unidiff.run.shipped import is_shipped, locate
from unidiff.run.task import Reporter
from unidiff.search_paths import expand
from unidiff.tasks.report_measures import SilentReporter, measured
from unidiff.text import joined_name
from unidiff.writable import require_file

__all__ = ["report", "report_path"]


@plain_arguments
def report(
    *runs: str | Path,
    out: str | Path | None = None,
    full: bool = False,
    count: int = 500,
    overwrite: bool = False,
    device: str = "auto",
    allow_imports: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Write one HTML file about runs, side by side, that needs no network and nothing beside it.

    It holds what was trained on what, the loss, samples, their path from noise to data, recipe, manifest and how to
    repeat them; and what `unidiff evaluate` and `unidiff compare` have written of these weights into their default
    directories. Every number is also in the JSON inside.

    Args:
        *runs: Run directories, or shipped:NAME.
        out: The file; report.html in the directory of a single run of one's own, else report-<names>.html in the
            working directory, if None.
        full: Draw samples, and measure what is missing: evaluation, comparison of solvers, nearest neighbours,
            likelihood. Minutes for each run of a generative model; of others nothing is measured, which is a notice.
        count: Samples of the evaluation and of the comparison, at least 20.
        overwrite: Replace a file that is not such a page, or one with measurements of these weights that the new one
            lacks.
        device: Where models are loaded, if `full`: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in recipes, which runs their module's code.
        reporter: Receives progress and notices; nobody if None.

    Returns:
        The file.

    Raises:
        ParameterError: If no run is named, or one twice.
        RunError: If one of them is not a run, the file cannot be written, or measurements in it would be lost; with
            `full` also if one cannot be loaded.
    """
    require(len(runs) > 0, "runs", [], "at least one run")
    require_whole("count", count, 20, 10_000_000)
    paths = [expand(run, "run") for run in runs]
    twice = len({os.path.realpath(locate(path)) for path in paths}) < len(paths)
    require(not twice, "runs", [str(path) for path in paths], "runs that are named once each")
    facts = [_with_results(read_run(each), each) for each in paths]
    path, reporter = report_path(paths, None if out is None else Path(out)), reporter or SilentReporter()
    require_file(path, "--out", {} if overwrite else PAGES)
    if not full and not overwrite and (lost := lost_measurements(path, [each.content for each in facts])):
        problem = f"this report has measurements of these weights that take minutes ({', '.join(lost)})"
        raise RunError(f"{path}: {problem}. Add --full to make them again, --overwrite to lose them, or --out.")
    if full:
        options: Any = {"device": device, "allow_imports": allow_imports}
        loaded = [load(each, **options, report=reporter.notice) for each in paths]  # all, before one is measured
        facts = [measured(*each, count, **options, reporter=reporter) for each in zip(facts, loaded, paths)]
    try:
        write_page(path, page(facts))
    except OSError as error:
        raise RunFailed(f"{error}. Choose another file with --out.") from error
    return path


def report_path(runs: Sequence[Path], out: Path | None) -> Path:
    """The file of a page; see `report`."""
    if out is not None:
        return out
    if len(runs) == 1 and not is_shipped(runs[0]):
        return RunDirectory(runs[0]).page
    return Path(joined_name(["report", *(RunDirectory(run).name for run in runs)]) + ".html")


def _with_results(facts: RunFacts, run: Path) -> RunFacts:
    """With the results of these weights that `unidiff evaluate` and `unidiff compare` have written."""
    files = RunDirectory(run)
    if (digest := weights_digest(files)) is None:
        return facts
    content: dict[str, Any] = {**facts.content, "digest": digest}
    for name, command, show in (("evaluation", "evaluate", evaluation), ("comparison", "compare", solvers)):
        folders = dict.fromkeys(
            (files.path.parent / f"{command}-{files.name}", Path("runs") / f"{command}-{files.name}")
        )
        for folder in folders:
            path = folder / f"{command}.json"
            if os.path.isfile(path) and (result := _of_weights(path, digest, name, show)) is not None:
                content[name] = result
                break
    return replace(facts, content=content)


def _of_weights(path: Path, digest: str, name: str, show: Any) -> dict[str, Any] | None:
    """The part of results that is of these weights; None if nothing is.

    Raises:
        RunError: If the file is damaged.
    """
    try:
        content = read_json(path)
        part = {key: value for key, value in content.items() if key not in ("environment", "recipe")}
        if name == "evaluation":
            part["rows"] = [row for row in part["rows"] if row.get("digest") == digest]
        else:
            models = (
                {model["label"]: model.get("digest") for model in part["model"]} if part["model"] != "exact" else {}
            )
            labels = {label for label, of in models.items() if of == digest}
            part["rows"] = [row for row in part["rows"] if row["model"] in labels or (row["model"] == "" and labels)]
        if not part["rows"]:
            return None
        show({"runs": [{name: part}]}, 0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: the file is damaged ({error}). Make it again, or move it away.") from error
    return part
