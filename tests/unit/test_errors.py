"""What messages show of long values."""

from __future__ import annotations

import pytest

import unidiff as ud
from unidiff.errors import ParameterError, RunError, require


def test_long_lists_of_numbers_are_cut():
    betas = tuple(number / 1000 for number in range(1, 1001))
    short = "must be x, got (0.001, 0.002, 0.003, ..., 1.0)"
    with pytest.raises(ParameterError) as raised:
        require(False, "betas", betas, "x")
    assert (raised.value.problem, str(raised.value)) == (short, f"betas {short}")
    # Also in the repr of a part, lists in lists, and whichever class of error.
    assert str(RunError(f"{ud.BetaTable(betas)!r} and {[[-1] * 30, [2]]!r}.")) == (
        "BetaTable(entries=(0.001, 0.002, 0.003, ..., 1.0)) and [[-1, -1, -1, ..., -1], [2]]."
    )
    few = [*range(20)]
    assert str(RunError(f"got {few}.")) == f"got {few}."


def test_long_texts_are_cut():
    with pytest.raises(ParameterError) as raised:
        require(False, "name", "x" * 5000, "short")
    assert len(str(raised.value)) < 400
