"""The marker `cases(n)`: `make test` runs n cases of a test, evenly spread, and `make test-all` runs all of them."""

from __future__ import annotations

import gc

import pretend_gpu  # noqa: F401  registers its device before autograd counts them, at the first backward pass
import pytest

gc.disable()  # what is collected is kept: each look at it would be in vain


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # tests make many short-lived objects


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups: dict[tuple[object, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("cases"):
            groups.setdefault((item.path, item.originalname), []).append(item)
    for group in groups.values():
        (count,) = group[0].get_closest_marker("cases").args
        kept = {round((place + 0.5) * len(group) / count - 0.5) for place in range(count)}
        for place, item in enumerate(group):
            if place not in kept:
                item.add_marker("slow")
