"""The tree of the site, read from the lists of docs/index.md."""

from __future__ import annotations

import re


def trees(text: str) -> list[tuple[str, list[str]]]:
    """The sections of docs/index.md: heading, and the pages that its list links to or its comment names, in order."""
    sections = re.split(r"^## (.+)$", text, flags=re.M)[1:]
    entry = re.compile(r"^- \[[^\]]+\]\(([\w/-]+)\.md\)|^<!-- pages: (.+?) -->", re.M)
    return [
        (heading, [page for link, pages in entry.findall(body) for page in (pages.split() if pages else [link])])
        for heading, body in zip(sections[::2], sections[1::2])
    ]
