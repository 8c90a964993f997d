"""What the site has beside the pages of docs/: the tree of docs/index.md, and pages written from the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from tree import trees

DOCS = Path(__file__).parents[1]
GENERATED = DOCS / "generated"
ROOT_FILES = ("changelog", "contributing", "security")


def _add_trees(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the toctrees to the index, whose lists are what one reads on a forge; lead links into the site."""
    if docname == "index":
        for heading, pages in trees(source[0]):
            lines = ["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```"]
            source[0] += "\n\n" + "\n".join(lines)
        source[0] += "\n"
    for name in ROOT_FILES:
        source[0] = source[0].replace(f"](../{name.upper()}.md)", f"](generated/{name}.md)")
    source[0] = re.sub(r"\]\(learn/(\w+)\.py\)", r"](generated/learn/\1.rst)", source[0])


def _write(app: Sphinx) -> None:
    import written

    GENERATED.mkdir(exist_ok=True)
    for name, text in written.pages(app.config.address, ROOT_FILES).items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:  # unchanged pages are not read again
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("address", "", "env")
    app.connect("builder-inited", _write)
    app.connect("source-read", _add_trees)
    return {"parallel_read_safe": True}
