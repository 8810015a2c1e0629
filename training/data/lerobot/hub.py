"""Datasets named by their id on the Hugging Face Hub, downloaded on first use (the `lerobot` extra)."""

from __future__ import annotations

import re
from pathlib import Path

from training.data.errors import HubUnavailable

__all__ = ["find_dataset"]

_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?")
_NEEDED = ("meta/*", "data/*", "videos/*", "images/*")


def find_dataset(name: str) -> Path:
    """The folder of a dataset: the path itself, or a download of the Hub id `OWNER/NAME` or `OWNER/NAME@REVISION`.

    A download that was cut off goes on, and one that is complete is only compared with the Hub. It lies in the Hub's
    own cache (`HF_HOME`); `HF_ENDPOINT` names another server.

    Raises:
        HubUnavailable: the extra is not installed, or the Hub does not answer or has no such dataset.
    """
    path, match = Path(name), _ID.fullmatch(name)
    # A folder that is there is meant, even where the dataset in it is not; `datasets` can be no owner on the Hub.
    if match is None or path.exists() or path.parent.is_dir() or path.parts[0] == "datasets":
        return path
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise HubUnavailable(
            f"There is no folder {name}, and to download it from the Hugging Face Hub needs an extra: "
            "pip install 'chunkwire[lerobot]'"
        ) from error
    try:
        return Path(
            snapshot_download(match["id"], repo_type="dataset", revision=match["revision"], allow_patterns=_NEEDED)
        )
    except Exception as error:  # whatever its HTTP library raises is not part of its interface
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HubUnavailable(
            f"There is no folder {name}, and the Hugging Face Hub did not give it: {reason} Check the name and the "
            "network; a private dataset needs HF_TOKEN."
        ) from error
