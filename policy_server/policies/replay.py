"""The replay policy: answers with the actions that were recorded for the request's moment, bit for bit.

Demonstrations are known to succeed: what a client does to actions on their way to the robot shows in their success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from policy_protocol.errors import InvalidObservation, SpecMismatch
from policy_protocol.messages import EpisodeMoment, Observation
from policy_protocol.spec import PolicySpec
from policy_server.policies.dummy import DummyPolicy
from policy_server.policies.recording import Recording

__all__ = ["ReplayPolicy"]


@dataclass(frozen=True)
class _Moment:
    """A row of a request: which recorded actions it is answered with."""

    seed: int
    step: int


class ReplayPolicy(DummyPolicy):
    """Replays a recording to requests that name their `episode`.

    Beyond an episode's end the robot holds still: dimensions named `delta_…` are zero, the others keep their last
    recorded value. A request with a batch and one episode gets that of its seed in row 0 and those recorded after it in
    the rows that follow.

    Args:
        recording: the demonstrations.
        spec: stands in for the recording's own, to replay in chunks of another length.

    Raises:
        SpecMismatch: the spec's actions have another width or controller than the recorded ones.
    """

    def __init__(self, recording: Recording, spec: PolicySpec | None = None) -> None:
        super().__init__(spec or recording.spec(), self._replay)
        self._recording = recording
        self._seeds = tuple(recording.actions)
        _check_fit(recording, self.spec)

    def transform(self, observation: Observation) -> _Moment:
        """Refuses the observation: it says nothing about the episode. See `recall`."""
        raise InvalidObservation(
            "The replay policy answers by the request's episode (env_id, seed, step), and this request names none. "
            "Use sim-client or PolicyClient.infer(…, episode=…); openpi's own clients cannot say it.",
            field="episode",
        )

    def recall(self, observation: Observation, episode: EpisodeMoment | None, row: int = 0) -> _Moment:
        """A prepared row.

        Args:
            observation: checked against the spec, then forgotten.
            episode: the moment of the request.
            row: position in the request's batch.

        Raises:
            InvalidObservation: no episode is named, it was not recorded, or the observation is not what the spec says.
        """
        if episode is None:
            return self.transform(observation)
        super().transform(observation)
        return _Moment(self._seed(episode, row), episode.step)

    def _seed(self, episode: EpisodeMoment, row: int) -> int:
        recording = self._recording
        if episode.env_id not in recording.facts.env_ids:
            raise InvalidObservation(
                f"{recording.source} was recorded in {', '.join(recording.facts.env_ids)}, not in {episode.env_id}.",
                field="episode.env_id",
            )
        if episode.seed not in recording.actions:
            raise InvalidObservation(
                f"{recording.source} holds no episode of reset seed {episode.seed}. It holds {self._listed}.",
                field="episode.seed",
            )
        first = self._seeds.index(episode.seed)
        if first + row >= len(self._seeds):
            raise InvalidObservation(
                f"The batch has a row {row}, but {recording.source} holds only {len(self._seeds) - first - 1} episodes "
                f"after that of seed {episode.seed}.",
                field="batch",
            )
        return self._seeds[first + row]

    @cached_property
    def _listed(self) -> str:
        shown = ", ".join(map(str, self._seeds[:40]))
        return f"the {len(self._seeds)} seeds {shown}{' …' if len(self._seeds) > 40 else ''}"

    def _replay(
        self, rows: Sequence[_Moment], noise: np.ndarray
    ) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        return np.stack([self._chunk(moment) for moment in rows])

    def _chunk(self, moment: _Moment) -> Float[np.ndarray, "action_horizon action_dim"]:
        actions, horizon = self._recording.actions[moment.seed], self.noise_shape[0]
        chunk = actions[moment.step : moment.step + horizon]
        return np.concatenate([chunk, np.repeat(self._still(actions[-1])[None], horizon - len(chunk), axis=0)])

    def _still(self, last: Float[np.ndarray, "action_dim"]) -> Float[np.ndarray, "action_dim"]:
        moves = [name.startswith("delta_") for name in self._recording.facts.action_names]
        return np.where(moves, np.zeros_like(last), last)


def _check_fit(recording: Recording, spec: PolicySpec) -> None:
    facts, action = recording.facts, spec.action
    recorded, asked = (len(facts.action_names), facts.control_mode), (action.dimension, action.control_mode)
    if recorded != asked:
        raise SpecMismatch(
            f"{recording.source} holds actions of {recorded[0]} dimensions for {recorded[1]!r}, but the spec has "
            f"{asked[0]} for {asked[1]!r}. Leave --spec out to take the recording's own."
        )
