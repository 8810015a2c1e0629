"""Making a ManiSkill environment from `SimulationSettings`, with errors that say what to change."""

from __future__ import annotations

import gymnasium
import gymnasium.logger
import mani_skill
import mani_skill.envs  # registers the tasks
from mani_skill.agents import REGISTERED_AGENTS
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.registration import REGISTERED_ENVS

from policy_protocol.errors import did_you_mean
from sim_client.errors import (
    SimulationError,
    UnknownEnvironment,
    UnsupportedControlMode,
    UnsupportedRobot,
)
from sim_client.simulator.backend import require_backend
from sim_client.simulator.rendering import unavailable
from sim_client.simulator.types import SimulationSettings

__all__ = ["env_ids", "make_environment", "reward_mode_of"]

# ManiSkill warns that panda_wristcam is not listed for some tasks (it is `panda` with a camera), gymnasium that
# action bounds are symmetric. What matters of this is an error below; the rest would hide it.
mani_skill.logger.setLevel("ERROR")
gymnasium.logger.min_level = gymnasium.logger.ERROR

_STANDS_IN_FOR = {"panda_wristcam": "panda"}
"""Robots that run wherever the other one runs: the same arm with a camera more."""


def env_ids() -> tuple[str, ...]:
    """Every environment that ManiSkill registers, sorted."""
    return tuple(sorted(REGISTERED_ENVS))


def make_environment(settings: SimulationSettings, num_envs: int = 1) -> BaseEnv:
    """The bare ManiSkill environment in observation mode `rgb` (`none` without rendering), with `num_envs` scenes.

    ManiSkill's own episode limit is left behind with its wrapper; nothing but the caller truncates.

    Raises:
        InvalidOption: the backends do not go together, or not with so many scenes.
        UnknownEnvironment, UnsupportedRobot, UnsupportedControlMode, RenderingUnavailable, SimulationError
    """
    require_backend(settings, num_envs)
    _require_known(settings)
    try:
        environment = _make(settings, settings.control_mode, num_envs).unwrapped
    except (SystemExit, EOFError) as error:  # ManiSkill asks on the terminal whether to download, then exits
        raise _assets_error(settings) from error
    except FileNotFoundError as error:  # an environment that does not declare what it needs
        raise _assets_error(settings, f" (no such file: {error.filename})") from error
    except AssertionError as error:
        raise _control_mode_error(settings, error) from error
    except RuntimeError as error:
        raise _runtime_error(settings, error) from error
    except Exception as error:  # whatever the constructor of one of 100 environments lets through
        raise _set_up_error(settings, error) from error
    _require_render_device(settings, environment)
    return environment


def _make(settings: SimulationSettings, control_mode: str | None, num_envs: int = 1) -> gymnasium.Env:
    return gymnasium.make(
        settings.env_id,
        num_envs=num_envs,
        robot_uids=settings.robot_uids,
        control_mode=control_mode,
        obs_mode="none" if settings.render_backend == "none" else "rgb",
        reward_mode=reward_mode_of(settings.env_id),
        max_episode_steps=settings.max_episode_steps,
        sensor_configs={"height": settings.camera_height, "width": settings.camera_width},
        sim_config={"sim_freq": settings.sim_freq, "control_freq": settings.control_freq},
        sim_backend=settings.sim_backend,
        render_backend=settings.render_backend,
    )


def _require_known(settings: SimulationSettings) -> None:
    env_id, robot = settings.env_id, settings.robot_uids
    if env_id not in REGISTERED_ENVS:
        raise UnknownEnvironment(f"ManiSkill has no environment {env_id!r}.{did_you_mean(env_id, env_ids())}")
    if robot not in REGISTERED_AGENTS:
        raise UnsupportedRobot(f"ManiSkill has no robot {robot!r}.{did_you_mean(robot, REGISTERED_AGENTS)}")
    supported = REGISTERED_ENVS[env_id].cls.SUPPORTED_ROBOTS
    if supported is None or robot in supported or _STANDS_IN_FOR.get(robot) in supported:
        return
    single = [name for name in supported if isinstance(name, str)]
    if not single:
        raise UnsupportedRobot(
            f"{env_id} needs several robots at once, which Chunkwire cannot drive. Pass another --env."
        )
    raise UnsupportedRobot(
        f"{env_id} does not run with the robot {robot!r}. Pass --robot with one of: {', '.join(single)}."
    )


def reward_mode_of(env_id: str) -> str:
    """The cheapest reward that the environment has; none is used."""
    supported = REGISTERED_ENVS[env_id].cls.SUPPORTED_REWARD_MODES
    return next((mode for mode in ("none", "sparse") if mode in supported), supported[0])


def _assets_error(settings: SimulationSettings, detail: str = "") -> UnknownEnvironment:
    return UnknownEnvironment(
        f"The assets of {settings.env_id} are not installed{detail}. Run: "
        f"python -m mani_skill.utils.download_asset {settings.env_id}"
    )


def _set_up_error(settings: SimulationSettings, error: Exception) -> SimulationError:
    reason = str(error).partition(" was raised from the environment creator")[0]  # gymnasium's, with all arguments
    return SimulationError(f"ManiSkill cannot set up {settings.env_id}: {type(error).__name__}: {reason}")


def _control_mode_error(settings: SimulationSettings, error: AssertionError) -> SimulationError:
    try:
        modes = _make(settings, None).unwrapped.agent.supported_control_modes
    except Exception:  # then the control mode was not at fault
        return _set_up_error(settings, error)
    if settings.control_mode in modes:
        return _set_up_error(settings, error)
    return UnsupportedControlMode(
        f"The robot {settings.robot_uids!r} has no control mode {settings.control_mode!r}. "
        f"Pass --control-mode with one of: {', '.join(modes)}."
    )


def _runtime_error(settings: SimulationSettings, error: RuntimeError) -> SimulationError:
    """Vulkan's failures come as bare RuntimeErrors: `vk::...`, or "failed to find a rendering device"."""
    text = str(error)
    if settings.render_backend != "none" and any(word in text for word in ("vk::", "render", "cuda", "ulkan")):
        return unavailable(settings.render_backend, text)
    return SimulationError(f"ManiSkill cannot set up {settings.env_id}: {text}")


def _require_render_device(settings: SimulationSettings, environment: BaseEnv) -> None:
    """ManiSkill silently falls back to the CPU when there is no GPU to render on."""
    if settings.render_backend == "gpu" and environment.backend.render_backend == "sapien_cpu":
        environment.close()
        raise unavailable("gpu", "no CUDA device was found")
