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
_PANELS = (
    "display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, {least}), 1fr)); align-items: start; "
    "gap: 0.5rem; padding: 0.5rem; border-radius: 4px; background: white; max-width: {most}"
)
_PANEL = "width: 100%; height: auto"


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, without its white margins."""
    image, file = image_of(figure), io.BytesIO()
    image.crop(ImageOps.invert(image).getbbox()).save(file, "PNG")
    return file.getvalue()


def picture(panels: Sequence[Figure], alt: str, *words: str, width: str = "100%", least: str = "20rem") -> Markup:
    """Figures beside and below each other, with a paragraph for each of some words below them.

    Args:
        panels: The figures.
        alt: What they show.
        *words: The paragraphs.
        width: Of all of them at most, in CSS.
        least: Width of one figure at least, if the page is no narrower.
    """
    images = (image_element(png(panel), alt, style=_PANEL) for panel in panels)
    shown = element("div", *images, style=_PANELS.format(least=least, most=width))
    return element("div", shown, *(element("p", text) for text in words), class_="picture")


def complaint(message: str) -> Markup:
    """What stands in place of a picture that cannot be drawn."""
    return element("p", message, role="alert")
