"""From the policy's spec and the command line: exactly what will be run."""

from __future__ import annotations

from dataclasses import dataclass

from policy_protocol import PolicySpec, did_you_mean
from policy_protocol.spec import SimulationSpec
from sim_client.episode.chunk_use import ChunkUse
from sim_client.errors import InvalidOption, UnsupportedControlMode
from sim_client.evaluation.acceptance import require_compatible
from sim_client.evaluation.compatibility import camera_size, option_mismatches, simulation_of
from sim_client.results.mismatch import Mismatch
from sim_client.results.options import EvaluationOptions
from sim_client.simulator import SimulationSettings
from sim_client.tasks import PANDA_CONTROL_MODES, TASKS

__all__ = ["EvaluationPlan", "plan_evaluation"]


@dataclass(frozen=True)
class EvaluationPlan:
    """The settled choices of one evaluation."""

    settings: SimulationSettings
    seeds: tuple[int, ...]
    """Of the episodes, in their order."""
    prompt: str
    chunk_use: ChunkUse
    mismatches: tuple[Mismatch, ...]
    """Differences from training that were allowed by name."""
    notices: tuple[str, ...]
    """What a reader of the results should know."""


def plan_evaluation(spec: PolicySpec, options: EvaluationOptions) -> EvaluationPlan:
    """Fill in from the spec whatever the command line leaves open.

    Raises:
        SpecMismatch: the command line asks for another simulation than the policy was trained in.
        InvalidOption: an option cannot be used with this policy; names the flag.
    """
    simulation = simulation_of(spec)
    _require_control_mode(options, simulation)
    mismatches = require_compatible(option_mismatches(spec, options), options.allow_mismatch, spec)
    chunk_use = options.chunk_use(spec.policy.execution_horizon)
    chunk_use.check(spec)
    prompt = options.prompt or _default_prompt(spec, options.env_id)
    return EvaluationPlan(
        settings=_settings(spec, simulation, options),
        seeds=_seeds(simulation, options),
        prompt=prompt,
        chunk_use=chunk_use,
        mismatches=mismatches,
        notices=(
            *_seed_notices(options),
            *_camera_notices(spec),
            *_prompt_notices(spec, options.env_id, prompt),
            *_goal_notices(spec, options.env_id),
        ),
    )


def _require_control_mode(options: EvaluationOptions, simulation: SimulationSpec) -> None:
    """A name that is none is an error of its own, not a difference from training that one might allow."""
    mode, robot = options.control_mode, options.robot_uids or simulation.robot_uids
    if mode is None or mode in PANDA_CONTROL_MODES or not robot.startswith("panda"):
        return
    raise UnsupportedControlMode(
        f"--control-mode {mode!r}: the robot {robot!r} has no such control mode."
        f"{did_you_mean(mode, PANDA_CONTROL_MODES)}",
        field="--control-mode",
    )


def _seeds(simulation: SimulationSpec, options: EvaluationOptions) -> tuple[int, ...]:
    if not options.on_demonstrations:
        return tuple(options.seeds)
    seeds = tuple(dict.fromkeys(simulation.demonstration_seeds))[: options.episodes]
    if len(seeds) < options.episodes:
        raise InvalidOption(
            f"--on-demonstrations: the policy's spec names {len(seeds)} demonstration seeds, which is fewer than "
            f"--episodes {options.episodes}."
            + (f" Pass --episodes {len(seeds)}." if seeds else " Leave the flag out."),
            field="--on-demonstrations",
        )
    return seeds


def _settings(spec: PolicySpec, simulation: SimulationSpec, options: EvaluationOptions) -> SimulationSettings:
    height, width = camera_size(spec, options.camera_size)
    return SimulationSettings(
        env_id=options.env_id,
        robot_uids=options.robot_uids or simulation.robot_uids,
        control_mode=options.control_mode or spec.action.control_mode,
        sim_freq=options.sim_freq or simulation.sim_freq,
        control_freq=options.control_freq or simulation.control_freq,
        camera_height=height,
        camera_width=width,
        max_episode_steps=options.max_episode_steps or simulation.max_episode_steps,
        sim_backend=options.sim_backend,
        render_backend=options.render_backend,
    )


def _default_prompt(spec: PolicySpec, env_id: str) -> str:
    """The task's own prompt where the policy knows it, else the only one that it was trained on."""
    trained = spec.observation.prompt.trained
    if env_id in TASKS and (not trained or TASKS[env_id].prompt in trained):
        return TASKS[env_id].prompt
    if len(trained) == 1:
        return trained[0]
    choices = f" Trained prompts: {'; '.join(map(repr, trained))}." if trained else ""
    raise InvalidOption(f"No prompt is known for {env_id}. Pass --prompt TEXT.{choices}", field="--prompt")


def _seed_notices(options: EvaluationOptions) -> list[str]:
    if not options.on_demonstrations:
        return []
    return [
        "The episodes are the training demonstrations' own: this says what a replay reaches, not how good a policy is."
    ]


def _camera_notices(spec: PolicySpec) -> list[str]:
    return [
        f"The camera {camera.key!r} was black in every training image; the policy is shown black here too."
        for camera in spec.observation.cameras
        if camera.all_zero
    ]


def _prompt_notices(spec: PolicySpec, env_id: str, prompt: str) -> list[str]:
    trained, notices = spec.observation.prompt.trained, []
    if trained and prompt not in trained:
        notices.append(f"The prompt {prompt!r} was not seen in training (seen: {'; '.join(map(repr, trained))}).")
    if env_id in TASKS and prompt != TASKS[env_id].prompt:
        notices.append(f"The prompt {prompt!r} is not that of {env_id}, {TASKS[env_id].prompt!r}.")
    return notices


def _goal_notices(spec: PolicySpec, env_id: str) -> list[str]:
    task = TASKS.get(env_id)
    sources = {part.source for part in spec.observation.state.fields}
    if task is None or task.goal_visible or sources & set(task.goal_state):
        return []
    return [
        f"{env_id} hides its goal from the cameras and the policy's state has no {' or '.join(task.goal_state)}: "
        "it cannot know where to go, except by chance."
    ]
