"""The six ManiSkill tasks that the project collects, trains and measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from policy_protocol.errors import did_you_mean
from sim_client.errors import UnknownEnvironment

__all__ = ["PANDA_CONTROL_MODES", "TASKS", "Task", "task"]

PANDA_CONTROL_MODES = (
    "pd_joint_delta_pos",
    "pd_joint_pos",
    "pd_ee_delta_pos",
    "pd_ee_delta_pose",
    "pd_ee_pose",
    "pd_joint_target_delta_pos",
    "pd_ee_target_delta_pos",
    "pd_ee_target_delta_pose",
    "pd_joint_vel",
    "pd_joint_pos_vel",
    "pd_joint_delta_pos_vel",
)
"""Controllers of the `panda` robots, by ManiSkill's names; a test holds them against ManiSkill's own list."""


@dataclass(frozen=True)
class Task:
    """What is known about a task before the simulator is loaded."""

    env_id: str
    """ManiSkill's name."""
    prompt: str
    """The instruction that the policy is trained on and asked with."""
    demonstration_steps: int
    """Median length of a demonstration at 20 Hz (30 seeds from 1,000,000)."""
    registered_limit: int
    """The episode limit that ManiSkill registers. Shorter than the demonstrations, hence never used here."""
    goal_visible: bool
    """Whether a camera shows where to go."""
    goal_state: tuple[str, ...] = ()
    """State sources without which a policy cannot know the goal."""
    stages: tuple[str, ...] = ()
    """Flags that the task reports on the way to success, in the order in which they are usually reached."""
    cameras: tuple[str, ...] = ("base_camera", "hand_camera")
    """That there are with the robot `panda_wristcam`, which is the project's; plain `panda` has no `hand_camera`."""


_ALL = (
    Task(
        env_id="StackCube-v1",
        prompt="Pick up a red cube and stack it on top of a green cube and let go of the cube without it falling",
        demonstration_steps=104,
        registered_limit=50,
        goal_visible=True,
        stages=("is_cubeA_grasped", "is_cubeA_on_cubeB", "is_cubeA_static"),
    ),
    Task(
        env_id="PickCube-v1",
        prompt="Grasp a red cube and move it to a target goal position.",
        demonstration_steps=80,
        registered_limit=50,
        goal_visible=False,
        goal_state=("extra/goal_pos",),
        stages=("is_grasped", "is_obj_placed", "is_robot_static"),
    ),
    Task(
        env_id="PushCube-v1",
        prompt="Push and move a cube to a goal region in front of it.",
        demonstration_steps=68,
        registered_limit=50,
        goal_visible=True,
    ),
    Task(
        env_id="PullCube-v1",
        prompt="Pull a cube onto a target.",
        demonstration_steps=69,
        registered_limit=50,
        goal_visible=True,
    ),
    Task(
        env_id="PlaceSphere-v1",
        prompt="Place the sphere into the shallow bin.",
        demonstration_steps=119,
        registered_limit=50,
        goal_visible=True,
        stages=("is_obj_grasped", "is_obj_on_bin", "is_obj_static"),
    ),
    Task(
        env_id="PegInsertionSide-v1",
        prompt="Pick up a orange-white peg and insert the orange end into the box with a hole in it.",
        demonstration_steps=156,
        registered_limit=100,
        goal_visible=True,
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.env_id: task for task in _ALL})
"""The tasks by ManiSkill's name."""


def task(env_id: str) -> Task:
    """The task called `env_id`.

    Raises:
        UnknownEnvironment: none of the six; lists them or offers the closest.
    """
    if env_id not in TASKS:
        raise UnknownEnvironment(f"Unknown task {env_id!r}.{did_you_mean(env_id, TASKS)}", field="--env")
    return TASKS[env_id]
