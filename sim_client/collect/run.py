"""Collecting demonstrations from start to finish: look at what is there, run the workers, write the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sim_client.collect.description import describe
from sim_client.collect.parts import Parts
from sim_client.collect.progress import CollectionProgress
from sim_client.collect.request import CollectionRequest, require_same, require_same_versions
from sim_client.collect.seeds import seeds_from
from sim_client.collect.selection import chosen_seeds, next_seed, require_hope
from sim_client.collect.trajectories import merge_episodes, split_episode
from sim_client.collect.trajectory_facts import TrajectoryFacts, facts_path, read_facts, write_facts
from sim_client.collect.workshop import DemonstrationWorkshop
from sim_client.crew.processes import ProcessCrew
from sim_client.errors import CollectionError, InvalidOption, TrajectoryError
from sim_client.option_checks import require_at_least
from sim_client.simulator import SimulatorDescription
from sim_client.versions import installed_versions

__all__ = ["Collection", "collect", "summary"]


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
        console: for progress; by default standard error.

    Raises:
        InvalidOption: `out` is no `.h5`, or there are no workers.
        CollectionError: something else at `out`, or a planner that hardly ever succeeds.
        SimulationError: the simulator cannot be set up here.
        KeyboardInterrupt: after the workers have ended.
    """
    console = console or Console(stderr=True)
    _require_arguments(out, workers)
    parts = Parts(out)
    try:
        parts.lock()
        if overwrite:
            _remove(out, parts)
        return _collect(request, out, parts, workers, console)
    except OSError as error:
        raise CollectionError(
            f"Collecting to --out {out} failed: {_reason(error)}. Pass --out with a file in a folder that can be "
            "written, or make room there; what is finished is kept."
        ) from error
    finally:
        parts.close()


def _collect(request: CollectionRequest, out: Path, parts: Parts, workers: int, console: Console) -> Collection:
    existing = _existing(out, parts, request)
    if existing is not None and len(existing.episodes) == request.episodes:
        parts.clear()  # left when a run was killed in its last moment
        console.out(f"{out} is complete: {request.episodes} demonstrations of {request.env_id}.")
        return Collection(out, existing, already_complete=True)
    if existing is not None:
        require_same_versions(existing.simulation.versions, installed_versions(), out)
    parts.open(request)
    if existing is not None:
        _adopt(out, existing, parts)
    facts = _finish(request, out, parts, _collect_parts(request, parts, workers, console))
    console.out(summary(out, facts))
    return Collection(out, facts, already_complete=False)


def _require_arguments(out: Path, workers: int) -> None:
    if out.suffix != ".h5":
        raise InvalidOption(
            f"--out must end in .h5, not {out.name!r}. Pass --out {out.with_suffix('.h5')}.", field="--out"
        )
    require_at_least("--workers", workers, 1)


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{text}: {error.filename}"


def _remove(out: Path, parts: Parts) -> None:
    """The JSON goes first: without it, an `.h5` is never taken for complete."""
    facts_path(out).unlink(missing_ok=True)
    out.unlink(missing_ok=True)
    parts.clear()


def _existing(out: Path, parts: Parts, request: CollectionRequest) -> TrajectoryFacts | None:
    """The facts of a finished file at `out` that the request can build on."""
    if facts_path(out).exists() and out.exists():
        try:
            facts = read_facts(out)
        except TrajectoryError as error:
            raise CollectionError(f"{error} Pass another --out, or --overwrite to replace the file.") from error
        require_same(CollectionRequest.of(facts), request, out)
        return facts
    if out.exists() and not parts.begun:
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
    workshop = DemonstrationWorkshop(request, parts.directory)
    crew = ProcessCrew(workshop, parts.directory, min(workers, max(1, wanted - kept)))
    try:
        with CollectionProgress(console, request.env_id, wanted, kept, len(outcomes) - kept) as progress:
            for seed, reason in seeds_from(crew, parts, lambda busy: next_seed(outcomes, busy, first, wanted)):
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
    facts = describe(request, description, outcomes, seeds, lengths)
    write_facts(out, facts)
    parts.clear()
    return facts


def summary(out: Path, facts: TrajectoryFacts) -> str:
    """What was collected, and how many seeds gave no demonstration for which reason."""
    lengths = sorted(episode.elapsed_steps for episode in facts.episodes)
    tried = len(facts.simulation.attempted_seeds)
    failures = Counter(facts.simulation.failed_seeds.values()).most_common()
    return " ".join(
        (
            f"Wrote {out}: {len(lengths)} demonstrations of {facts.simulation.env_id} from {tried} seeds, "
            f"{lengths[0]} to {lengths[-1]} steps (median {lengths[len(lengths) // 2]}).",
            *(f"No demonstration from {count}: {reason}." for reason, count in failures),
        )
    )
