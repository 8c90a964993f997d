"""`unidiff app`: noise, solvers, grids and guidance by sliders, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli import completion
from unidiff.cli.options import ModelOptions

__all__ = ["app"]


def app(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory, a folder saved by diffusers, or shipped:NAME.", autocompletion=completion.runs
        ),
    ] = Path("shipped:ddpm_digits"),
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 7860,
    host: Annotated[str, typer.Option(help="Address of the page, on this machine alone.")] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser: print the address only.")] = False,
    *,
    model: ModelOptions,
) -> None:
    """Explore a model in a browser: noise, solver, grid, steps, guidance and seeds by sliders. Needs gradio."""
    import threading
    import webbrowser

    from unidiff.app.gradio import require_gradio
    from unidiff.app.serve import address, listen

    with listen(host, port) as server:
        require_gradio()
        from unidiff.app.page import page
        from unidiff.app.samples import Explored
        from unidiff.app.serve import serve
        from unidiff.cli.console import Console, say

        with Console() as console:
            explored = Explored(model.load(run, (), console.notice))

        def ready() -> None:
            say(f"{address(server)}   (Ctrl-C ends it)", error=True)
            if not no_browser:
                threading.Thread(target=webbrowser.open, args=[address(server)], daemon=True).start()

        serve(page(explored), server, ready)
