"""The vectorised simulator, as far as a CPU goes: one environment of it, and what keeps several of them apart.

`tests/gpu/check_vector_simulator.py` checks several environments on a machine with a GPU.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_policy_server import chunk_of
from mani_skill.utils.structs.pose import Pose

from sim_client import EpisodeRules, PolicyClient, run_episode
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.record import Provenance, WallTime
from sim_client.episode.vector_environment import open_vector_environment
from sim_client.episode.vector_runner import run_episodes
from sim_client.errors import InvalidOption, RenderingUnavailable, SimulationError
from sim_client.simulator import SimulationSettings, Simulator, VectorSimulator
from sim_client.simulator.environment import make_environment
from sim_client.simulator.partial_resets import require_partial_resets
from sim_client.simulator.random_draws import DrawnOnCpu, refuse_shared_scenes
from sim_client.tasks import TASKS

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (25, 7)).astype(np.float32)
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize(("env_id", "renderer"), [("StackCube-v1", "cpu"), ("PegInsertionSide-v1", "none")])
def test_one_environment_on_the_cpu_is_the_plain_simulator_to_the_bit(env_id: str, renderer: str) -> None:
    settings = SimulationSettings(env_id, max_episode_steps=25, render_backend=renderer)
    plain, vector = Simulator(settings), open_vector_environment(settings, 1)
    assert (vector.cameras, vector.state_sources) == (plain.cameras, plain.state_sources)
    assert vector.action_low.tolist() == plain.action_low.tolist()
    assert vector.action_high.tolist() == plain.action_high.tolist()
    for seed in (3, 1_000_003):
        plain.reset(seed)
        vector.reset([seed])
        for step, action in enumerate(ACTIONS):
            cameras = None if step == 20 else ()
            ours, theirs = vector.observe(cameras).row(0), plain.observe(cameras)
            assert list(ours.images) == list(theirs.images)
            assert ours.state.keys() == theirs.state.keys()
            for name, image in theirs.images.items():
                assert np.array_equal(ours.images[name], image), (seed, step, name)
            for source, values in theirs.state.items():
                assert np.array_equal(ours.state[source], values), (seed, step, source)
            assert vector.step(action[None]).row(0) == plain.step(action)
    plain.close()
    vector.close()


def test_a_wave_of_one_on_the_real_simulator_gives_the_record_of_the_plain_runner(spec, start_server) -> None:
    settings = SimulationSettings("PushCube-v1", camera_height=64, camera_width=64, max_episode_steps=4)
    rules = EpisodeRules(
        spec, "PushCube-v1", "Push.", ChunkUse(3), None, Provenance("tiny/test/9", "hash", 5, {}, {}, ())
    )
    plain, vector = Simulator(settings), open_vector_environment(settings, 1)
    with PolicyClient(start_server(lambda request: chunk_of(spec, request, 0.5)).url) as policy:
        alone = run_episode(plain, policy, rules, 2, 42)
        (waved,) = run_episodes(vector, policy, rules, [(2, 42)])
    assert alone.cameras["observation/image"].std[0] > 1
    times = {"wall": WallTime(), "round_trip_ms": (), "finished_at": ""}
    assert replace(waved, **times) == replace(alone, **times)
    plain.close()
    vector.close()


@pytest.fixture(scope="module")
def physics() -> VectorSimulator:
    return VectorSimulator(SimulationSettings("PushCube-v1", render_backend="none"), 1)


def test_what_is_observed_and_returned_stays_as_it_was(physics: VectorSimulator) -> None:
    physics.reset([0])
    before, result = physics.observe(), physics.step(ACTIONS[:1])
    kept = before.state["agent/qpos"].copy()
    physics.step(ACTIONS[1:2])
    assert np.array_equal(before.state["agent/qpos"], kept)
    assert result.elapsed_steps.tolist() == [1]


def test_wrong_actions_seeds_and_cameras_are_refused(physics: VectorSimulator) -> None:
    with pytest.raises(SimulationError, match=r"^There are 2 seeds for 1 environments\.$"):
        physics.reset([0, 1])
    with pytest.raises(SimulationError, match=r"have shape \(7,\), but 1 environments .* of PushCube-v1 take \(1, 7\)"):
        physics.step(ACTIONS[0])
    with pytest.raises(SimulationError, match=r"^The action of environment 0 holds a number that is not finite: \[nan"):
        physics.step(np.full((1, 7), np.nan, np.float32))
    with pytest.raises(RenderingUnavailable, match=r"render backend 'none'\. Pass --render-backend cpu\.$"):
        physics.observe(["base_camera"])


def test_an_environment_without_success_is_refused() -> None:
    with pytest.raises(SimulationError, match=r"^Empty-v1 reports no success, so there is nothing to measure\."):
        VectorSimulator(SimulationSettings("Empty-v1", render_backend="none"), 1)


@pytest.mark.parametrize(
    ("backend", "num_envs", "error", "message"),
    [
        ("cpu", 0, InvalidOption, "--num-envs must be at least 1, not 0"),
        (
            "cpu",
            4,
            InvalidOption,
            "--num-envs 4 needs --sim-backend gpu: on the CPU a process simulates one environment. "
            "Pass --workers 4 instead to run as many processes.",
        ),
        pytest.param(
            "gpu",
            4,
            SimulationError,
            "--sim-backend gpu needs an NVIDIA GPU, but PyTorch finds no CUDA device here. "
            "Pass --sim-backend cpu, with --workers N to use several cores.",
            marks=NO_GPU,
        ),
    ],
)
def test_backends_that_cannot_be_are_refused_by_flag(
    backend: str, num_envs: int, error: type[Exception], message: str
) -> None:
    settings = SimulationSettings("StackCube-v1", sim_backend=backend)
    with pytest.raises(error) as refused:
        open_vector_environment(settings, num_envs)
    assert str(refused.value).startswith(message)


def test_a_gpu_that_simulates_needs_a_gpu_that_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InvalidOption, match=r"^--render-backend cpu cannot show what .* Pass --render-backend gpu\.$"):
        open_vector_environment(SimulationSettings("StackCube-v1", sim_backend="gpu", render_backend="cpu"), 4)


@NO_GPU
def test_a_missing_gpu_is_reported_before_mani_skill_is_loaded() -> None:
    code = (
        "import sys\n"
        "from sim_client.episode.vector_environment import open_vector_environment\n"
        "from sim_client.errors import SimulationError\n"
        "from sim_client.simulator import SimulationSettings\n"
        "try:\n"
        "    open_vector_environment(SimulationSettings('NoSuchTask-v1', sim_backend='gpu'), 2)\n"
        "except SimulationError as error:\n"
        "    print(error.field, 'mani_skill' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "--sim-backend False\n"


@NO_GPU
def test_the_plain_simulator_says_the_same_of_a_missing_gpu() -> None:
    with pytest.raises(SimulationError, match=r"^--sim-backend gpu needs an NVIDIA GPU"):
        Simulator(SimulationSettings("StackCube-v1", sim_backend="gpu"))


def test_a_task_draws_from_the_cpu_whichever_device_it_draws_for() -> None:
    """The `meta` device stands for a GPU: what is drawn on it takes nothing from the CPU's generator."""

    def draw() -> list[torch.Tensor]:
        torch.manual_seed(5)
        return [
            torch.rand((2, 3)),
            torch.randn(4, device="meta"),
            torch.randint(0, 9, (3,)),
            torch.randperm(6),
            torch.rand(2, generator=torch.Generator().manual_seed(1), device="cpu"),
        ]

    torch.manual_seed(5)
    expected = [torch.rand((2, 3)), torch.randn(4), torch.randint(0, 9, (3,)), torch.randperm(6)]
    after = torch.rand(3)
    with DrawnOnCpu():
        drawn = draw()
    assert drawn[1].device.type == "meta"
    for row in (0, 2, 3):
        assert torch.equal(drawn[row], expected[row])
    with DrawnOnCpu(), torch.device("meta"):
        drawn = draw()
    assert [one.device.type for one in drawn[:4]] == ["meta"] * 4
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("env_id", list(TASKS))
def test_the_six_tasks_build_scenes_from_generators_of_their_own(env_id: str) -> None:
    environment = make_environment(SimulationSettings(env_id, render_backend="none"))
    refuse_shared_scenes(environment, env_id)
    environment.reset(seed=[3], options={"reconfigure": True})
    environment.close()


