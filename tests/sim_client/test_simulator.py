"""The simulator: rendered on demand, bit-identical to plain ManiSkill, reproducible from the seed alone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from mani_skill.utils.registration import REGISTERED_ENVS

from sim_client.errors import (
    InvalidOption,
    RenderingUnavailable,
    SimulationError,
    UnknownEnvironment,
    UnsupportedControlMode,
    UnsupportedRobot,
)
from sim_client.simulator import Planner, SimulationSettings, Simulator, env_ids
from sim_client.simulator.environment import reward_mode_of
from sim_client.tasks import PANDA_CONTROL_MODES, TASKS, task

STACK = SimulationSettings("StackCube-v1")
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (30, 7)).astype(np.float32)


def plain_environment(env_id: str) -> gymnasium.Env:
    return gymnasium.make(
        env_id,
        robot_uids="panda_wristcam",
        control_mode="pd_ee_delta_pose",
        obs_mode="rgb",
        max_episode_steps=300,
        sim_config={"sim_freq": 100, "control_freq": 20},
        render_backend="cpu",
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[Simulator]:
    simulator = Simulator(STACK)
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def physics() -> Iterator[Simulator]:
    simulator = Simulator(SimulationSettings("StackCube-v1", render_backend="none", max_episode_steps=25))
    yield simulator
    simulator.close()


def test_frames_and_joints_are_bit_identical_to_plain_stepping_over_30_steps(stack: Simulator) -> None:
    plain = plain_environment("StackCube-v1")
    seen, _ = plain.reset(seed=3)
    stack.reset(3)
    compared = []
    for step in range(31):
        if step % 10 == 0:
            ours = stack.observe()
            for camera, image in ours.images.items():
                assert np.array_equal(image, seen["sensor_data"][camera]["rgb"][0].numpy()), (step, camera)
            compared.append(step)
        state = stack.observe(cameras=()).state
        assert np.array_equal(state["agent/qpos"], seen["agent"]["qpos"][0].numpy()), step
        assert np.array_equal(state["extra/tcp_pose"], seen["extra"]["tcp_pose"][0].numpy()), step
        if step < 30:
            seen, *_ = plain.step(ACTIONS[step])
            stack.step(ACTIONS[step])
    plain.close()
    assert compared == [0, 10, 20, 30]


def test_the_goal_that_pick_cube_hides_stays_hidden() -> None:
    plain = plain_environment("PickCube-v1")
    seen, _ = plain.reset(seed=0)
    simulator = Simulator(SimulationSettings("PickCube-v1"))
    simulator.reset(0)
    simulator.step(np.zeros(7, np.float32))
    plain.step(np.zeros(7, np.float32))
    simulator.reset(0)
    ours = simulator.observe()
    image = ours.images["base_camera"].astype(int)
    pure_green = (image[..., 1] > 100) & (image[..., 0] < 40) & (image[..., 2] < 40)
    assert np.array_equal(ours.images["base_camera"], seen["sensor_data"]["base_camera"]["rgb"][0].numpy())
    assert not pure_green.any()
    assert ours.state["extra/goal_pos"].shape == (3,)
    plain.close()
    simulator.close()


def test_an_episode_depends_on_its_seed_and_actions_alone() -> None:
    """ManiSkill's plain reset fails this: the contacts of an earlier episode move the cubes of the next."""
    settings = SimulationSettings("StackCube-v1", render_backend="none")
    simulator, planner = Simulator(settings), Planner(settings)
    actions = planner.plan(1_000_003)

    def episode() -> list[float]:
        simulator.reset(1_000_003)
        results = [simulator.step(action) for action in actions]
        assert results[-1].success
        return simulator.observe().state["agent/qpos"].tolist()

    first = episode()
    simulator.reset(1_000_080)
    for action in actions:
        simulator.step(action)
    assert episode() == first
    simulator.close()


def test_only_the_cameras_asked_for_are_rendered(stack: Simulator) -> None:
    assert stack.cameras == ("base_camera", "hand_camera")
    stack.reset(0)
    everything = stack.observe()
    wrist = stack.observe(cameras=["hand_camera"])
    assert list(wrist.images) == ["hand_camera"]
    assert np.array_equal(wrist.images["hand_camera"], everything.images["hand_camera"])
    assert everything.images["base_camera"].shape == (128, 128, 3)
    assert everything.images["base_camera"].dtype == np.uint8


