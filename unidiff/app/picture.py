"""A figure as an element of a page, with words below it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from unidiff.page.html import Markup, element, image_element
from unidiff.plot.figure import image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["complaint", "picture", "png"]


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    image_of(figure).save(file, "PNG")
    return file.getvalue()


def picture(figure: Figure, alt: str, *words: str) -> Markup:
    """A figure, described by `alt`, with a paragraph for each of some words below it."""
    image = image_element(png(figure), alt, style="max-width: 100%; height: auto; background: white")
    return element("div", image, *(element("p", text) for text in words), class_="picture")


def complaint(message: str) -> Markup:
    """What stands in place of a picture that cannot be drawn."""
    return element("p", message, role="alert")
