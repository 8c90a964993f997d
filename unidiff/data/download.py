"""Download a file once, from the first mirror that has the right one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from unidiff.errors import DataError
from unidiff.files import whole_files
from unidiff.search_paths import Absent, require_online

__all__ = ["download", "fetch"]


def download(url: str, target: Path) -> None:
    """Write what is at `url` to the file `target`, with a progress bar on a terminal.

    Raises:
        OSError: If the network or the server fails (the exceptions of requests are OSErrors), or the disk does.
    """
    import pooch

    progress = sys.stderr.isatty() and find_spec("tqdm") is not None
    # Seconds to connect, seconds between bytes: a missing network is noticed soon, a slow one is waited for.
    pooch.HTTPDownloader(progressbar=progress, timeout=(3, 30))(url, str(target), None)


def fetch(name: str, mirrors: Sequence[str], folder: Path, check: Callable[[Path], object]) -> Path:
    """Download a file into a folder, where it appears only once it is complete and checked.

    Args:
        name: File name, the same at each mirror.
        mirrors: Addresses of folders, ending in a slash, tried in this order.
        folder: Where the file goes; created if missing.
        check: Called with the downloaded file; raises DataError if it is not the right one.

    Raises:
        Absent: If no mirror has the right file; the message names each and what went wrong.
    """
    require_online()
    failures = []
    for mirror in mirrors:
        try:
            with whole_files(folder, name) as temporary:
                download(mirror + name, temporary / name)
                check(temporary / name)
            return folder / name
        except OSError as error:
            failures.append(f"{mirror}: {error.strerror or type(error).__name__}")
        except DataError as error:
            failures.append(f"{mirror}: {error}")
    raise Absent(f"downloading {name} failed ({'; '.join(failures)})")
