"""From a question to the rows that wait for the device, without holding up the event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policy_protocol.errors import DeadlineExceeded
from policy_protocol.messages import Observation
from policy_server.policies.jpeg import decoded
from policy_server.policies.replay import ReplayPolicy
from policy_server.policies.served import ServedPolicy
from policy_server.session import Question
from policy_server.short_work import short_work

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

    async def rows(self, question: Question, expires: float) -> Sequence[Any]:
        """A row for each observation of the question. Ends early, between two rows, when it is cancelled.

        Args:
            expires: moment of `time.perf_counter` after which nobody wants the answer.

        Raises:
            InvalidObservation: the policy cannot take one of them.
            DeadlineExceeded: the moment has passed.
        """
        observations = question.observations
        if len(observations) * self._row_s < _AT_ONCE_S and _size(question) <= _AT_ONCE_BYTES:
            return self._prepared(question, expires)
        given_up = threading.Event()
        return await short_work(lambda: self._prepared(question, expires, given_up.is_set), given_up.set)

    def _prepared(
        self, question: Question, expires: float, given_up: Callable[[], bool] = lambda: False
    ) -> Sequence[Any]:
        cameras = {camera.key: camera for camera in self._policy.spec.observation.cameras}
        rows: list[Any] = []
        begun = time.perf_counter()
        for number, observation in enumerate(question.observations):
            if given_up():
                return rows
            if time.perf_counter() > expires:
                raise DeadlineExceeded("The deadline passed while the request was being prepared.")
            rows.append(self._row(question, number, decoded(observation, cameras)))
        took = (time.perf_counter() - begun) / len(rows)
        self._row_s = took if self._row_s == float("inf") else 0.8 * self._row_s + 0.2 * took
        return rows

    def _row(self, question: Question, number: int, observation: Observation) -> Any:
        """Only a replay is told the episode; a model never sees it."""
        policy, episode = self._policy, question.episode
        if not isinstance(policy, ReplayPolicy):
            return policy.transform(observation)
        if isinstance(episode, tuple):
            return policy.recall(observation, episode[number])
        return policy.recall(observation, episode, number)


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