def test_an_observation_is_a_copy_that_later_steps_leave_alone(stack: Simulator) -> None:
    stack.reset(0)
    before = stack.observe()
    kept = before.state["agent/qpos"].copy(), before.images["hand_camera"].copy()
    for action in ACTIONS[:3]:
        stack.step(action)
    stack.observe()
    assert np.array_equal(before.state["agent/qpos"], kept[0])
    assert np.array_equal(before.images["hand_camera"], kept[1])


def test_the_simulator_describes_its_actions_and_state(stack: Simulator) -> None:
    assert stack.action_low.tolist() == [-1.0] * 7
    assert stack.action_high.tolist() == [1.0] * 7
    assert stack.state_sources == {"agent/qpos": 9, "agent/qvel": 9, "extra/tcp_pose": 7}


def test_a_step_reports_success_stages_and_our_own_truncation(physics: Simulator) -> None:
    physics.reset(0)
    results = [physics.step(action) for action in ACTIONS[:25]]
    assert set(results[0].stages) == set(task("StackCube-v1").stages)
    assert [result.elapsed_steps for result in results] == list(range(1, 26))
    assert [result.truncated for result in results] == [False] * 24 + [True]
    assert not any(result.success for result in results)


def test_without_a_render_backend_there_is_state_and_no_camera(physics: Simulator) -> None:
    physics.reset(0)
    assert physics.cameras == ()
    assert physics.observe().images == {}
    assert physics.observe().state["agent/qpos"].shape == (9,)
    with pytest.raises(RenderingUnavailable, match=r"render backend 'none'. Pass --render-backend cpu\."):
        physics.observe(cameras=["base_camera"])


def test_an_unknown_camera_offers_the_closest(stack: Simulator) -> None:
    with pytest.raises(SimulationError, match=r"has no camera 'hand_cam'\. Did you mean 'hand_camera'\?"):
        stack.observe(cameras=["hand_cam"])


def test_every_environment_is_made_with_a_reward_mode_that_it_has() -> None:
    assert reward_mode_of("StackCube-v1") == "none"
    assert reward_mode_of("DrawTriangle-v1") == "sparse"
    for env_id in env_ids():
        assert reward_mode_of(env_id) in REGISTERED_ENVS[env_id].cls.SUPPORTED_REWARD_MODES


def test_a_sapien_that_fails_while_rendering_is_an_error_of_the_simulator() -> None:
    """A camera taken out of its scene makes SAPIEN raise what it raises for a lost GPU: a bare RuntimeError."""
    simulator = Simulator(replace(STACK, env_id="PushCube-v1"))
    simulator._environment.scene.sensors["base_camera"].camera._render_cameras[0].disable()
    with pytest.raises(SimulationError, match="^The simulator failed while observing PushCube-v1: failed to take pic"):
        simulator.observe()
    simulator.reset(1)
    assert simulator.observe().images["base_camera"].std() > 1
    simulator.close()


