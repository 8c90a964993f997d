"""What a stranger does to a directory: bytes, values, links, pipes, devices, sizes and names."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ESCAPE = "\x1b]0;owned\x07\x1b[2J"
_JSON: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e400,
    10**30,
    "",
    "x",
    _ESCAPE,
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
_TARGETS = ("canary", "canary/secret", "canary/inside", "canary/missing", "/dev/zero", "/dev/full", ".", "..", "/proc")
_NAMES = ("manifest.json", "metrics.jsonl", "recipe.yaml", "loss.png", "samples", "tensorboard", "checkpoints", "codec")
_NAMES += (
    "samples/grid.png",
    "samples/drawn-001.png",
    "checkpoints/step-00000008",
    "checkpoints/step-99999999",
    ".lock",
)
_NAMES += ("process.safetensors", "start.safetensors", ".manifest.json.partial", "report", "config.json", "lock")


def mutate(path: Path, draw: random.Random) -> str:
    """Change something at a path, a file or a folder, and say what."""
    files = sorted(file for file in path.rglob("*") if _plain(file)) if path.is_dir() else [path] * _plain(path)
    general = [_flip, _truncate, _append, _empty, _delete, _link, _pipe, _folder, _device, _sparse, _deep_text]
    whole = [_planted, _odd_names, _deep_folders, _link_loop]
    if not files or (path.is_dir() and draw.random() < 0.3):
        if not path.is_dir():
            return "nothing is left"
        action = draw.choice(whole)
        action(path, draw)
        return action.__name__.strip("_")
    file = draw.choice(files)
    by_suffix: dict[str, list[Callable[[Path, random.Random], None]]] = {
        ".json": [_json_value, _json_value, _json_value],
        ".jsonl": [_json_line, _json_line],
        ".yaml": [_yaml_value, _yaml_value],
        ".safetensors": [_header, _header, _tensors],
        ".npy": [_array_header, _array_header],
        ".png": [_huge_image, _other_format],
        ".gz": [_bomb, _idx_size],
        ".pt": [_other_pickle, _other_pickle],
    }
    action = draw.choice([*general, *by_suffix.get(file.suffix, []) * 3])
    try:
        action(file, draw)
    except (OSError, ValueError, TypeError, RecursionError, struct.error) as error:
        return f"{action.__name__.strip('_')} failed on {file}: {type(error).__name__}"
    return f"{action.__name__.strip('_')} {file}"


def _plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size < 1 << 24


def _flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 1, 8, 64])):
        at = draw.randrange(min(len(content), draw.choice([64, 1 << 30])))
        content[at] = draw.randrange(256)
    file.write_bytes(content)


def _truncate(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(max(1, file.stat().st_size)))


def _append(file: Path, draw: random.Random) -> None:
    with file.open("ab") as target:
        target.write(
            draw.choice([b"\0" * 100, b"{", _ESCAPE.encode(), b"\xff\xfe", b"\n\n{}\nnull\n", b"x" * 1_000_000])
        )


def _empty(file: Path, draw: random.Random) -> None:
    file.write_bytes(b"")


def _delete(file: Path, draw: random.Random) -> None:
    file.unlink()


def _target(file: Path, draw: random.Random) -> str:
    target = draw.choice(_TARGETS)
    return str(Path.cwd() / target) if target.startswith("canary") else target


def _link(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.symlink_to(draw.choice([file.name, _target(file, draw)]))


def _pipe(file: Path, draw: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _device(file: Path, draw: random.Random) -> None:
    file.unlink()
    try:
        os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, draw.choice([5, 7, 8])))  # zero, full, random
    except PermissionError:
        file.symlink_to("/dev/zero")


def _sparse(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.choice([1 << 28, 1 << 34, 1 << 40]))


def _deep_text(file: Path, draw: random.Random) -> None:
    opening, depth = draw.choice(["[", '{"a":']), draw.choice([500, 100_000])
    file.write_text(opening * depth + "1" + {"[": "]"}.get(opening, "}") * depth)


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in ((value, key), *_nodes(value[key]))]


def _changed(value: Any, draw: random.Random) -> Any:
    nodes = _nodes(value)
    if not nodes or draw.random() < 0.1:
        return draw.choice(_JSON)
    holder, key = draw.choice(nodes)
    what = draw.random()
    if isinstance(holder, dict) and what < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and what < 0.4:
        holder[draw.choice([_ESCAPE, "/dev/zero", "../../../canary/secret", "x", "n" * 300])] = holder.pop(key)
    else:
        holder[key] = draw.choice(_JSON)
    return value


def _json_value(file: Path, draw: random.Random) -> None:
    file.write_text(json.dumps(_changed(json.loads(file.read_text()), draw)))


def _json_line(file: Path, draw: random.Random) -> None:
    lines = file.read_text().splitlines()
    at = draw.randrange(len(lines))
    broken = [lines[at][: len(lines[at]) // 2], json.dumps(_changed(json.loads(lines[at]), draw)), _ESCAPE, "null"]
    file.write_text("\n".join([*lines[:at], draw.choice(broken), *lines[at + 1 :]]) + "\n")


def _yaml_value(file: Path, draw: random.Random) -> None:
    from stress.inputs import VALUES

    lines = file.read_text().splitlines()
    at = draw.choice([place for place, line in enumerate(lines) if ":" in line])
    lines[at] = f"{lines[at].partition(':')[0]}: {draw.choice(VALUES)}"
    file.write_text("\n".join(lines), errors="surrogateescape")


def _header(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    if draw.random() < 0.3:
        file.write_bytes(struct.pack("<Q", draw.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])) + content[8:])
        return
    header = json.dumps(_changed(json.loads(content[8 : 8 + length]), draw)).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])


def _tensors(file: Path, draw: random.Random) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    name = draw.choice(sorted(tensors))
    old = tensors[name]
    changed = [np.full_like(old, np.nan), np.full_like(old, 3e38), old[..., :0], old.astype(np.int64), np.zeros(3)]
    tensors[name] = np.ascontiguousarray(draw.choice(changed))
    save_file(tensors, file)


def _array_header(file: Path, draw: random.Random) -> None:
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
    types = ["|u1", "<f4", "|O", "<U1000", "[('a', '<f4')]", "<c8", "x", _ESCAPE, "__import__('os')"]
    header = f"{{'descr': {draw.choice(types)!r}, 'fortran_order': False, 'shape': {draw.choice(shapes)}, }}"
    header = "{" * draw.choice([1, 1, 5000]) + header[1:] + "\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header.encode() + bytes(1280))


def _huge_image(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    size = draw.choice([0, 10_000, 13_000, 60_000, 2**31 - 1, 2**32 - 1])
    content[16:24] = struct.pack(">II", size, size)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)


def _other_format(file: Path, draw: random.Random) -> None:
    from PIL import Image

    kind = draw.choice(["EPS", "GIF", "TIFF", "I;16", "ICO", "PPM"])
    if kind == "EPS":
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n")
        return
    target = io.BytesIO()
    image = Image.new("I;16" if kind == "I;16" else "L", (16, 16))
    image.save(target, "TIFF" if kind == "I;16" else kind)
    file.write_bytes(target.getvalue())


def _bomb(file: Path, draw: random.Random) -> None:
    head = gzip.decompress(file.read_bytes())[: draw.choice([0, 16])]
    file.write_bytes(gzip.compress(head + bytes(draw.choice([1 << 20, 1 << 28])), 1))


def _idx_size(file: Path, draw: random.Random) -> None:
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[4:8] = struct.pack(">I", draw.choice([0, 1, 21, 2**31, 2**32 - 1]))
    file.write_bytes(gzip.compress(bytes(content)))


def _other_pickle(file: Path, draw: random.Random) -> None:
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


def _planted(folder: Path, draw: random.Random) -> None:
    """A link in place of what a command writes."""
    path = folder / draw.choice(_NAMES)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(_target(path, draw))


def _odd_names(folder: Path, draw: random.Random) -> None:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    names = [b"\xff\xfe.png", _ESCAPE.encode() + b".png", b"n" * 240 + b".png", b"$\\frac{$.png", b"a\nb.png", b" .png"]
    target = os.path.join(os.fsencode(draw.choice(folders)), draw.choice(names))
    pictures = sorted(path for path in folder.rglob("*.png") if _plain(path))
    if draw.random() < 0.3:
        os.mkdir(target)
        target = os.path.join(target, b"x.png")
    with open(target, "wb") as file:
        file.write(draw.choice(pictures).read_bytes() if pictures and draw.random() < 0.7 else b"x")


def _deep_folders(folder: Path, draw: random.Random) -> None:
    before = os.getcwd()
    os.chdir(folder)
    try:
        for _ in range(draw.choice([50, 1200])):  # a path longer than the system takes at once
            os.mkdir("dddd")
            os.chdir("dddd")
        Path("x.png").write_bytes(b"x")
    finally:
        os.chdir(before)


def _link_loop(folder: Path, draw: random.Random) -> None:
    for name in ("a-link", "b-link"):
        (folder / name).symlink_to(draw.choice([".", "..", str(folder.absolute()), "/proc", "/"]))
