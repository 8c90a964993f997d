"""An exported model on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from unidiff.errors import RunError
from unidiff.interop.diffusers.export import exported_entries
from unidiff.pretrained import require_name
from unidiff.search_paths import Absent, require_online

__all__ = ["push"]


def push(directory: str | Path, name: str, *, private: bool = False) -> str:
    """Upload what `export` wrote, and nothing else; the address of the model on the hub.

    The token is that of the hub's own client: `hf auth login`, or the environment variable HF_TOKEN.

    Args:
        directory: The folder.
        name: OWNER/NAME of the model; it is created if there is none, and gets a new version otherwise.
        private: Whether a model that is created is private.

    Raises:
        RunError: If the folder is not an exported model, downloads are switched off, or the hub refuses.
    """
    folder = Path(directory)
    require_name(name)
    entries = exported_entries(folder)
    try:
        require_online()
    except Absent as error:
        raise RunError(f"{name}: {error}, and uploads with them.") from error
    from huggingface_hub import HfApi

    api = HfApi()
    patterns = [f"{entry}/*" if os.path.isdir(folder / entry) else entry for entry in entries]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=patterns, commit_message="Upload of unidiff push"
        )
    except Exception as error:  # of the network or of the hub
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "Log in with `hf auth login`, as an account that may write there"
        raise RunError(f"{name} cannot be uploaded to the Hugging Face hub ({reason}). {remedy}.") from error
    return f"https://huggingface.co/{name}"
