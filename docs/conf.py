"""The documentation as a site: `make docs` builds docs/_build/html. A warning ends the build."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]
os.environ.setdefault("UNIDIFF_OFFLINE", "1")

import sphinx.ext.autosummary  # noqa: E402

import unidiff  # noqa: E402

project = "unidiff"
author = "The unidiff developers"
copyright = author
version = release = unidiff.__version__
address = re.search(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas are drawn without a network: MathJax is part of the site
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "docstrings",
    "pages",
]
exclude_patterns = ["_build", "_ext", "learn"]
templates_path: list[str] = []
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
highlight_language = "none"
suppress_warnings = ["ref.python"]  # a name that several classes have, in the words of one of them

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
sphinx.ext.autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "eqs.")  # they end no sentence
autosummary_generate = False  # the kinds are pages; each lists its names in a table
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
sphinx_gallery_conf = {
    "examples_dirs": "learn",
    "gallery_dirs": "generated/learn",
    "filename_pattern": os.environ.get("UNIDIFF_PAGES", "plot_"),  # scripts to run: plot_3 for one, - for none
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "capture_repr": (),  # what is printed is shown, and figures; not the value of a last line
    "run_stale_examples": True,  # or what UNIDIFF_PAGES left out would stay without its figures
    "write_computation_times": False,
    "abort_on_example_error": True,
}
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"unidiff {release}"
html_theme_options = {"source_view_link": f"{address}/blob/main/docs/{{filename}}", "top_of_page_buttons": ["view"]}
html_static_path: list[str] = []
html_show_copyright = False
