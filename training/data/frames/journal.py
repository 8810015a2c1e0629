"""What an unfinished frame cache has already: one line for each decoded episode, so that a killed build goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from training.data.frames.manifest import DecodedEpisode, checksum

__all__ = ["Journal"]


class Journal:
    """The episodes that are decoded so far, in order.

    Args:
        path: where it is kept.
        fingerprint: of the dataset; the journal of another one is begun anew.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.episodes: list[DecodedEpisode] = []

    def resume(self, images: UInt8[np.ndarray, "frames height width 3"]) -> None:
        """Believe the lines whose frames are really there, up to the first that is torn or wrong."""
        try:
            header, *lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return self.clear()
        if header != self.fingerprint:
            return self.clear()
        for line in lines:
            episode = _parse(line)
            if episode is None or checksum(images[episode.start : episode.stop]) != episode.checksum:
                break
            self.episodes.append(episode)
        return self._rewrite()

    def add(self, episode: DecodedEpisode) -> None:
        """Note an episode whose frames are on disk."""
        self.episodes.append(episode)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(episode))

    def clear(self) -> None:
        """Begin anew."""
        self.episodes = []
        self._rewrite()

    def _rewrite(self) -> None:
        fresh = self.path.with_suffix(".journal.new")
        fresh.write_text(f"{self.fingerprint}\n" + "".join(map(_line, self.episodes)), encoding="utf-8")
        fresh.replace(self.path)


def _line(episode: DecodedEpisode) -> str:
    return json.dumps(to_json(episode)) + "\n"


def _parse(line: str) -> DecodedEpisode | None:
    try:
        return from_json(DecodedEpisode, json.loads(line))
    except (ValueError, SpecInvalid):
        return None
