"""Figures of end-to-end tests are drawn without a layout: it is half of their time, and test_plot.py holds it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_layout():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unidiff.plot.figure._LAYOUT", None)
        yield
