"""One episode: the loop between the simulator and the policy.

1. Reset the simulator by the episode's seed.
2. When a chunk is wanted, observe: the only moment at which anything is rendered.
3. Ask the policy, with the noise seed of (run seed, episode seed, chunk index).
4. Run the next action, clipped to the controller's bounds.
5. Note success and the task's stage flags; go on at 2 until the limit, or until the first success has settled.
6. Write down what happened; a film and a log of what was sent are kept if they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable

from sim_client.episode.environment import Environment
from sim_client.episode.episode import Episode
from sim_client.episode.keepsakes import NOTHING, Keepsakes
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
    keepsakes: Keepsakes = NOTHING,
) -> EpisodeRecord:
    """Run one episode to its end.

    Args:
        index: its place in the run's list, from 0.
        seed: its reset seed.
        on_step: called with the number of steps done.
        keepsakes: what is kept beside the record that is returned.

    Raises:
        RecordsError: a keepsake cannot be written.
        ChunkwireError: the policy or the simulator failed; the episode is void, and nothing of it is kept.
    """
    episode = Episode(rules, environment, index, seed)
    with keepsakes.of_episode(index, seed, environment.settings.control_freq) as kept:
        with episode.spending("simulate"):
            environment.reset(seed)
        with episode.spending("film"):
            kept.moved(episode.steps, episode.is_over, environment.film)
        while not episode.is_over:
            if episode.wants_chunk:
                with episode.spending("render"):
                    seen = environment.observe(episode.cameras)
                ask = episode.observed(seen)
                with episode.spending("wait"):
                    chunk = policy.infer(ask.observation, noise_seed=ask.noise_seed, episode=ask.moment)
                episode.answered(chunk)
                kept.answered(ask, chunk)
            action = episode.next_action()
            with episode.spending("simulate"):
                result = environment.step(action)
            episode.stepped(result)
            with episode.spending("film"):
                kept.moved(episode.steps, episode.is_over, environment.film)
            on_step(episode.steps)
        record = episode.record()
        kept.keep(record)
    return record
