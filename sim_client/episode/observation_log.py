"""Everything that was sent in one episode and what came back, in one file: for looking into a policy's behaviour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from policy_protocol import ActionChunk
from sim_client.episode.question import Question
from sim_client.episode.record import EpisodeRecord
from sim_client.errors import RecordsError
from sim_client.files import replacing

__all__ = ["OBSERVATIONS", "ObservationLog"]

OBSERVATIONS = "observations"
"""Folder of the logs in a results directory; a log is `seed_<seed>.npz`."""


class ObservationLog:
    """The questions and answers of one episode, written when it is over.

    `np.load(path, allow_pickle=False)` reads it. Every array has one row per question: `sent/<wire key>` (images
    uint8, state float32, prompt text), `reply/actions` (question, action_horizon, action_dim) as the server sent them,
    `step` (actions executed before), `noise_seed`.

    Args:
        folder: `observations/` of the results directory, made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: list[tuple[Question, ActionChunk]] = []

    def answered(self, question: Question, chunk: ActionChunk) -> None:
        """Note one question and its answer."""
        self._asked.append((question, chunk))

    def keep(self, record: EpisodeRecord) -> None:
        """Write the file. Raises `RecordsError`."""
        path = self._folder / f"seed_{record.seed}.npz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft, draft.open("wb") as file:
                np.savez_compressed(file, **self._arrays())
        except OSError as error:
            raise RecordsError(
                f"The observations of episode seed {record.seed} cannot be written to {path}: "
                f"{(error.strerror or str(error)).lower()}. Make room and run the same command again, "
                "or leave --save-observations out."
            ) from error

    def _arrays(self) -> dict[str, np.ndarray]:
        questions = [question for question, _ in self._asked]
        sent = {
            f"sent/{key}": np.stack([one.observation[key] for one in questions]) for key in questions[0].observation
        }
        return {
            **sent,
            "reply/actions": np.stack([chunk.actions for _, chunk in self._asked]),
            "step": np.array([one.moment.step for one in questions]),
            "noise_seed": np.array([one.noise_seed for one in questions]),
        }
