"""Damage to the content of a file: bytes for any, values for JSON and YAML."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [None, True, -1, 0, 2**70, 1e308, float("nan"), float("inf"), "", "\0", "x" * 300, "../..", [], {}]


def mutated_bytes(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The content, damaged in `count` ways that depend on the seed only."""
    draw = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 8])):
            at = draw.randrange(len(damaged)) if damaged else 0
            # Where formats have their headers, twice as often.
            at = at if draw.random() < 0.5 else min(at, draw.randrange(64))
            kind = draw.randrange(6)
            if kind == 0:
                del damaged[at:]
            elif kind == 1:
                damaged[at:at] = draw.randbytes(draw.randrange(1, 20))
            elif kind == 2:
                del damaged[at : at + draw.randrange(1, 20)]
            elif kind == 3:
                damaged[at : at + 4] = draw.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"9999"])
            elif damaged:
                damaged[at] = draw.randrange(256) if kind == 4 else damaged[at] ^ 1 << draw.randrange(8)
        yield bytes(damaged)


def mutated_values(content: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Nested lists and mappings, one value or key of which is another, in `count` ways."""
    draw = random.Random(seed)
    for _ in range(count):
        copy = json.loads(json.dumps(content))
        holder, key = draw.choice([*_places(copy), (None, None)])
        deep: Any = 0
        for _ in range(draw.choice([3, 60, 900])):
            deep = [deep]
        value = draw.choice([*ODD, deep])
        if holder is None:
            copy = value
        elif isinstance(holder, dict) and draw.random() < 0.3:
            holder[draw.choice(["", "x", "../x", "/dev/zero", "\x1b[2J", "\0", "type"])] = holder.pop(key)
        elif draw.random() < 0.2:
            del holder[key]
        else:
            holder[key] = value
        yield copy


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder of a value, with its key."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield content, key
        yield from _places(value)
