"""Elements of HTML, in which every text is escaped, and a document of them without scripts or images of others."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unidiff.page.look import SCRIPT, STYLE
from unidiff.text import clean

__all__ = [
    "MARK",
    "Markup",
    "content_of",
    "document",
    "element",
    "image_element",
    "joined",
    "number",
    "plain",
    "rounded",
    "rows",
    "table",
]

MARK = "<!doctype html>\n<!-- a report of unidiff -->\n"  # how every page begins
_EMPTY = {"img", "input", "meta"}  # elements without content
# Nothing is loaded from anywhere: not even a page of a hostile run can.
_CONTENT = re.compile('<script type="application/json" id="content">(.*?)</script>', re.S)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Markup(str):
    """HTML, as it is; any other string is a text, which is escaped."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element.

    Args:
        tag: Its name.
        *content: Markup, and texts; None is left out.
        **attributes: Their values; True for one without a value, None and False leave one out. A `_` in a name stands
            for a dash, and one at its end for nothing: `class_`, `data_path`.
    """
    words = [tag]
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f'{name}="{_text(value)}"')
    if tag in _EMPTY:
        return Markup(f"<{' '.join(words)}>")
    return Markup(f"<{' '.join(words)}>{joined(content)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """Markup and texts one after another."""
    return Markup("".join(_text(part) for part in parts if part is not None))


def _text(value: object) -> str:
    return value if isinstance(value, Markup) else html.escape(clean(str(value)))


def number(content: Any, *path: str | int, digits: int = 4, places: int | None = None) -> Markup:
    """A number of the content of a page, rounded, as an element that says where it is in the content.

    What is not a number is shown as it is, and nothing for None.

    Args:
        content: The content.
        *path: The keys that lead to the number.
        digits: Of numbers that are not whole.
        places: Behind the point, instead of `digits`.
    """
    value = content
    for key in path:
        value = value[key]
    where = "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in path)  # RFC 6901
    if value is None:
        return Markup("")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return element("span", value, data_path=where)
    text = rounded(value, digits) if places is None else f"{value:.{places}f}"
    return element("data", text, value=repr(value), data_path=where)


def rounded(value: float, digits: int = 4) -> str:
    """A number for people: integers whole, others to some digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)


def table(head: Sequence[object], body: Iterable[Sequence[object]], caption: str | None = None) -> Markup:
    """A table; the first cell of each row is its heading. It scrolls on its own where the page is narrow."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    lines = (
        element("tr", element("th", line[0], scope="row"), *(element("td", cell) for cell in line[1:])) for line in body
    )
    name = None if caption is None else element("caption", caption)
    inner = element("table", name, element("thead", top), element("tbody", *lines))
    return element("div", inner, class_="wide", tabindex=0, role="region", aria_label=caption or "table")


def rows(facts: Mapping[str, object]) -> Markup:
    """Names and what is said of them; what is None is left out."""
    pairs = ((element("dt", name), element("dd", value)) for name, value in facts.items() if value is not None)
    return element("dl", *(part for pair in pairs for part in pair))


def image_element(image: bytes, alt: str, kind: str = "png", **attributes: object) -> Markup:
    """An image, inside the page."""
    source = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    return element("img", src=Markup(source), alt=alt, **attributes)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite, and all that JSON lacks, as text."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)


def content_of(page: str) -> Any:
    """The content in a page that `document` made; None of any other text."""
    try:
        found = _CONTENT.search(page)
        return None if found is None else json.loads(found[1])
    except ValueError:
        return None


def document(title: str, body: Iterable[object], content: Any) -> str:
    """A whole page, with its content as JSON inside."""
    # In a script only `<` can end it; the two separators are line breaks in old scripts.
    text = json.dumps(content, allow_nan=False, ensure_ascii=True).replace("<", "\\u003c")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(_POLICY)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    data = element("script", Markup(text), type="application/json", id="content")
    script = element("script", Markup(SCRIPT))
    return f"{MARK}{element('html', head, element('body', *body, data, script), lang='en')}\n"
