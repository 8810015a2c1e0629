"""Random questions that a policy understands, made from its spec alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from policy_protocol import EpisodeMoment, InferRequest, Observation, PolicySpec

__all__ = ["Questions", "random_observations"]

_PROMPT = "pick up the red cube"


def random_observations(spec: PolicySpec, batch: int | None, count: int) -> list[Observation]:
    """Observations that the policy understands: noise for images, states within the training quantiles.

    Args:
        batch: leading axis of every array; None for none.
        count: how many.
    """
    random = np.random.default_rng(0)
    lead = () if batch is None else (batch,)
    return [_observation(spec, random, lead) for _ in range(count)]


class Questions:
    """An endless row of requests of one client.

    Args:
        spec: the policy's.
        observations: asked one after the other, again and again; drawing new ones would measure the client.
        batch: their leading axis.
        client: another number, another row.
    """

    def __init__(
        self, spec: PolicySpec, observations: Sequence[Observation], batch: int | None = None, client: int = 0
    ) -> None:
        self._observations, self._batch, self._client = observations, batch, client
        self._moment = _moment(spec)
        self._asked = 0

    def next(self) -> InferRequest:
        """The next request, with a noise seed of its own."""
        number, self._asked = self._asked, self._asked + 1
        return InferRequest(
            id=number,
            observation=self._observations[(self._client + number) % len(self._observations)],
            noise_seed=self._client << 32 | number,
            batch=self._batch,
            episode=self._moment,
        )


def _observation(spec: PolicySpec, random: np.random.Generator, lead: tuple[int, ...]) -> Observation:
    wanted = spec.observation
    observation: dict[str, Any] = {
        camera.key: random.integers(0, 256, (*lead, camera.height, camera.width, 3), np.uint8)
        for camera in wanted.cameras
    }
    state, begin = _state(spec, random, lead), 0
    for key, width in wanted.state.vectors:
        observation[key] = state[..., begin : begin + width]
        begin += width
    prompts = wanted.prompt.trained or (wanted.prompt.default or _PROMPT,)
    return {**observation, wanted.prompt.key: prompts[random.integers(len(prompts))]}


def _state(
    spec: PolicySpec, random: np.random.Generator, lead: tuple[int, ...]
) -> Float32[np.ndarray, "*batch state_dim"]:
    state = spec.observation.state
    low, high = (state.q01, state.q99) if state.q01 and state.q99 else (-1.0, 1.0)
    return random.uniform(low, high, (*lead, state.dimension)).astype(np.float32)


def _moment(spec: PolicySpec) -> EpisodeMoment | None:
    """A recorded one, so that a replay has an answer."""
    simulation = spec.simulation
    if simulation is None or not simulation.demonstration_seeds:
        return None
    return EpisodeMoment(simulation.env_ids[0], simulation.demonstration_seeds[0], 0)
