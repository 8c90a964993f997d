"""The `unidiff` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from unidiff._version import __version__
from unidiff.cli.console import say, say_error
from unidiff.cli.last_resort import EXIT_CODE, run_directory, working_directory, write_report
from unidiff.cli.signals import ended_by_signals
from unidiff.cli.streams import usable_streams
from unidiff.cli.summaries import summaries
from unidiff.errors import RunError, UnidiffError
from unidiff.machine import is_speaker
from unidiff.memory import enough_memory
from unidiff.text import clean, first_line

__all__ = ["app", "main"]

_UsageError: Any = typer.BadParameter.__bases__[0]  # what typer raises for a command line that it cannot read
_PATIENCE = 5.0  # seconds
_PACKAGE = Path(__file__).parents[1]


# Command -> its function, in a module beside this one.
_FUNCTIONS = {
    **{name: f"run.{name}" for name in ("run", "resume")},
    **{
        name: f"{name}.{name}"
        for name in (
            "sample",
            "inpaint",
            "edit",
            "likelihood",
            "compare",
            "evaluate",
            "tune",
            "ema",
            "export",
            "push",
            "report",
            "reproduce",
            "schema",
            "data",
            "new",
        )
    },
    "app": "explorer.app",
    "check": "run.check",
    "list": "describe.list_names",
    "describe": "describe.describe",
}


class _Imported(Mapping[str, Any]):
    """The commands by name, each imported and built when it is asked for: the help of all needs none of them."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_FUNCTIONS)

    def __len__(self) -> int:
        return len(_FUNCTIONS)


@cache
def _command(name: str) -> Any:
    from unidiff.cli.grouped import grouped

    module, function = _FUNCTIONS[name].split(".")  # a KeyError for an unknown name
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name)(grouped(getattr(importlib.import_module(f"unidiff.cli.{module}"), function)))
    return typer.main.get_command(alone)


class _Commands(TyperGroup):
    """The commands; an interrupted one says so, which typer's own handling does not."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        functions = {name: path.split(".") for name, path in _FUNCTIONS.items()}
        lines = summaries({function: f"cli.{module}" for module, function in functions.values()})
        with formatter.section("Commands"):
            formatter.write_dl([(name, lines[function]) for name, (_, function) in functions.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(_interrupted(error)) from None


app = typer.Typer(
    name="unidiff",
    cls=_Commands,
    help="Diffusion models, each part tested against an exact answer.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"unidiff {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, as UNIDIFF_DEBUG=1 does.")
    ] = False,
) -> None:
    pass


command_line: Any = typer.main.get_command(app)
command_line.commands = _Imported()


def _interrupted(error: KeyboardInterrupt) -> int:
    """Say that a command was interrupted; its exit code."""
    if is_speaker():
        print(f"unidiff: {str(error) or 'interrupted.'}", file=sys.stderr)
    return getattr(error, "exit_code", 130)


def _show_warnings_as_notes() -> None:
    """Print warnings of this package as notes, without the line of code; those of others as ever."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any, **options: Any) -> None:
        frame = sys._getframe(1)  # the file that comes along depends on how many functions of libraries lie between
        while frame.f_code.co_filename == warnings.__file__ and frame.f_back is not None:
            frame = frame.f_back
        own = Path(frame.f_code.co_filename).is_relative_to(_PACKAGE)
        if own and issubclass(category, (DeprecationWarning, UserWarning)):
            say(f"Note: {message}", error=True)
        else:
            usual(clean(str(message)), category, *more, **options)

    warnings.filterwarnings("default", category=DeprecationWarning, module=r"unidiff\.")
    warnings.showwarning = show


@usable_streams()
def main() -> None:
    """Run the command line. Exit codes: 2 for a user's mistake, 1 for a failed run, 128 + its number for a signal.

    Anything else that goes wrong is written to a file, and answered by a sentence with its path and exit code 70.
    """
    # OpenMP's waiting threads must not spin: on shared cores that made fp32 training 36 times slower. It is read when
    # torch is imported. The bf16 kernels of oneDNN spin all the same: there only OMP_NUM_THREADS=1 helps.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1 or os.environ.get("UNIDIFF_DEBUG") == "1"
    run_directory.set(None)
    if working_directory() is None:  # libraries look there when they are imported
        _end("the working directory was deleted. Change to another one.", 2, None)
    try:
        with warnings.catch_warnings(), ended_by_signals(), enough_memory():
            _show_warnings_as_notes()
            if words[:1] == ["list"] and len(words) < 3 and not words[-1].startswith("-"):
                # Without options there is nothing to parse: typer imports pydantic for it, as long as all of the rest.
                code = importlib.import_module("unidiff.cli.describe").list_names(*words[1:])
            else:
                code = command_line(words, prog_name="unidiff", standalone_mode=False)
            sys.stdout.flush()
            sys.exit(code)
    except BrokenPipeError:  # `unidiff list | head`
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt as error:
        sys.exit(_interrupted(error))
    except _UsageError as error:
        error.message = clean(error.message)
        error.show()
        sys.exit(error.exit_code)
    except UnidiffError as error:
        _end(str(error), error.exit_code, error if debug else None)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            problem = f"too many open files ({error.filename or error.strerror})"
            _end(f"{problem}. Raise the limit, `ulimit -n 1024` for example.", 1, error if debug else None)
        if _is_of_a_library_that_loads(error):
            problem = f"a library cannot be loaded ({type(error).__name__}: {first_line(error)})"
            remedy = "Correct what the environment sets, its limits, or the installation."
            _end(f"{problem}. {remedy}", RunError.exit_code, error if debug else None)
        _end(write_report(error), EXIT_CODE, error if debug else None)


def _is_of_a_library_that_loads(error: Exception) -> bool:
    """Whether an error is one of another package, which was being imported: of a variable that it reads, say."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name == "<module>" and not Path(frame.filename).is_relative_to(_PACKAGE) for frame in frames)


def _end(message: str, code: int, shown: Exception | None) -> NoReturn:
    """Print the message of an error, after its traceback where that is asked for, and exit."""
    if shown is not None:
        say("".join(traceback.format_exception(shown)), error=True)
    speaker = "unidiff"
    if not is_speaker():
        # All processes meet the same error as a rule: a launcher ends this one when the first has spoken.
        time.sleep(_PATIENCE)
        speaker = f"unidiff (process {os.environ['RANK']})"
    say_error(speaker, message)
    sys.exit(code)
