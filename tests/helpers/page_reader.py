"""A page of `unidiff report` as a test reads it: numbers, images, sections, and the content that they must equal."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from unidiff.page.html import MARK


class PageReader(HTMLParser):
    """Numbers of a page by their path, its images, its sections, and the content in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.sections: list[str | None] = []
        self._at: list[dict[str, str | None]] = []
        text = page.read_text("utf-8")
        assert text.startswith(MARK)
        self.feed(text)
        found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.S)
        assert found is not None
        self.content = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self._at = [own] if tag == "data" else []
        if tag == "img" and "src" in own:
            self.images.append(own)
        if tag == "section":
            self.sections.append(own["id"])

    def handle_data(self, data: str) -> None:
        for own in self._at:
            self.numbers.append((str(own["data-path"]), str(own["value"]), data))
        self._at = []

    def check(self) -> None:
        """Every number is that of the content, rounded; every image says what it is, and is in the page."""
        for path, value, shown in self.numbers:
            found: Any = self.content
            for key in path.split("/"):
                found = found[int(key)] if isinstance(found, list) else found[key]
            assert repr(found) == value
            number = float(shown.replace(",", ""))
            assert abs(number - found) <= 0.06 * abs(found)  # two digits
        assert all(image["alt"] for image in self.images)
        assert all(str(image["src"]).startswith("data:image/") for image in self.images)
