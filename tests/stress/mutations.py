"""What a stranger does to a directory: bytes, values, links, pipes, devices, sizes and names."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from stress import formats

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
    files = list(filter(_plain, _below(path) if path.is_dir() else [path]))
    general = [_flip, _truncate, _append, _empty, _delete, _link, _pipe, _folder, _device, _sparse, _deep_text]
    whole = [_planted, _odd_names, _deep_folders, _link_loop]
    if not files and not path.is_dir():
        return "nothing is left"
    if not files or (path.is_dir() and draw.random() < 0.3):
        return _done(draw.choice(whole), path, draw)
    file = draw.choice(files)
    by_suffix: dict[str, list[Callable[[Path, random.Random], None]]] = {
        ".json": [_json_value, _json_value, _json_value],
        ".jsonl": [_json_line, _json_line],
        ".yaml": [_yaml_value, _yaml_value],
        ".safetensors": [formats.header, formats.header, formats.tensors],
        ".npy": [formats.array_header, formats.array_header],
        ".png": [formats.huge_image, formats.other_format],
        ".gz": [formats.bomb, formats.idx_size],
        ".pt": [formats.other_pickle, formats.other_pickle],
    }
    return _done(draw.choice([*general, *by_suffix.get(file.suffix, []) * 3]), file, draw)


_BROKEN = struct.error, zlib.error, SafetensorError


def _done(action: Callable[[Path, random.Random], None], path: Path, draw: random.Random) -> str:
    name = action.__name__.strip("_")
    try:
        action(path, draw)
    except (*_BROKEN, OSError, ValueError, TypeError, LookupError, RecursionError, EOFError) as error:
        return f"{name} failed on {path}: {type(error).__name__}"  # after another mutation
    return f"{name} {path}"


def _below(folder: Path) -> list[Path]:
    """All paths below a folder, but those that are too long."""
    walked = os.walk(folder)  # passes over what it cannot read
    return sorted(Path(parent, name) for parent, names, files in walked for name in (*names, *files))


def _plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size < 1 << 24
    except OSError:
        return False


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
            draw.choice([b"\0" * 100, b"{", formats.ESCAPE.encode(), b"\xff\xfe", b"\n\n{}\nnull\n", b"x" * 1_000_000])
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


def _json_value(file: Path, draw: random.Random) -> None:
    file.write_text(json.dumps(formats.changed(json.loads(file.read_text()), draw)))


def _json_line(file: Path, draw: random.Random) -> None:
    lines = file.read_text().splitlines()
    at = draw.randrange(len(lines))
    broken = [
        lines[at][: len(lines[at]) // 2],
        json.dumps(formats.changed(json.loads(lines[at]), draw)),
        formats.ESCAPE,
        "null",
    ]
    file.write_text("\n".join([*lines[:at], draw.choice(broken), *lines[at + 1 :]]) + "\n")


def _yaml_value(file: Path, draw: random.Random) -> None:
    from stress.inputs import VALUES

    lines = file.read_text().splitlines()
    at = draw.choice([place for place, line in enumerate(lines) if ":" in line])
    lines[at] = f"{lines[at].partition(':')[0]}: {draw.choice(VALUES)}"
    file.write_text("\n".join(lines), errors="surrogateescape")


def _planted(folder: Path, draw: random.Random) -> None:
    """A link in place of what a command writes."""
    path = folder / draw.choice(_NAMES)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(_target(path, draw))


def _odd_names(folder: Path, draw: random.Random) -> None:
    folders = [folder, *(path for path in _below(folder) if path.is_dir() and not path.is_symlink())][:50]
    names = [
        b"\xff\xfe.png",
        formats.ESCAPE.encode() + b".png",
        b"n" * 240 + b".png",
        b"$\\frac{$.png",
        b"a\nb.png",
        b" .png",
    ]
    target = os.path.join(os.fsencode(draw.choice(folders)), draw.choice(names))
    pictures = sorted(path for path in _below(folder) if path.suffix == ".png" and _plain(path))
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
