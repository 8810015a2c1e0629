"""From a question to the rows that wait for the device, without holding up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from policy_server.policies.jpeg import decoded
from policy_server.policies.replay import ReplayPolicy
from policy_server.policies.served import ServedPolicy
from policy_server.session import Question

__all__ = ["Preparation"]

_AT_ONCE_S = 0.5e-3
"""What takes less is done on the event loop: the way to a thread and back takes about as long."""
_AT_ONCE_BYTES = 1 << 20
"""A larger request goes to a thread whatever the last ones took: an image may have any size."""


class Preparation:
    """Puts questions through the policy's transforms: quick ones at once, slow ones on a thread."""

    def __init__(self, policy: ServedPolicy) -> None:
        self._policy = policy
        self._row_s = float("inf")
        """What a row took lately."""

    async def rows(self, question: Question) -> Sequence[Any]:
        """A row for each observation of the question.

        Raises:
            InvalidObservation: the policy cannot take one of them.
        """
        observations = question.observations
        if len(observations) * self._row_s < _AT_ONCE_S and _size(question) <= _AT_ONCE_BYTES:
            return self._prepared(question)
        return await asyncio.to_thread(self._prepared, question)

    def _prepared(self, question: Question) -> Sequence[Any]:
        begun = time.perf_counter()
        rows = self._transformed(question)
        took = (time.perf_counter() - begun) / len(rows)
        self._row_s = took if self._row_s == float("inf") else 0.8 * self._row_s + 0.2 * took
        return rows

    def _transformed(self, question: Question) -> Sequence[Any]:
        """Only a replay is told the episode; a model never sees it."""
        policy, episode = self._policy, question.episode
        cameras = {camera.key: camera for camera in policy.spec.observation.cameras}
        observations = [decoded(observation, cameras) for observation in question.observations]
        if isinstance(policy, ReplayPolicy) and isinstance(episode, tuple):
            return [policy.recall(*row) for row in zip(observations, episode, strict=True)]
        if isinstance(policy, ReplayPolicy):
            return [policy.recall(observation, episode, row) for row, observation in enumerate(observations)]
        return [policy.transform(observation) for observation in observations]


def _size(question: Question) -> int:
    """Bytes of the arrays and characters of the text; JPEGs and what hides in maps or lists count as too much."""
    size = 0
    for observation in question.observations:
        for value in observation.values():
            if isinstance(value, np.ndarray):
                size += value.nbytes
            elif isinstance(value, str | bytes):
                size += len(value)
            elif not isinstance(value, int | float):
                return _AT_ONCE_BYTES + 1
    return size
