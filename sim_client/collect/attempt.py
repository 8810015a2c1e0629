"""One demonstration: plan it blind, replay it with cameras, keep it if the replay itself ends in success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from sim_client.collect.blocked import BLOCKED, is_blocked
from sim_client.collect.trajectories import Episode
from sim_client.errors import PlanningFailed
from sim_client.simulator import Planner, Simulator, SimulatorObservation, StepResult

__all__ = ["attempt"]

_HAND = "extra/tcp_pose"


@dataclass
class _Recording:
    """Rows of observations and results of steps, while the episode runs."""

    observations: list[SimulatorObservation] = field(default_factory=list)
    rendered: list[bool] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)

    def observe(self, simulator: Simulator, frame_stride: int) -> None:
        """Add a row; its images are new every `frame_stride` rows."""
        render = len(self.observations) % frame_stride == 0
        now = simulator.observe(None if render else ())
        images = now.images if render else self.observations[-1].images
        self.observations.append(SimulatorObservation(images, now.state))
        self.rendered.append(render)

    def blocked(self, actions: Float32[np.ndarray, "steps action_dim"], control_freq: int) -> bool:
        """Whether something was in the hand's way so far."""
        hand = np.stack([row.state[_HAND][:3] for row in self.observations])
        success = np.array([result.success for result in self.results])
        return is_blocked(actions[: len(success)], hand, success, control_freq)

    def episode(self, seed: int, actions: Float32[np.ndarray, "steps action_dim"]) -> Episode:
        """The rows as arrays."""
        first, results = self.observations[0], self.results
        return Episode(
            seed=seed,
            actions=actions,
            state={name: np.stack([row.state[name] for row in self.observations]) for name in first.state},
            frames={name: np.stack([row.images[name] for row in self.observations]) for name in first.images},
            frame_rendered=np.array(self.rendered),
            success=np.array([result.success for result in results]),
            stages={name: np.array([result.stages[name] for result in results]) for name in results[0].stages},
            truncated=np.array([result.truncated for result in results]),
        )


def attempt(
    simulator: Simulator,
    planner: Planner,
    seed: int,
    frame_stride: int,
    alive: Callable[[], None] = lambda: None,
    *,
    skip_blocked: bool = False,
) -> Episode:
    """The demonstration of `seed`, whole: from the reset to the last planned action, after which the task is solved.

    Args:
        simulator: renders; the actions are replayed in it open loop.
        planner: plans for the same settings.
        seed: of the reset.
        frame_stride: render every so many steps.
        alive: called now and then, so that somebody may notice when it is not.
        skip_blocked: where something is in the hand's way, plan once more from above, or give up.

    Raises:
        PlanningFailed: with the reason why this seed gives no demonstration.
    """
    episode = _replay(simulator, planner.plan(seed), seed, frame_stride, alive, skip_blocked)
    if episode is None and planner.plans_from_above:
        episode = _replay(simulator, planner.plan(seed, from_above=True), seed, frame_stride, alive, skip_blocked)
    if episode is None:
        raise PlanningFailed(BLOCKED)
    return episode


def _replay(
    simulator: Simulator,
    actions: Float32[np.ndarray, "steps action_dim"],
    seed: int,
    frame_stride: int,
    alive: Callable[[], None],
    skip_blocked: bool,
) -> Episode | None:
    """The episode of these actions; None as soon as something is in the hand's way."""
    limit = simulator.settings.max_episode_steps
    if len(actions) > limit:
        raise PlanningFailed(f"the plan takes {len(actions)} steps, more than the {limit} of an episode")
    simulator.reset(seed)
    recording = _Recording()
    recording.observe(simulator, frame_stride)
    for action in actions:
        recording.results.append(simulator.step(action))
        recording.observe(simulator, frame_stride)
        if skip_blocked and recording.blocked(actions, simulator.settings.control_freq):
            return None
        alive()
    if not recording.results[-1].success:
        raise PlanningFailed("the replay of the actions does not end in success")
    return recording.episode(seed, actions)
