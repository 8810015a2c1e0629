"""One episode of a recording, read and encoded by itself: what conversion does in parallel and never twice.

Each finished episode lies in a file of its own beside the growing dataset until that is complete, so a conversion that
was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy_protocol.spec import StateField
from training.data.conversion.demonstrations import Demonstration, Demonstrations
from training.data.conversion.recording import EpisodeEntry, GivenFacts
from training.data.lerobot.writing.encoded_frames import EncodedFrames, encode_frames
from training.data.lerobot.writing.statistics import ColourHistogram

__all__ = ["EpisodeParts", "PartJob", "prepare_part", "read_part"]


@dataclass(frozen=True)
class PartJob:
    """What a worker needs to know to prepare one episode."""

    recording: Path
    given: GivenFacts | None
    entry: EpisodeEntry
    fields: tuple[StateField, ...]
    drop_idle_start: bool
    encode: bool
    """As PNG; frames of a video are encoded when they are written, one behind the other."""
    part: Path


class EpisodeParts:
    """The folder of finished episodes beside a dataset `out`.

    Args:
        out: the dataset's folder.
        sources: the recordings; parts of recordings that changed since, or of other settings, are not used.
        fields: parts of the state.
        drop_idle_start: whether idle steps at the start are left out.
        encode: whether frames are PNGs.
    """

    def __init__(
        self, out: Path, sources: Sequence[Path], fields: Sequence[StateField], drop_idle_start: bool, encode: bool
    ) -> None:
        self.root = out.parent / f".{out.name}.parts"
        described = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        key = hashlib.sha256(repr((described, tuple(fields), drop_idle_start, encode)).encode()).hexdigest()[:16]
        self._folder = self.root / key
        for other in self.root.glob("*"):
            if other != self._folder:
                shutil.rmtree(other)
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, recording: int, entry: EpisodeEntry) -> Path:
        """Where an episode of a recording lies once it is prepared."""
        return self._folder / f"{recording}-{entry.group}.npz"

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.root, ignore_errors=True)


def prepare_part(job: PartJob) -> Path:
    """Read and encode an episode unless that is done; returns its file.

    Raises:
        DemonstrationsInvalid: the episode is damaged; names the file and the part.
    """
    if not job.part.exists():
        with Demonstrations(job.recording, job.given) as demonstrations:
            read = demonstrations.read(job.entry, job.fields, drop_idle_start=job.drop_idle_start)
            arrays = _arrays(read, job.encode)
        fresh = job.part.with_suffix(".new.npz")
        np.savez(fresh, **arrays)
        fresh.replace(job.part)
    return job.part


def read_part(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | EncodedFrames]]:
    """The columns `state`, `actions` and `frame_rendered` of a prepared episode, and its frames by camera."""
    with np.load(path) as arrays:
        columns = {name: arrays[name] for name in ("state", "actions", "frame_rendered")}
        cameras = dict.fromkeys(name.rpartition(".")[0] for name in arrays.files if "." in name)
        return columns, {camera: _frames(arrays, camera) for camera in cameras}


def _arrays(demonstration: Demonstration, encode: bool) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "state": demonstration.state,
        "actions": demonstration.actions,
        "frame_rendered": demonstration.frame_rendered,
    }
    for camera, frames in demonstration.frames.items():
        if not encode:
            arrays[f"{camera}.frames"] = frames
            continue
        encoded = encode_frames(frames)
        arrays[f"{camera}.pngs"] = np.frombuffer(b"".join(encoded.pngs), dtype=np.uint8)
        arrays[f"{camera}.stops"] = np.cumsum([len(png) for png in encoded.pngs])
        arrays[f"{camera}.size"] = np.array(encoded.size)
        arrays[f"{camera}.colours"] = encoded.colours.counts
    return arrays


def _frames(arrays: Mapping[str, np.ndarray], camera: str) -> np.ndarray | EncodedFrames:
    if f"{camera}.frames" in arrays:
        return arrays[f"{camera}.frames"]
    data, stops = arrays[f"{camera}.pngs"].tobytes(), arrays[f"{camera}.stops"].tolist()
    pngs = [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    height, width = arrays[f"{camera}.size"].tolist()
    return EncodedFrames(pngs, (height, width), ColourHistogram(arrays[f"{camera}.colours"], len(pngs)))
