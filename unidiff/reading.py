"""Read files that anybody may have written: only regular ones, of a limited size and of the right form."""

from __future__ import annotations

import json
import os
import select
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from unidiff.errors import DataError
from unidiff.memory import memory_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = [
    "JSON_LIMIT",
    "Unreadable",
    "map_array",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_pipe",
    "read_saved",
    "read_tensors",
    "require_depth",
]

JSON_LIMIT = 16_000_000  # bytes; the index of a model of thousands of parts has about one million
_MAX_DEPTH = 50  # of nested values: far below what the parsers and writers of JSON can follow
_PATIENCE = 3.0  # seconds that a pipe with a name of its own is waited for: it may have no writer


class Unreadable(DataError, OSError):
    """A file is missing, not a regular file, too large, or not of its format.

    Also an OSError, which it is to whoever writes files and reads them back.

    Attributes:
        path: The file.
        problem: What is wrong, without the path in front.
        missing: Whether there is nothing at the path.
    """

    def __init__(self, path: str | Path, problem: str, missing: bool = False) -> None:
        super().__init__(f"{path}: {problem}. Restore the file, or correct the path.")
        self.path = Path(path)
        self.problem = self.strerror = problem
        self.missing = missing


def open_regular(path: str | Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading: never a pipe, a socket or a device, which could be waited for without end.

    Args:
        path: The file, or a link to it.
        limit: Bytes that it may have; None for those that the memory of the machine can hold.

    Raises:
        Unreadable: If there is no such file, or it is larger.
    """
    try:
        _require_regular(path, os.stat(path).st_mode)  # before it is opened, which alone can have an effect on a device
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except Unreadable:
        raise
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise _unreadable(path, error) from error
    file = os.fdopen(descriptor, "rb")
    try:
        status = os.fstat(descriptor)
        _require_regular(path, status.st_mode)  # it may have been replaced in between
        most = memory_of() if limit is None else limit
        if status.st_size > most:
            what = "the memory of this machine" if limit is None else "the limit for such a file"
            raise Unreadable(path, f"the file has {status.st_size:,} bytes, more than {what} ({most:,})")
    except BaseException:
        file.close()
        raise
    return file


def _require_regular(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise Unreadable(path, f"this is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")


def _unreadable(path: str | Path, error: Exception) -> Unreadable:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Unreadable(path, "there is no such file", missing=True)
    return Unreadable(path, f"the file cannot be read ({_reason(error)})")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The content of a regular file; see `open_regular`."""
    with open_regular(path, limit) as file:
        try:
            content = file.read() if limit is None else file.read(limit + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if limit is not None and len(content) > limit:  # files of /proc have no size
        raise Unreadable(path, f"the file has more than {limit:,} bytes, the limit for such a file")
    return content


def read_pipe(path: str | Path, limit: int) -> bytes:
    """What comes through a pipe or a terminal, to its end.

    Args:
        path: The pipe; "-", /dev/stdin or /dev/fd/N for one that is open already.
        limit: Bytes that may come.

    Raises:
        Unreadable: If more comes; if nothing comes for a while from a pipe that has a name of its own; or if there is
            neither a pipe nor a terminal.
    """
    inherited = str(path) == "-" or str(path).startswith(("/dev/", "/proc/"))
    content = b""
    try:
        flags = 0 if inherited else getattr(os, "O_NONBLOCK", 0)
        number = 0 if str(path) in ("-", "/dev/stdin") else os.open(path, os.O_RDONLY | flags)
        try:
            if number and not (stat.S_ISFIFO(os.fstat(number).st_mode) or os.isatty(number)):
                raise Unreadable(path, "this is a socket or a device, not a file")
            while len(content) <= limit:
                if not (inherited or select.select([number], [], [], _PATIENCE)[0]):
                    raise Unreadable(path, "nothing comes through this pipe")
                if not (more := os.read(number, 1 << 16)):
                    break
                content += more
        finally:
            if number:
                os.close(number)
    except Unreadable:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(content) > limit:
        raise Unreadable(path, f"more than {limit:,} bytes came through this pipe, the limit for such a file")
    return content


def read_json(path: str | Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        Unreadable: If there is none, or it is not a mapping, too large or nested too deeply.
    """
    try:
        content = json.loads(read_bytes(path, limit).decode("utf-8-sig"))
        require_depth(content)
    except ValueError as error:
        raise Unreadable(path, f"this is not readable JSON ({error})") from error
    except RecursionError as error:
        raise Unreadable(path, "its values are nested too deeply") from error
    if not isinstance(content, dict):
        raise Unreadable(
            path, f"expected a mapping, got {'null' if content is None else f'a {type(content).__name__}'}"
        )
    return content


def require_depth(content: object, most: int = _MAX_DEPTH) -> None:
    """Raise a ValueError if lists and mappings are nested more deeply than any that is meant."""
    if isinstance(content, (dict, list)):
        if most == 0:
            raise ValueError("its values are nested too deeply")
        for inner in content.values() if isinstance(content, dict) else content:
            require_depth(inner, most - 1)


def _plain(device: str | torch.device) -> str:
    """The name of a device for what reads files, which knows no `cpu:0`, as accelerate has it in several processes."""
    return "cpu" if str(device).startswith("cpu") else str(device)


def read_tensors(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose header is held against the size of the file.

    Raises:
        Unreadable: If there is none, or it is damaged.
    """
    from safetensors.torch import load_file

    open_regular(path).close()
    try:
        return load_file(path, device=_plain(device))
    except (MemoryError, RuntimeError):  # of the device, not of the file
        raise
    except Exception as error:  # safetensors' own error is none of Python's
        raise Unreadable(path, f"the file is damaged ({error})") from error


def read_saved(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """What torch.save wrote: tensors and plain values only, no other objects, and nothing compressed.

    Raises:
        Unreadable: If there is no such file, it is damaged, or holds anything else.
    """
    import torch

    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:  # what torch.save writes takes no more memory than its file
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise Unreadable(path, "the file is damaged (it is compressed)")
            file.seek(0)
            return torch.load(file, map_location=_plain(device), weights_only=True)
    except (Unreadable, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # zipfile, pickle and torch have errors of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Unreadable(path, f"the file is damaged ({reason})") from error


def map_array(path: Path, parameter: str) -> np.ndarray:
    """Map a .npy file into memory without reading its values. Python objects raise an error, and are not unpickled."""
    import numpy as np

    try:
        open_regular(path, 1 << 62).close()
        # Mapping holds the declared shape against the size of the file.
        with np.errstate(over="ignore"):  # in their product
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python, with errors of many kinds
        reason = _reason(error)
        if "pickle" in reason:  # NumPy's remedy would run any code
            reason = "its content is another, or Python objects"
        problem = f"{parameter}: {path} cannot be read as a .npy file of numbers ({reason})"
        raise DataError(f"{problem}. Save it with numpy.save, as uint8 or float32.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{parameter}: {path} is an .npz archive. Save a single array with numpy.save.")
    return array
