"""Collecting demonstrations from start to finish: look at what is there, run the workers, write the file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from sim_client.collect.crew import Crew
from sim_client.collect.parts import Parts, SimulatorDescription
from sim_client.collect.progress import CollectionProgress
from sim_client.collect.request import CollectionRequest, require_same
from sim_client.collect.selection import chosen_seeds, next_seed, require_hope
from sim_client.errors import CollectionError
from sim_client.tasks import task
from sim_client.trajectories import merge_episodes, split_episode
from sim_client.trajectory_facts import (
    EpisodeFacts,
    SimulationFacts,
    TrajectoryFacts,
    facts_path,
    read_facts,
    write_facts,
)

__all__ = ["Collection", "collect"]

ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper")
"""`pd_ee_delta_pose`: move and turn of the hand in the robot's base frame, then the gripper (1 open, -1 closed)."""

_PACKAGES = ("chunkwire", "mani_skill", "sapien", "mplib", "torch", "numpy")


@dataclass(frozen=True)
class Collection:
    """A finished trajectory file."""

    path: Path
    """The `.h5`; the facts are in the `.json` beside it."""
    facts: TrajectoryFacts
    """What the JSON says."""
    already_complete: bool
    """Nothing had to be done."""


def collect(
    request: CollectionRequest,
    out: Path,
    *,
    workers: int = 2,
    overwrite: bool = False,
    console: Console | None = None,
) -> Collection:
    """Collect the first `request.episodes` seeds that the motion planner solves, each kept whole.

    The result is the same for any number of workers, and after any interruption: what was finished stays in
    `<out>.parts/` and is used by the next call.

    Args:
        request: what to collect.
        out: the `.h5` file to make.
        workers: processes.
        overwrite: throw away what is there.
        console: for progress; a new one by default.

    Raises:
        CollectionError: bad arguments, something else at `out`, or a planner that hardly ever succeeds.
        SimulationError: the simulator cannot be set up here.
        KeyboardInterrupt: after the workers have ended.
    """
    console = console or Console()
    _require_arguments(out, workers)
    parts = Parts(out)
    if overwrite:
        _remove(out, parts)
    existing = _existing(out, parts, request)
    if existing is not None and len(existing.episodes) == request.episodes:
        parts.remove()  # left when a run was killed in its last moment
        console.out(f"{out} is complete: {request.episodes} demonstrations of {request.env_id}.")
        return Collection(out, existing, already_complete=True)
    parts.open(request)
    try:
        if existing is not None:
            _adopt(out, existing, parts)
        facts = _finish(request, out, parts, _collect_parts(request, parts, workers, console))
    finally:
        parts.close()
    console.out(_summary(out, facts))
    return Collection(out, facts, already_complete=False)


def _require_arguments(out: Path, workers: int) -> None:
    if out.suffix != ".h5":
        raise CollectionError(f"--out must end in .h5, not {out.name!r}. Pass --out {out.with_suffix('.h5')}.")
    if workers < 1:
        raise CollectionError(f"--workers must be at least 1, not {workers}.")


def _remove(out: Path, parts: Parts) -> None:
    """The JSON goes first: without it, an `.h5` is never taken for complete."""
    facts_path(out).unlink(missing_ok=True)
    out.unlink(missing_ok=True)
    parts.remove()


def _existing(out: Path, parts: Parts, request: CollectionRequest) -> TrajectoryFacts | None:
    """The facts of a finished file at `out` that the request can build on."""
    if facts_path(out).exists() and out.exists():
        facts = read_facts(out)
        require_same(CollectionRequest.of(facts), request, out)
        return facts
    if out.exists() and not parts.directory.exists():
        raise CollectionError(
            f"{out} exists, but {facts_path(out).name}, which describes collected demonstrations, does not. "
            "Pass another --out, or --overwrite to replace the file."
        )
    return None


def _adopt(out: Path, facts: TrajectoryFacts, parts: Parts) -> None:
    """Begin a larger collection with the episodes of the smaller one."""
    simulation = facts.simulation
    for episode in facts.episodes:
        split_episode(out, episode.episode_id, episode.episode_seed, parts.episode_path(episode.episode_seed))
    for seed, reason in simulation.failed_seeds.items():
        parts.fail(int(seed), reason)
    parts.description = SimulatorDescription(
        simulation.cameras, simulation.action_low, simulation.action_high, simulation.state_sources
    )


def _collect_parts(request: CollectionRequest, parts: Parts, workers: int, console: Console) -> dict[int, str | None]:
    """Run workers until the first `request.episodes` successes are known; every finished seed with its outcome."""
    outcomes = parts.outcomes()
    first, wanted = request.seed, request.episodes
    require_hope(outcomes, request.env_id)
    if chosen_seeds(outcomes, first, wanted) is not None:
        return outcomes
    kept = sum(reason is None for reason in outcomes.values())

    def described(description: SimulatorDescription) -> None:
        parts.description = description

    crew = Crew(request, parts.directory, min(workers, max(1, wanted - kept)), described)
    try:
        with CollectionProgress(console, request.env_id, wanted, kept, len(outcomes) - kept) as progress:
            for seed, reason in crew.run(lambda busy: next_seed(outcomes, busy, first, wanted)):
                outcomes[seed] = reason
                if reason is not None:
                    parts.fail(seed, reason)
                progress.finished(seed, reason)
                if chosen_seeds(outcomes, first, wanted) is not None:
                    break
                require_hope(outcomes, request.env_id)
    except KeyboardInterrupt:
        console.out(
            f"Interrupted. {sum(reason is None for reason in outcomes.values())} of {wanted} demonstrations are kept "
            f"in {parts.directory}; run the same command again to go on."
        )
        raise
    finally:
        crew.stop()
    return outcomes


def _finish(request: CollectionRequest, out: Path, parts: Parts, outcomes: dict[int, str | None]) -> TrajectoryFacts:
    """Write the file, then its facts, then drop the parts: killed anywhere in between, the next run repeats this."""
    seeds, description = chosen_seeds(outcomes, request.seed, request.episodes), parts.description
    assert seeds is not None
    assert description is not None
    lengths = merge_episodes([parts.episode_path(seed) for seed in seeds], out)
    simulation = _simulation_facts(request, description, outcomes, last=seeds[-1])
    episodes = tuple(
        EpisodeFacts(index, seed, simulation.control_mode, length, success=True)
        for index, (seed, length) in enumerate(zip(seeds, lengths, strict=True))
    )
    facts = TrajectoryFacts(simulation, episodes)
    write_facts(out, facts)
    parts.remove()
    return facts


def _simulation_facts(
    request: CollectionRequest, description: SimulatorDescription, outcomes: dict[int, str | None], last: int
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
        cameras=description.cameras,
        action_names=ACTION_NAMES,
        action_low=description.action_low,
        action_high=description.action_high,
        state_sources=description.state_sources,
        frame_stride=request.frame_stride,
        max_episode_steps=settings.max_episode_steps,
        base_seed=request.seed,
        attempted_seeds=tuple(attempted),
        failed_seeds={str(seed): reason for seed in attempted if (reason := outcomes[seed]) is not None},
        versions={package: _version(package) for package in _PACKAGES},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _summary(out: Path, facts: TrajectoryFacts) -> str:
    lengths = sorted(episode.elapsed_steps for episode in facts.episodes)
    tried = len(facts.simulation.attempted_seeds)
    return (
        f"Wrote {out}: {len(lengths)} demonstrations of {facts.simulation.env_id} from {tried} seeds, "
        f"{lengths[0]} to {lengths[-1]} steps (median {lengths[len(lengths) // 2]})."
    )
