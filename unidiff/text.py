"""Text of others (names of files, keys of recipes, messages of libraries) made harmless for a terminal or a figure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

__all__ = ["aligned", "clean", "count_of", "first_line", "joined_name", "operand", "rows_of"]

_LONGEST_LINE, _LONGEST_WORD = 4000, 300  # characters
_LONGEST_NAME = 200  # bytes, of the 255 that a file system allows
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


def clean(text: str) -> str:
    r"""The text with control characters, escape sequences and bytes that are no UTF-8 written out, as in `\x1b`.

    Words of more than 300 characters and lines of more than 4000 lose their middle.
    """
    return "\n".join(_clean_line(line) for line in text.replace("\r\n", "\n").split("\n"))


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without frames of C++ that may follow; its class if it says nothing."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # of a class from elsewhere that cannot be shown
        lines = []
    return clean(lines[0]) if lines else type(error).__name__


def aligned(table: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of text in columns, the first `left` of them aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join(
        "  ".join(w.ljust(n) if i < left else w.rjust(n) for i, (w, n) in enumerate(zip(row, widths))).rstrip()
        for row in table
    )


def count_of(number: int, noun: str) -> str:
    """A number of things in words: "1 sample", "1,438 samples"; the noun adds an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rows_of(shape: Iterable[int], count: object = "N") -> str:
    """The shape of several tensors of this one, in words: "(N, 1, 8, 8)"."""
    return f"({', '.join(map(str, (count, *shape)))})"


def operand(path: str | os.PathLike[str]) -> str:
    """A path as a command line takes it: one that begins with a dash would be read as an option."""
    text = os.fspath(path)
    return f"./{text}" if text.startswith("-") else text


def joined_name(parts: Iterable[str]) -> str:
    """The name of a file or folder about several things, cut to what a file system allows."""
    return "-".join(parts).encode()[:_LONGEST_NAME].decode(errors="ignore")


def _clean_line(line: str) -> str:
    line = _cut(_LONG_WORD.sub(lambda word: _cut(word[0], _LONGEST_WORD), line), _LONGEST_LINE)
    if line.isprintable():
        return line
    # Not printable are control characters, half surrogates, and those that turn the direction of what follows.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]} [...] {text[-most // 4 :]}"