@pytest.mark.parametrize(
    "build",
    [
        lambda environment: torch.randint(0, 3, (4,)),  # as DrawTriangle-v1 does for the colours of its brushes
        lambda environment: torch.rand((4, 2), device="meta"),
        lambda environment: environment._episode_rng.choice(3),  # as RoboCasa's kitchens do
    ],
)
def test_a_task_whose_scenes_share_a_generator_is_refused(build: Callable[[SimpleNamespace], object]) -> None:
    environment = SimpleNamespace(_episode_rng=np.random.RandomState(0))
    environment._load_scene = lambda options: build(environment)
    refuse_shared_scenes(environment, "Kitchen-v1")
    with pytest.raises(SimulationError) as refused:
        environment._load_scene({})
    assert refused.value.field == "--sim-backend"
    assert str(refused.value) == (
        "Kitchen-v1 builds its scenes from random numbers that all environments share, so an episode would depend "
        "on those that run beside it. Pass --sim-backend cpu."
    )


def goals() -> SimpleNamespace:
    return SimpleNamespace(
        num_envs=3,
        goal=torch.tensor([[1.0, 2.0], [3.0, torch.nan], [5.0, 6.0]]),
        target=Pose.create_from_pq(p=torch.eye(3)),
        grasped=torch.tensor([True, False, True]),
        half_size=torch.tensor([0.02, 0.02]),
    )


def masked(task: SimpleNamespace) -> None:
    task.goal[0] = 9
    task.target.raw_pose[0] = 9
    task.grasped[0] = False
    task.half_size = torch.tensor([0.5, 0.5])  # has no row for each


def assigned_whole(task: SimpleNamespace) -> None:
    task.goal = torch.tensor([[7.0, 8.0]])


def written_everywhere(task: SimpleNamespace) -> None:
    task.target.raw_pose[:] = 9


def not_made_for_it(task: SimpleNamespace) -> None:
    raise IndexError("index 2 is out of bounds")


def test_a_task_that_resets_one_environment_alone_is_taken() -> None:
    task = goals()
    require_partial_resets(task, "Good-v1", lambda: masked(task))


@pytest.mark.parametrize(
    ("reset", "reason"),
    [
        (assigned_whole, "its variable 'goal' is not kept for each"),
        (written_everywhere, "its variable 'target' is not kept for each"),
        (not_made_for_it, "IndexError: index 2 is out of bounds"),
    ],
)
def test_a_task_that_changes_others_when_one_is_reset_is_refused(reset, reason: str) -> None:
    task = goals()
    with pytest.raises(SimulationError) as refused:
        require_partial_resets(task, "Bad-v1", lambda: reset(task))
    assert str(refused.value) == (
        f"Bad-v1 cannot start one of several environments by itself ({reason}), so an episode would depend on those "
        "that run beside it. Pass --sim-backend cpu."
    )
