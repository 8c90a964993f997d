"""Docstrings as they are written, in plain text, for a reader of reStructuredText: shapes and formulas are code."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

# Outside of backticks and bold words: brackets or bars that hold a star or a bar, such as (B, *shape) and |grad u|;
# then single words.
_FORMULA = re.compile(
    r"\w*\([^()`]*(?:\*|\|)[^()`]*(?:\([^()`]*\)[^()`]*)*\)"
    r"|\|[^|`\s](?:[^|`]*[^|`\s])?\|(?:\^\w+|_\w+)?"
    r"|(?<![\w`])\*{1,2}\w+\b(?!\*)|\b\w+_(?!\w)|\S+[*|]\S*|[*|]\S+"
)


def marked(line: str) -> str:
    """A line of a docstring with what would be taken for markup as code."""
    start = re.match(r"\s*(\*{1,2}\w+:|[-*] )?", line).end()  # a bullet, or an entry of Args, which napoleon reads
    parts = re.split(r"(``[^`]*``|`[^`]*`|\*\*\w[^*]*\w\*\*)", line[start:])
    return line[:start] + "".join(
        part if number % 2 else _FORMULA.sub(_code, part) for number, part in enumerate(parts)
    )


def _code(match: re.Match[str]) -> str:
    text = match[0].rstrip(".,;:")
    return f"``{text}``\\ {match[0][len(text) :]}"


def _mark(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    if what != "module":
        lines[:] = map(marked, lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _mark, priority=400)  # before napoleon, which reads the sections
    return {"parallel_read_safe": True}
