"""One episode: the loop between the simulator and the policy.

1. Reset the simulator by the episode's seed.
2. When a chunk is wanted, observe: the only moment at which anything is rendered.
3. Ask the policy, with the noise seed of (run seed, episode seed, chunk index).
4. Run the next action, clipped to the controller's bounds.
5. Note success and the task's stage flags; go on at 2 until the limit, or until the first success has settled.
6. Write down what happened.
"""

from __future__ import annotations

from collections.abc import Callable

from sim_client.episode.environment import Environment
from sim_client.episode.episode import Episode
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.policy_client import Policy

__all__ = ["EpisodeRules", "run_episode"]


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
    episode = Episode(rules, environment, index, seed)
    with episode.spending("simulate"):
        environment.reset(seed)
    while not episode.is_over:
        if episode.wants_chunk:
            with episode.spending("render"):
                seen = environment.observe(episode.cameras)
            ask = episode.observed(seen)
            with episode.spending("wait"):
                chunk = policy.infer(ask.observation, noise_seed=ask.noise_seed, episode=ask.moment)
            episode.answered(chunk)
        action = episode.next_action()
        with episode.spending("simulate"):
            result = environment.step(action)
        episode.stepped(result)
        on_step(episode.steps)
    return episode.record()
