"""From a question to the rows that wait for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_server.policies.replay import ReplayPolicy
from policy_server.policies.served import ServedPolicy
from policy_server.session import Question

__all__ = ["prepared_rows"]


def prepared_rows(policy: ServedPolicy, question: Question) -> Sequence[Any]:
    """A row for each observation of the question. Only a replay is told the episode; a model never sees it.

    Raises:
        InvalidObservation: the policy cannot take one of them.
    """
    observations = question.observations
    if isinstance(policy, ReplayPolicy):
        return [policy.recall(observation, question.episode, row) for row, observation in enumerate(observations)]
    return [policy.transform(observation) for observation in observations]
