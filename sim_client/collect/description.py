"""What is written down about a finished collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim_client.collect.request import CollectionRequest
from sim_client.collect.trajectory_facts import EpisodeFacts, SimulationFacts, TrajectoryFacts
from sim_client.simulator import SimulatorDescription
from sim_client.tasks import task
from sim_client.versions import installed_versions

__all__ = ["ACTION_NAMES", "describe"]

ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper")
"""`pd_ee_delta_pose`: move and turn of the hand in the robot's base frame, then the gripper (1 open, -1 closed)."""


def describe(
    request: CollectionRequest,
    simulator: SimulatorDescription,
    outcomes: Mapping[int, str | None],
    seeds: Sequence[int],
    lengths: Sequence[int],
) -> TrajectoryFacts:
    """The facts of a collection.

    Args:
        request: what was asked for.
        simulator: where it was recorded.
        outcomes: every finished seed, with the reason if it gave no demonstration.
        seeds: of the demonstrations, in their order in the file.
        lengths: actions of each demonstration.
    """
    simulation = _simulation(request, simulator, outcomes, last=seeds[-1])
    episodes = (
        EpisodeFacts(index, seed, simulation.control_mode, length, success=True)
        for index, (seed, length) in enumerate(zip(seeds, lengths, strict=True))
    )
    return TrajectoryFacts(simulation, tuple(episodes))


def _simulation(
    request: CollectionRequest, simulator: SimulatorDescription, outcomes: Mapping[int, str | None], last: int
) -> SimulationFacts:
    settings = request.settings()
    attempted = range(request.seed, last + 1)
    return SimulationFacts(
        env_id=request.env_id,
        prompt=task(request.env_id).prompt,
        robot_uids=settings.robot_uids,
        control_mode=settings.control_mode,
        sim_freq=settings.sim_freq,
        control_freq=settings.control_freq,
        camera_height=settings.camera_height,
        camera_width=settings.camera_width,
        cameras=simulator.cameras,
        action_names=ACTION_NAMES,
        action_low=simulator.action_low,
        action_high=simulator.action_high,
        state_sources=simulator.state_sources,
        frame_stride=request.frame_stride,
        max_episode_steps=settings.max_episode_steps,
        base_seed=request.seed,
        attempted_seeds=tuple(attempted),
        failed_seeds={str(seed): reason for seed in attempted if (reason := outcomes[seed]) is not None},
        versions=installed_versions(),
        render_backend=request.render_backend,
        skip_blocked=request.skip_blocked,
    )
