"""Several episodes' questions in one request.

Each row has the noise seed and the moment of its own episode, so it gets the chunk that it would get alone: how
questions are put together changes nothing but the time that they take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from policy_protocol import ActionChunk, Observation
from sim_client.episode.question import Question
from sim_client.policy_client import Policy

__all__ = ["ask_together"]

_MOST_BYTES = 32 * 2**20
"""Of one request: half of what a policy server takes by default."""


def ask_together(policy: Policy, questions: Sequence[Question]) -> list[ActionChunk]:
    """A chunk for each question, in their order; more than one request only where 32 MB do not hold them.

    Args:
        questions: at least one, all of the same spec: their observations have the same keys and shapes.

    Raises:
        ChunkwireError: the policy did not answer; none of them is answered then.
    """
    began = time.perf_counter()
    requests = list(_requests(questions))
    chunks = [chunk for together in requests for chunk in _ask(policy, together)]
    if len(requests) == 1:
        return chunks
    waited_ms = 1000 * (time.perf_counter() - began)  # every episode waits for the last of them
    return [replace(chunk, timing={**chunk.timing, "round_trip_ms": waited_ms}) for chunk in chunks]


def _requests(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    row_bytes = sum(np.asarray(value).nbytes for value in questions[0].observation.values())
    rows = max(1, _MOST_BYTES // row_bytes)
    for start in range(0, len(questions), rows):
        yield questions[start : start + rows]


def _ask(policy: Policy, questions: Sequence[Question]) -> list[ActionChunk]:
    chunk = policy.infer(
        _stacked([question.observation for question in questions]),
        noise_seed=tuple(question.noise_seed for question in questions),
        episode=tuple(question.moment for question in questions),
        batch=len(questions),
    )
    return [replace(chunk, actions=actions) for actions in chunk.actions]


def _stacked(rows: Sequence[Observation]) -> dict[str, Any]:
    """Arrays get a leading axis; texts become a list."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: values if isinstance(values[0], str) else np.stack(values) for key, values in columns.items()}