def test_an_action_of_the_wrong_shape_or_not_finite_is_refused(physics: Simulator) -> None:
    with pytest.raises(SimulationError, match=r"has shape \(8,\), but .* 'pd_ee_delta_pose' .* takes \(7,\)"):
        physics.step(np.zeros(8, np.float32))
    with pytest.raises(SimulationError, match="not finite"):
        physics.step(np.full(7, np.nan, np.float32))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"env_id": "StackCub-v1"},
            UnknownEnvironment,
            r"no environment 'StackCub-v1'\. Did you mean 'StackCube-v1'\?",
        ),
        (
            {"robot_uids": "panda_wrstcam"},
            UnsupportedRobot,
            r"no robot 'panda_wrstcam'\. Did you mean 'panda_wristcam'",
        ),
        ({"robot_uids": "so100"}, UnsupportedRobot, r"StackCube-v1 does not run with the robot 'so100'\. Pass --robot"),
        (
            {"control_mode": "pd_ee_pos_delta"},
            UnsupportedControlMode,
            r"no control mode 'pd_ee_pos_delta'\. Pass --control-mode with one of: " + ", ".join(PANDA_CONTROL_MODES),
        ),
        ({"env_id": "Empty-v1"}, SimulationError, r"^Empty-v1 reports no success, so there is nothing to measure\."),
        (
            {"env_id": "ReplicaCAD_SceneManipulation-v1", "robot_uids": "fetch"},
            UnknownEnvironment,
            r"are not installed \(no such file: .*json\)\. Run: python -m mani_skill\.utils\.download_asset Replica",
        ),
        (
            {"env_id": "RotateValveLevel0-v1", "robot_uids": "dclaw"},
            SimulationError,
            r"^ManiSkill cannot set up RotateValveLevel0-v1: TypeError: .* multiple values for .* 'robot_uids'$",
        ),
        (
            {"env_id": "TwoRobotStackCube-v1"},
            UnsupportedRobot,
            r"^TwoRobotStackCube-v1 needs several robots at once, which Chunkwire cannot drive\. Pass another --env\.$",
        ),
        ({"render_backend": "gpu"}, RenderingUnavailable, r"cannot render on a GPU here .* --render-backend cpu\."),
    ],
)
def test_an_environment_that_cannot_be_made_says_what_to_change(
    change: dict[str, str], error: type[SimulationError], message: str
) -> None:
    if change.get("render_backend") == "gpu" and os.path.exists("/proc/driver/nvidia/version"):
        change = {"render_backend": "gpu", "robot_uids": "so100"}
        error, message = UnsupportedRobot, "so100"
    settings = SimulationSettings(**{"env_id": "StackCube-v1", "render_backend": "none", **change})
    with pytest.raises(error, match=message):
        Simulator(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sim_freq": 100, "control_freq": 30}, r"100 Hz is not a multiple of .* 30 Hz\. Pass --sim-freq 150"),
        ({"camera_height": 0}, r"--camera-size must be at least 1, not 0"),
        ({"max_episode_steps": 0}, r"--max-episode-steps must be at least 1, not 0"),
        ({"render_backend": "vulkan"}, r"--render-backend must be one of cpu, gpu, none, not 'vulkan'"),
    ],
)
def test_settings_out_of_range_name_the_flag(change: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        SimulationSettings("StackCube-v1", **change)


def probe(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim_client.simulator"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_the_rendering_check_names_the_renderer() -> None:
    result = probe()
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("SAPIEN renders on ")


def test_a_vulkan_that_cannot_render_says_what_to_install() -> None:
    result = probe(VK_ICD_FILENAMES="/nonexistent", VK_DRIVER_FILES="/nonexistent")
    assert result.returncode == 1
    assert "install-vulkan.sh" in result.stderr
    assert "libvulkan1 and mesa-vulkan-drivers" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("loading", "advice"),
    [
        ("sys.modules['sapien'] = None", "is not installed .* Install it with `pip install 'chunkwire\\[sim\\]'"),
        (
            "sys.path.insert(0, sys.argv[1])",
            r"cannot be loaded \(libX11\.so\.6: .*\)\. Run `sh docker/install-vulkan\.sh`",
        ),
    ],
)
def test_a_simulator_that_cannot_be_loaded_says_what_to_install(tmp_path: Path, loading: str, advice: str) -> None:
    (tmp_path / "sapien.py").write_text("raise ImportError('libX11.so.6: cannot open shared object file')")
    code = f"import sys; {loading}; sys.argv[1:] = []; from sim_client.simulator.__main__ import main; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.search(advice, result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_importing_the_settings_loads_no_simulator() -> None:
    code = "import sys, sim_client.simulator, sim_client.tasks; print({'torch', 'sapien'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_every_task_of_the_table_is_one_of_maniskills_with_its_registered_limit() -> None:
    assert set(TASKS) <= set(env_ids())
    for name, known in TASKS.items():
        assert gymnasium.spec(name).max_episode_steps == known.registered_limit
        assert known.demonstration_steps > known.registered_limit


def test_an_unknown_task_offers_the_closest() -> None:
    with pytest.raises(UnknownEnvironment, match=r"Unknown task 'PushCub-v1'\. Did you mean 'PushCube-v1'\?"):
        task("PushCub-v1")
