"""Mutations of JSON, safetensors, npy, images, IDX and pickles that these formats' readers must see through."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
_JSON: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e400,
    10**30,
    "",
    "x",
    ESCAPE,
    [],
    {},
    [[]],
    {"a": 1},
    "../canary/secret",
)
_JSON += (
    "../../../canary/secret",
    "/dev/zero",
    "/etc/passwd",
    "n" * 300,
    "\ud800",
    [None],
    -0.5,
    2**63,
    "1",
    [1] * 1000,
)


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in ((value, key), *_nodes(value[key]))]


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with something in it replaced, renamed or left out."""
    nodes = _nodes(value)
    if not nodes or draw.random() < 0.1:
        return draw.choice(_JSON)
    holder, key = draw.choice(nodes)
    what = draw.random()
    if isinstance(holder, dict) and what < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and what < 0.4:
        holder[draw.choice([ESCAPE, "/dev/zero", "../../../canary/secret", "x", "n" * 300])] = holder.pop(key)
    else:
        holder[key] = draw.choice(_JSON)
    return value


def header(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    if draw.random() < 0.3:
        file.write_bytes(struct.pack("<Q", draw.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])) + content[8:])
        return
    header = json.dumps(changed(json.loads(content[8 : 8 + length]), draw)).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])


def tensors(file: Path, draw: random.Random) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    name = draw.choice(sorted(tensors))
    old = tensors[name]
    changed = [np.full_like(old, np.nan), np.full_like(old, 3e38), old[..., :0], old.astype(np.int64), np.zeros(3)]
    tensors[name] = np.ascontiguousarray(draw.choice(changed))
    save_file(tensors, file)


def array_header(file: Path, draw: random.Random) -> None:
    shapes = [
        "(1" + "0" * 12 + ", 1, 8, 8)",
        "(-1,)",
        "()",
        "(20, 1, 8)",
        "(True,)",
        "(2**62, 4)",
        "(0, 1, 8, 8)",
        "'x'",
    ]
    types = ["|u1", "<f4", "|O", "<U1000", "[('a', '<f4')]", "<c8", "x", ESCAPE, "__import__('os')"]
    header = f"{{'descr': {draw.choice(types)!r}, 'fortran_order': False, 'shape': {draw.choice(shapes)}, }}"
    header = "{" * draw.choice([1, 1, 5000]) + header[1:] + "\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header.encode() + bytes(1280))


def huge_image(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    size = draw.choice([0, 10_000, 13_000, 60_000, 2**31 - 1, 2**32 - 1])
    content[16:24] = struct.pack(">II", size, size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)


def other_format(file: Path, draw: random.Random) -> None:
    from PIL import Image

    kind = draw.choice(["EPS", "GIF", "TIFF", "I;16", "ICO", "PPM"])
    if kind == "EPS":
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n")
        return
    target = io.BytesIO()
    image = Image.new("I;16" if kind == "I;16" else "L", (16, 16))
    image.save(target, "TIFF" if kind == "I;16" else kind)
    file.write_bytes(target.getvalue())


def bomb(file: Path, draw: random.Random) -> None:
    head = gzip.decompress(file.read_bytes())[: draw.choice([0, 16])]
    file.write_bytes(gzip.compress(head + bytes(draw.choice([1 << 20, 1 << 28])), 1))


def idx_size(file: Path, draw: random.Random) -> None:
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[4:8] = struct.pack(">I", draw.choice([0, 1, 21, 2**31, 2**32 - 1]))
    file.write_bytes(gzip.compress(bytes(content)))


def other_pickle(file: Path, draw: random.Random) -> None:
    import torch

    deep: Any = []
    for _ in range(500):
        deep = [deep]
    forbidden = b"cos\nsystem\n(S'touch canary/owned'\ntR."
    values = [[], {}, None, {"state": {}, "param_groups": []}, {"state": 1, "param_groups": None}, deep, "x", 10**30]
    if draw.random() < 0.3:
        file.write_bytes(forbidden)
    else:
        torch.save(draw.choice(values), file)
