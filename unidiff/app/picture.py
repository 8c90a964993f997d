"""Figures as an element of a page, with words below them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import ImageOps

from unidiff.page.html import Markup, element, image_element
from unidiff.plot.figure import image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["complaint", "picture", "png"]

# Side by side where the page is wide enough for their text, below each other elsewhere, on white in the dark too.
_PANELS = "display: flex; flex-wrap: wrap; gap: 0.5rem; padding: 0.5rem; border-radius: 4px; background: white"
_PANEL = "flex: 1 1 20rem; min-width: 0; max-width: 100%; height: auto; object-fit: contain"


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, without its white margins."""
    image, file = image_of(figure), io.BytesIO()
    image.crop(ImageOps.invert(image).getbbox()).save(file, "PNG")
    return file.getvalue()


def picture(panels: Sequence[Figure], alt: str, *words: str, width: str = "100%") -> Markup:
    """Figures, described by `alt`, with a paragraph for each of some words below them, at most of a width in CSS."""
    images = (image_element(png(panel), alt, style=_PANEL) for panel in panels)
    shown = element("div", *images, style=f"{_PANELS}; max-width: {width}")
    return element("div", shown, *(element("p", text) for text in words), class_="picture")


def complaint(message: str) -> Markup:
    """What stands in place of a picture that cannot be drawn."""
    return element("p", message, role="alert")
