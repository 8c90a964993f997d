"""The `unidiff` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unidiff._version import __version__
from unidiff.cli.compare import compare
from unidiff.cli.console import is_speaker
from unidiff.cli.describe import describe, list_names
from unidiff.cli.edit import edit
from unidiff.cli.export import export
from unidiff.cli.inpaint import inpaint
from unidiff.cli.likelihood import likelihood
from unidiff.cli.options import grouped
from unidiff.cli.run import check, resume, run
from unidiff.cli.sample import sample
from unidiff.cli.signals import ended_by_signals
from unidiff.errors import UnidiffError

__all__ = ["app", "main"]

_PATIENCE = 5.0  # seconds
_PACKAGE = Path(__file__).parents[1]


class _Commands(TyperGroup):
    """The commands; an interrupted one says so, which typer's own handling does not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if is_speaker():
                print(f"unidiff: {str(error) or 'interrupted.'}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_code", 130)) from None


app = typer.Typer(
    name="unidiff",
    cls=_Commands,
    help="Diffusion models, each part tested against an exact answer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, resume, sample, inpaint, edit, likelihood, compare, export, check):
    app.command()(grouped(command))
app.command("list")(list_names)
app.command()(describe)


def _version(value: bool) -> None:
    if value:
        print(f"unidiff {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


command_line = typer.main.get_command(app)


def _show_warnings_as_notes() -> None:
    """Print warnings of this package as notes, without the line of code; those of others as ever."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **options: Any) -> None:
        if Path(filename).is_relative_to(_PACKAGE) and issubclass(category, (DeprecationWarning, UserWarning)):
            print(f"Note: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, *more, **options)

    warnings.filterwarnings("default", category=DeprecationWarning, module=r"unidiff\.")
    warnings.showwarning = show


def main() -> None:
    """Run the command line. Exit codes: 2 for a user's mistake, 1 for a failed run, 128 + its number for a signal."""
    # OpenMP's waiting threads must not spin: on shared cores that made fp32 training 36 times slower. It is read when
    # torch is imported. The bf16 kernels of oneDNN spin all the same: there only OMP_NUM_THREADS=1 helps.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with warnings.catch_warnings(), ended_by_signals():
            _show_warnings_as_notes()
            command_line()
    except UnidiffError as error:
        speaker = "unidiff"
        if not is_speaker():
            # All processes meet the same error as a rule: a launcher ends this one when the first has spoken.
            time.sleep(_PATIENCE)
            speaker = f"unidiff (process {os.environ['RANK']})"
        print(f"{speaker}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `unidiff list | head`
        sys.stderr.close()
        sys.exit(0)
