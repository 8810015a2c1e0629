"""One episode: the loop between the simulator and the policy.

1. Reset the simulator by the episode's seed.
2. When the chunk is used up, observe: the only moment at which anything is rendered.
3. Ask the policy, with the noise seed of (run seed, episode seed, chunk index).
4. Run the chunk's next action, clipped to the controller's bounds.
5. Note success and the task's stage flags; go on at 2 until the limit, or until the first success has settled.
6. Write down what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy_protocol import EpisodeMoment, PolicySpec, noise_seed
from sim_client.episode.chunks import ChunkExecutor
from sim_client.episode.environment import Environment
from sim_client.episode.observation import build_observation, rendered_cameras
from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.episode.tally import EpisodeTally
from sim_client.policy_client import Policy

__all__ = ["EpisodeRules", "run_episode"]


@dataclass(frozen=True)
class EpisodeRules:
    """What all episodes of a run have in common."""

    spec: PolicySpec
    env_id: str
    prompt: str
    execution_horizon: int
    """Actions of a chunk that are run before the next chunk is asked for."""
    settle_steps: int | None
    """Steps run after the first success; None runs on to the limit."""
    provenance: Provenance


def run_episode(
    environment: Environment,
    policy: Policy,
    rules: EpisodeRules,
    index: int,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> EpisodeRecord:
    """Run one episode to its end.

    Args:
        index: its place in the run's list, from 0.
        seed: its reset seed.
        on_step: called with the number of steps done.

    Raises:
        ChunkwireError: the policy or the simulator failed; the episode is void.
    """
    tally, chunk = EpisodeTally(rules.spec, environment), ChunkExecutor(rules.execution_horizon)
    cameras = rendered_cameras(rules.spec, environment.cameras)
    with tally.spending("simulate"):
        environment.reset(seed)
    while not tally.is_over(rules.settle_steps):
        if chunk.used_up:
            with tally.spending("render"):
                seen = environment.observe(cameras)
            observation = build_observation(rules.spec, seen, rules.prompt)
            tally.drift.see(observation)
            with tally.spending("wait"):
                reply = policy.infer(
                    observation,
                    noise_seed=noise_seed(rules.provenance.run_seed, seed, chunk.chunks),
                    episode=EpisodeMoment(rules.env_id, seed, tally.steps),
                )
            tally.answered(reply)
            chunk.load(reply.actions)
        action = tally.clip(chunk.next_action())
        with tally.spending("simulate"):
            tally.stepped(environment.step(action))
        on_step(tally.steps)
    return tally.record(index, seed, rules.env_id, rules.provenance)
