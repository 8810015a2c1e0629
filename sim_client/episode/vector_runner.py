"""A wave of episodes: the loop between a simulator of many environments and the policy.

1. Reset every environment, each by its own episode's seed. Environments without an episode repeat the last one's.
2. Observe once for all episodes that want a chunk: the only moment at which anything is rendered.
3. Ask for all of them together, each row with its own noise seed.
4. Step all environments: with the next action where an episode runs, holding still where it is over.
5. Let each episode note its own result; write down those that are over, and never look at their environment again.
6. Go on at 2 until all are over.

The rules are `Episode`'s, one object for each, so that an episode is the same alone and beside others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sim_client.episode.batched_question import ask_together
from sim_client.episode.episode import Episode
from sim_client.episode.hold import hold_action
from sim_client.episode.keepsakes import NOTHING, EpisodeKeepsakes, Keepsakes
from sim_client.episode.record import EpisodeRecord
from sim_client.episode.rules import EpisodeRules
from sim_client.episode.vector_environment import VectorEnvironment
from sim_client.episode.video import VideoRules
from sim_client.errors import InvalidOption
from sim_client.policy_client import Policy

__all__ = ["require_no_film", "run_episodes"]


def run_episodes(
    environment: VectorEnvironment,
    policy: Policy,
    rules: EpisodeRules,
    episodes: Sequence[tuple[int, int]],
    on_step: Callable[[int, int], None] = lambda index, steps: None,
    keepsakes: Keepsakes = NOTHING,
) -> Iterator[EpisodeRecord]:
    """Run a wave of episodes to its end; each is yielded once, as soon as it is over.

    Args:
        episodes: place in the run's list from 0, and reset seed, of at most `environment.num_envs` episodes.
        on_step: called with an episode's place and its number of steps done.
        keepsakes: what is kept beside the records; no films.

    Raises:
        InvalidOption: films are wanted.
        RecordsError: a keepsake cannot be written.
        ChunkwireError: the policy or the simulator failed; every episode that was not yielded is void.
    """
    assert len(episodes) <= environment.num_envs, "a wave has no more episodes than environments"
    require_no_film(keepsakes.video)
    if not episodes:
        return
    with ExitStack() as kept:
        wave = _Wave(environment, policy, rules, _runs(environment, rules, episodes, keepsakes, kept))
        while wave.running:
            with wave.booking():
                wave.advance()
            for run in wave.running:
                on_step(run.episode.index, run.episode.steps)
            yield from wave.take_finished()


def require_no_film(video: VideoRules) -> None:
    """Raises `InvalidOption` when films are wanted: a film camera stands in one scene, and here are many."""
    if video.which != "none":
        raise InvalidOption(
            f"--video {video.which} cannot film environments that are simulated together on a GPU. Leave it out, or "
            "pass --sim-backend cpu to film the same seeds.",
            field="--video",
        )


@dataclass
class _Run:
    """An episode in its environment."""

    env: int
    episode: Episode
    kept: EpisodeKeepsakes
    total_s: float = 0.0
    """Its share of the wave's wall time."""


def _runs(
    environment: VectorEnvironment,
    rules: EpisodeRules,
    episodes: Sequence[tuple[int, int]],
    keepsakes: Keepsakes,
    kept: ExitStack,
) -> list[_Run]:
    control_freq = environment.settings.control_freq
    return [
        _Run(
            env,
            Episode(rules, environment, index, seed),
            kept.enter_context(keepsakes.of_episode(index, seed, control_freq)),
        )
        for env, (index, seed) in enumerate(episodes)
    ]


class _Wave:
    """The episodes that run, and what each environment does next."""

    def __init__(
        self,
        environment: VectorEnvironment,
        policy: Policy,
        rules: EpisodeRules,
        runs: list[_Run],
    ) -> None:
        self._environment, self._policy, self._rules = environment, policy, rules
        self.running = runs
        self._last = len(runs) - 1
        shape = (environment.num_envs, *environment.action_low.shape)
        self._actions: Float32[np.ndarray, "env action_dim"] = np.zeros(shape, np.float32)
        with self.booking(), self._sharing("simulate", self.running):
            seeds = [run.episode.seed for run in runs]
            environment.reset([*seeds, *seeds[-1:] * (environment.num_envs - len(seeds))])

    def advance(self) -> None:
        """One step of all environments, with a chunk before it where one is wanted."""
        if asking := [run for run in self.running if run.episode.wants_chunk]:
            self._ask(asking)
        for run in self.running:
            self._actions[run.env] = run.episode.next_action()
        self._actions[self._last + 1 :] = self._actions[self._last]
        with self._sharing("simulate", self.running):
            results = self._environment.step(self._actions)
        for run in self.running:
            run.episode.stepped(results.row(run.env))

    def take_finished(self) -> Iterator[EpisodeRecord]:
        """Close the episodes that are over; from now on their robots hold still."""
        finished = [run for run in self.running if run.episode.is_over]
        self.running = [run for run in self.running if not run.episode.is_over]
        names, control_mode = self._rules.spec.action.names, self._environment.settings.control_mode
        for run in finished:
            self._actions[run.env] = hold_action(control_mode, names, self._actions[run.env])
        for run in finished:
            record = run.episode.record(run.total_s)
            run.kept.keep(record)
            yield record

    def _ask(self, asking: Sequence[_Run]) -> None:
        with self._sharing("render", asking):
            seen = self._environment.observe(asking[0].episode.cameras, [run.env for run in asking])
        questions = [run.episode.observed(seen.row(row)) for row, run in enumerate(asking)]
        with self._sharing("wait", asking):
            chunks = ask_together(self._policy, questions)
        for run, question, chunk in zip(asking, questions, chunks, strict=True):
            run.episode.answered(chunk)
            run.kept.answered(question, chunk)

    @contextmanager
    def _sharing(self, kind: str, runs: Sequence[_Run]) -> Iterator[None]:
        """Book the time of a block, in equal parts, for the episodes that it was spent on."""
        began = time.perf_counter()
        yield
        share = (time.perf_counter() - began) / len(runs)
        for run in runs:
            run.episode.spent(kind, share)

    @contextmanager
    def booking(self) -> Iterator[None]:
        """Book the time of a block, in equal parts, as wall time of the episodes that run."""
        began, runs = time.perf_counter(), self.running
        yield
        share = (time.perf_counter() - began) / len(runs)
        for run in runs:
            run.total_s += share
