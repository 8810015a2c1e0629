"""Collecting demonstrations with the real planner, killed and interrupted on the way."""

import contextlib
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from policy_protocol.errors import ChunkwireError
from sim_client.collect import Collection, CollectionRequest, collect
from sim_client.collect.blocked import BLOCKED
from sim_client.collect.description import describe
from sim_client.collect.parts import Parts
from sim_client.collect.run import summary
from sim_client.collect.seeds import seeds_from
from sim_client.collect.selection import chosen_seeds, next_seed, require_hope
from sim_client.collect.trajectories import read_episode
from sim_client.collect.trajectory_facts import facts_path
from sim_client.collect.workshop import DemonstrationWorkshop
from sim_client.crew.processes import ProcessCrew
from sim_client.errors import CollectionError, InvalidOption, UnknownEnvironment
from sim_client.simulator import Simulator, SimulatorDescription

REQUEST = CollectionRequest("PushCube-v1", episodes=2, frame_stride=25, camera_size=64)

PROGRAM = """
from sim_client.cli import main

if __name__ == "__main__":
    main()
"""


def collecting(folder: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM)
    options = ["--env", "PushCube-v1", "--episodes", "2", "--frame-stride", "25", "--camera-size", "64", "--out", out]
    command = [sys.executable, script, "collect", *options, "--workers", "1", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def workers_of(process_id: int) -> list[int]:
    """Child processes that run our worker, which multiprocessing starts by `spawn_main`."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def content(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def assert_same_files(left: Path, right: Path) -> None:
    ours, theirs = content(left), content(right)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert np.array_equal(values, theirs[name]), name
    assert facts_path(left).read_text() == facts_path(right).read_text()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    out = tmp_path_factory.mktemp("demos") / "push.h5"
    return collect(REQUEST, out, workers=1, console=Console(file=io.StringIO()))


def test_the_first_successes_are_kept_with_everything_a_spec_needs(collection: Collection) -> None:
    facts = collection.facts.simulation
    assert not collection.already_complete
    assert [episode.episode_seed for episode in collection.facts.episodes] == [1_000_000, 1_000_001]
    assert facts.attempted_seeds == (1_000_000, 1_000_001)
    assert facts.failed_seeds == {}
    assert facts.cameras == ("base_camera", "hand_camera")
    assert (facts.robot_uids, facts.control_mode) == ("panda_wristcam", "pd_ee_delta_pose")
    assert (facts.sim_freq, facts.control_freq, facts.frame_stride) == (100, 20, 25)
    assert facts.prompt == "Push and move a cube to a goal region in front of it."
    assert facts.state_sources == {"agent/qpos": 9, "agent/qvel": 9, "extra/tcp_pose": 7}
    assert facts.action_low == (-1.0,) * 7
    assert facts.versions["mani_skill"] == "3.0.1"
    assert not Parts(collection.path).directory.exists()


def test_a_demonstration_replays_to_success_from_its_seed(collection: Collection) -> None:
    episode = read_episode(collection.path, 0, seed=collection.facts.episodes[0].episode_seed)
    simulator = Simulator(replace(REQUEST.settings(), render_backend="none"))
    simulator.reset(episode.seed)
    for step, action in enumerate(episode.actions):
        assert np.array_equal(simulator.observe().state["agent/qpos"], episode.state["agent/qpos"][step]), step
        result = simulator.step(action)
        assert result.success == episode.success[step]
    assert result.success
    simulator.close()


def test_frames_are_new_every_stride_and_repeated_in_between(collection: Collection) -> None:
    episode = read_episode(collection.path)
    rows = len(episode.actions) + 1
    assert episode.frame_rendered.tolist() == [row % 25 == 0 for row in range(rows)]
    for frames in episode.frames.values():
        assert frames.shape == (rows, 64, 64, 3)
        assert all(np.array_equal(frames[row], frames[row - row % 25]) for row in range(rows))
        assert not np.array_equal(frames[0], frames[25])
        assert frames[0].std() > 5


def test_a_complete_file_is_returned_at_once(collection: Collection) -> None:
    said = io.StringIO()
    start = time.monotonic()
    again = collect(REQUEST, collection.path, console=Console(file=said))
    assert again == Collection(collection.path, collection.facts, already_complete=True)
    assert time.monotonic() - start < 2
    assert said.getvalue() == f"{collection.path} is complete: 2 demonstrations of PushCube-v1.\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_stride": 5}, r"with --frame-stride 25, but --frame-stride 5 .* Pass --frame-stride 25, another --out"),
        ({"env_id": "PullCube-v1"}, r"with --env PushCube-v1, but --env PullCube-v1 .* or --overwrite"),
        ({"seed": 7}, r"with --seed 1000000, but --seed 7 was asked for"),
        ({"control_freq": 10}, r"with --control-freq 20, but --control-freq 10 was asked for"),
        ({"episodes": 1}, r"with --episodes 2, but --episodes 1 was asked for"),
        (
            {"skip_blocked": True},
            r"with --no-skip-blocked, but --skip-blocked was asked for\. Pass --no-skip-blocked, another --out",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_by_the_first_difference(
    collection: Collection, change: dict[str, int], message: str
) -> None:
    with pytest.raises(CollectionError, match=message):
        collect(replace(REQUEST, **change), collection.path)


def test_a_killed_worker_costs_nothing_and_a_killed_run_is_resumed(tmp_path: Path, collection: Collection) -> None:
    out = tmp_path / "push.h5"
    parts = Parts(out).directory
    process = collecting(tmp_path, out)
    wait_for((parts / "simulator.json").exists, process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)

    wait_for((parts / "seed_1000000.h5").exists, process)
    assert not list(parts.glob("*.failed"))
    orphans = workers_of(process.pid)
    assert len(orphans) == 1
    process.kill()
    process.communicate()
    assert not out.exists()
    wait_for_the_end_of(orphans[0])

    said = io.StringIO()
    collect(REQUEST, out, workers=2, console=Console(file=said))
    assert said.getvalue().startswith("1/2 demonstrations; starting the simulator\n")
    assert "seed 1000000" not in said.getvalue()
    assert_same_files(out, collection.path)


def wait_for_the_end_of(process_id: int) -> None:
    deadline = time.monotonic() + 30
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(process_id, 0)
            time.sleep(0.05)
        pytest.fail("the worker outlives its parent")


def test_more_episodes_of_the_same_kind_build_on_the_finished_file(tmp_path: Path, collection: Collection) -> None:
    out = tmp_path / "push.h5"
    for path in (collection.path, facts_path(collection.path)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = io.StringIO()
    larger = collect(replace(REQUEST, episodes=3), out, workers=2, console=Console(file=said))
    assert said.getvalue().startswith("2/3 demonstrations")
    assert len(larger.facts.episodes) == 3
    assert larger.facts.episodes[:2] == collection.facts.episodes
    before, after = content(collection.path), content(out)
    assert all(np.array_equal(values, after[name]) for name, values in before.items())


def with_mani_skill(version: str) -> Callable[[str], str]:
    return lambda text: re.sub(r'("mani_skill": )"[^"]+"', rf'\1"{version}"', text)


def test_a_file_collected_under_other_versions_is_not_extended(tmp_path: Path, collection: Collection) -> None:
    out = tmp_path / "push.h5"
    out.write_bytes(collection.path.read_bytes())
    facts_path(out).write_text(with_mani_skill("2.9")(facts_path(collection.path).read_text()))
    with pytest.raises(
        CollectionError, match=r"with mani_skill 2\.9, but mani_skill 3\.0\.1 is installed\. Install .* or --overwrite"
    ):
        collect(replace(REQUEST, episodes=3), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["push.h5", "push.json"]


def test_an_interrupted_collection_is_not_continued_under_other_versions(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "push.h5")
    parts.lock()
    parts.open(REQUEST)
    parts.close()
    versions = parts.directory / "versions.json"
    versions.write_text(with_mani_skill("2.9")(versions.read_text()))
    with pytest.raises(CollectionError, match=r"push\.h5 was collected with mani_skill 2\.9"):
        collect(REQUEST, tmp_path / "push.h5")


def test_ctrl_c_keeps_what_is_there_and_exits_130(tmp_path: Path) -> None:
    process = collecting(tmp_path, tmp_path / "push.h5")
    assert process.stderr is not None
    assert process.stderr.readline() == "0/2 demonstrations; starting the simulator\n"
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted. 0 of 2 demonstrations are kept in" in said
    assert "run the same command again to go on." in said
    assert output == ""
    assert "Traceback" not in said


def collected_from(
    folder: Path, at_work: Callable[[], None] = lambda: None, silence_s: float = 60.0
) -> tuple[int, str | None]:
    """What becomes of seed 9, with one worker."""
    parts = Parts(folder / "push.h5")
    parts.lock()
    parts.open(REQUEST)
    crew = ProcessCrew(DemonstrationWorkshop(REQUEST, folder), folder, 1, silence_s)

    def next_seed_of(busy: frozenset[int]) -> int | None:
        if 9 in busy:
            return None
        at_work()
        return 9

    try:
        return next(seeds_from(crew, parts, next_seed_of))
    finally:
        crew.stop()
        parts.close()


def test_a_seed_that_two_workers_fail_on_is_given_up(tmp_path: Path) -> None:
    """The first worker hangs, the second one dies."""
    fates = [signal.SIGSTOP, signal.SIGKILL]
    finished = collected_from(tmp_path, lambda: strike(fates.pop(0)), silence_s=3.0)
    assert finished == (9, "it failed two workers, the second time because the worker died by SIGKILL")
    assert fates == []


def strike(fate: signal.Signals) -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, fate)


def test_a_demonstration_that_cannot_be_written_ends_the_run_and_is_no_fault_of_its_seed(tmp_path: Path) -> None:
    (tmp_path / "seed_9.h5").mkdir()
    with pytest.raises(CollectionError, match=r"seed_9\.h5 cannot be written: Is a directory\. .* another --out"):
        collected_from(tmp_path)


@pytest.fixture
def held_parts(tmp_path: Path) -> Iterator[Path]:
    parts = Parts(tmp_path / "push.h5")
    parts.lock()
    parts.open(REQUEST)
    yield tmp_path / "push.h5"
    parts.close()


def test_two_collections_of_one_file_exclude_each_other(held_parts: Path) -> None:
    with pytest.raises(CollectionError, match=r"Another process \(id \d+\) is collecting .*push\.h5\. Wait for it"):
        collect(REQUEST, held_parts)


def test_overwrite_takes_nothing_from_a_collection_that_is_running(held_parts: Path) -> None:
    facts_path(held_parts).write_text("{}")
    before = sorted(path.name for path in Parts(held_parts).directory.iterdir())
    with pytest.raises(CollectionError, match=r"Another process \(id \d+\) is collecting"):
        collect(REQUEST, held_parts, overwrite=True)
    assert (
        sorted(path.name for path in Parts(held_parts).directory.iterdir())
        == before
        == [".lock", "request.json", "versions.json"]
    )
    assert facts_path(held_parts).exists()


def test_a_refused_collection_leaves_no_folder_behind(tmp_path: Path) -> None:
    (tmp_path / "push.h5").write_bytes(b"precious")
    with pytest.raises(CollectionError, match="or --overwrite to replace the file"):
        collect(REQUEST, tmp_path / "push.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["push.h5"]


def test_a_file_of_unknown_origin_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "push.h5").write_bytes(b"precious")
    with pytest.raises(CollectionError, match=r"push\.h5 exists, but push\.json.* does not\. Pass another --out, or"):
        collect(REQUEST, tmp_path / "push.h5")
    assert (tmp_path / "push.h5").read_bytes() == b"precious"


def test_a_file_with_foreign_facts_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "push.h5").write_bytes(b"precious")
    (tmp_path / "push.json").write_text("{}")
    with pytest.raises(
        CollectionError, match=r"push\.json does not describe demonstrations .* or --overwrite to replace"
    ):
        collect(REQUEST, tmp_path / "push.h5")


def test_an_interrupted_collection_of_another_kind_is_refused(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "push.h5")
    parts.lock()
    parts.open(REQUEST)
    parts.close()
    with pytest.raises(CollectionError, match=r"with --camera-size 64, but --camera-size 128 was asked for"):
        collect(replace(REQUEST, camera_size=128), tmp_path / "push.h5")


def test_a_part_that_a_full_disk_cut_short_is_collected_again(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "push.h5")
    parts.lock()
    parts.open(REQUEST)
    parts.episode_path(5).write_bytes(b"")
    parts.fail(6, "no path")
    assert parts.outcomes() == {6: "no path"}
    parts.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"env_id": "PushCub-v1"}, UnknownEnvironment, r"Unknown task 'PushCub-v1'\. Did you mean 'PushCube-v1'\?"),
        ({"episodes": 0}, InvalidOption, r"--episodes must be at least 1, not 0\."),
        ({"frame_stride": 0}, InvalidOption, r"--frame-stride must be at least 1, not 0\."),
        ({"seed": -1}, InvalidOption, r"--seed must be at least 0, not -1\."),
        ({"camera_size": 0}, InvalidOption, r"--camera-size must be at least 1, not 0\."),
        ({"control_freq": 30}, InvalidOption, r"100 Hz is not a multiple of the control frequency 30 Hz"),
        ({"render_backend": "foo"}, InvalidOption, r"--render-backend must be one of cpu, gpu, not 'foo'\."),
    ],
)
def test_a_request_out_of_range_names_the_flag(
    change: dict[str, int], error: type[ChunkwireError], message: str
) -> None:
    with pytest.raises(error, match=message):
        replace(REQUEST, **change)


def test_the_output_must_be_an_h5_file_and_somebody_must_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"--out must end in \.h5, not 'demos'\. Pass --out .*demos\.h5\."):
        collect(REQUEST, tmp_path / "demos")
    with pytest.raises(InvalidOption, match=r"--workers must be at least 1, not 0\."):
        collect(REQUEST, tmp_path / "demos.h5", workers=0)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("/proc/x.h5", "No such file"), ("afile/x.h5", "Not a directory"), ("dir.h5", "Is a directory")],
)
def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "afile").touch()
    (tmp_path / "dir.h5").mkdir()
    with pytest.raises(CollectionError, match=rf"Collecting to --out \S*{place} failed: {reason}.* Pass --out with a"):
        collect(REQUEST, tmp_path / place, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["afile", "dir.h5"]


def test_the_lowest_seeds_win_whoever_finishes_first() -> None:
    """Seed 12 is done before 11: it is kept only if 11 fails."""
    outcomes: dict[int, str | None] = {10: None, 12: None}
    assert chosen_seeds(outcomes, first=10, wanted=2) is None
    assert chosen_seeds({**outcomes, 11: None}, first=10, wanted=2) == (10, 11)
    assert chosen_seeds({**outcomes, 11: "no path"}, first=10, wanted=2) == (10, 12)


def test_the_facts_of_a_file_give_its_request_again(collection: Collection) -> None:
    request = replace(REQUEST, skip_blocked=True, camera_size=32)
    simulation = collection.facts.simulation
    description = SimulatorDescription(
        simulation.cameras, simulation.action_low, simulation.action_high, simulation.state_sources
    )
    seeds = (1_000_001, 1_000_002)
    facts = describe(request, description, {1_000_000: BLOCKED, **dict.fromkeys(seeds)}, seeds, (70, 71))
    assert CollectionRequest.of(facts) == request
    assert facts.simulation.failed_seeds == {"1000000": BLOCKED}


def test_the_summary_counts_the_seeds_without_a_demonstration_by_their_reason(collection: Collection) -> None:
    reasons = {"1000000": BLOCKED, "1000001": BLOCKED, "1000004": "the motion planner found no path"}
    facts = collection.facts
    simulation = replace(facts.simulation, attempted_seeds=tuple(range(1_000_000, 1_000_005)), failed_seeds=reasons)
    assert summary(collection.path, replace(facts, simulation=simulation)).endswith(
        "No demonstration from 2: the hand is blocked: told to move, it stands still. "
        "No demonstration from 1: the motion planner found no path."
    )


def test_no_seed_is_started_that_cannot_be_needed() -> None:
    assert next_seed({}, frozenset(), first=10, wanted=1) == 10
    assert next_seed({}, frozenset({10}), first=10, wanted=1) == 11
    assert next_seed({11: None}, frozenset({10}), first=10, wanted=1) is None
    assert next_seed({10: "no path", 11: None}, frozenset(), first=10, wanted=1) is None
    assert next_seed({10: "no path"}, frozenset(), first=10, wanted=1) == 11


def test_a_planner_that_keeps_failing_stops_the_collection() -> None:
    hopeless: dict[int, str | None] = dict.fromkeys(range(40), "the motion planner found no path")
    require_hope({**hopeless, 0: None, 1: None}, "PushCube-v1")
    require_hope({seed: hopeless[seed] for seed in range(39)}, "PushCube-v1")
    with pytest.raises(
        CollectionError,
        match=r"Only 1 of 40 seeds of PushCube-v1 gave a demonstration; 39 failed because the motion planner found no",
    ):
        require_hope({**hopeless, 0: None}, "PushCube-v1")
