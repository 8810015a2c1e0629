"""What is refused before the first episode, and in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_environment import FakeEnvironment, make_settings

from policy_protocol import PolicySpec
from policy_protocol.errors import SpecMismatch
from policy_protocol.spec import StateField
from sim_client.episode.chunk_use import ChunkUse
from sim_client.errors import InvalidOption, UnsupportedControlMode
from sim_client.evaluation.acceptance import require_compatible
from sim_client.evaluation.compatibility import environment_mismatches, option_mismatches
from sim_client.evaluation.plan import plan_evaluation
from sim_client.results.options import EvaluationOptions
from sim_client.simulator import SimulationSettings, SimulatorDescription


def described(**changes: object) -> SimulatorDescription:
    return SimulatorDescription.of(FakeEnvironment(make_settings(), **changes))


def options(**changes: object) -> EvaluationOptions:
    return EvaluationOptions(**{"env_id": "PushCube-v1", "episodes": 5, **changes})


def with_camera(spec: PolicySpec, index: int, **changes: object) -> PolicySpec:
    cameras = list(spec.observation.cameras)
    cameras[index] = replace(cameras[index], **changes)
    return replace(spec, observation=replace(spec.observation, cameras=tuple(cameras)))


def with_simulation(spec: PolicySpec, **changes: object) -> PolicySpec:
    return replace(spec, simulation=replace(spec.simulation, **changes))


def test_the_simulator_is_set_up_from_the_spec(spec):
    plan = plan_evaluation(spec, options())
    assert plan.settings == SimulationSettings(
        env_id="PushCube-v1",
        robot_uids="panda_wristcam",
        control_mode="pd_ee_delta_pose",
        sim_freq=100,
        control_freq=20,
        camera_height=64,
        camera_width=64,
        max_episode_steps=20,
    )
    assert (plan.chunk_use, plan.mismatches, plan.notices) == (ChunkUse(3), (), ())
    assert plan.prompt == "Push and move a cube to a goal region in front of it."


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"control_mode": "pd_joint_pos"}, "action.control_mode", "'pd_ee_delta_pose', the simulator 'pd_joint_pos'"),
        ({"control_freq": 10}, "simulation.control_freq", "the policy has 20, the simulator 10. Leave --control-freq"),
        ({"sim_freq": 500}, "simulation.sim_freq", "the policy has 100, the simulator 500. Leave --sim-freq out"),
        ({"robot_uids": "panda"}, "simulation.robot_uids", "'panda_wristcam', the simulator 'panda'. Leave --robot"),
        ({"camera_size": (32, 48)}, "observation.cameras.base_camera.size", "has 64x64, the simulator 32x48"),
        ({"env_id": "PullCube-v1"}, "simulation.env_ids", "has PushCube-v1, the simulator PullCube-v1. Pass --env"),
        (
            {"max_episode_steps": 11},
            "simulation.max_episode_steps",
            "up to 12 steps, .* a limit of 11, which would cut",
        ),
        ({"seed": 999}, "simulation.demonstration_seeds", r"seen 2 of these .*\(seeds 1000, 1001\).* Pass --seed 1002"),
    ],
)
def test_a_difference_from_training_is_refused_unless_allowed_by_name(spec, change, field, words):
    with pytest.raises(SpecMismatch, match=rf"(?s)training of tiny/test/9:.*{field}: .*{words}") as caught:
        plan_evaluation(spec, options(**change))
    assert f"--allow-mismatch {field}" in caught.value.message
    fields = [mismatch.field for mismatch in option_mismatches(spec, options(**change))]
    allowed = plan_evaluation(spec, options(**change, prompt="Do it.", allow_mismatch=tuple(fields)))
    assert [mismatch.field for mismatch in allowed.mismatches] == fields


def test_all_mismatches_are_listed_at_once(spec):
    with pytest.raises(SpecMismatch) as caught:
        plan_evaluation(spec, options(control_freq=10, sim_freq=500, max_episode_steps=5))
    assert caught.value.message.count("\n  ") == 3


def test_a_name_allows_the_fields_below_it(spec):
    plan = plan_evaluation(spec, options(camera_size=(32, 32), allow_mismatch=("observation.cameras",)))
    assert len(plan.mismatches) == 2


def test_an_unknown_field_cannot_be_allowed(spec):
    with pytest.raises(InvalidOption, match=r"--allow-mismatch simulation.control_frq: .*Did you mean 'simulation.con"):
        plan_evaluation(spec, options(allow_mismatch=("simulation.control_frq",)))


def test_the_specs_own_limit_must_cover_the_demonstrations_too(spec):
    short = with_simulation(spec, max_episode_steps=10)
    with pytest.raises(SpecMismatch, match="Pass --max-episode-steps 12"):
        plan_evaluation(short, options())
    assert plan_evaluation(short, options(max_episode_steps=12)).settings.max_episode_steps == 12


def test_a_longer_limit_is_an_override_and_no_mismatch(spec):
    chosen = options(max_episode_steps=50)
    assert plan_evaluation(spec, chosen).mismatches == ()
    assert chosen.overrides == {"--max-episode-steps": "50"}


def test_a_policy_of_no_simulator_is_explained(spec):
    with pytest.raises(SpecMismatch, match="no simulation section, as is so for openpi's released checkpoints"):
        plan_evaluation(replace(spec, simulation=None), options())


def test_a_matching_environment_has_no_mismatches(spec):
    assert environment_mismatches(spec, described()) == ()


def test_a_required_camera_that_is_lacking_cannot_be_allowed(spec):
    found = environment_mismatches(spec, described(cameras=("base_camera",)))
    with pytest.raises(SpecMismatch, match="(?s)a camera 'hand_camera' as 'observation/wrist_image'.*cannot be asked"):
        require_compatible(found, ("observation.cameras",), spec)


def test_a_camera_that_was_always_black_may_lack_and_is_said(spec):
    black = with_camera(spec, 1, all_zero=True)
    assert environment_mismatches(black, described(cameras=("base_camera",))) == ()
    (notice,) = plan_evaluation(black, options()).notices
    assert notice.startswith("The camera 'observation/wrist_image' was black in every training image")


def test_an_optional_camera_may_lack(spec):
    optional = with_camera(spec, 1, required=False)
    assert environment_mismatches(optional, described(cameras=("base_camera",))) == ()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (StateField("goal", "extra/goal_pos", 0, 8), r"'extra/goal_pos'\[0:8\], the simulator has no 'extra/goal_pos'"),
        (StateField("pose", "extra/tcp_pose", 0, 8), "the simulator has 7 numbers there. Available: agent/qpos"),
    ],
)
def test_state_that_the_simulator_cannot_give_is_refused(spec, part, words):
    state = replace(spec.observation.state, fields=(part,))
    greedy = replace(spec, observation=replace(spec.observation, state=state))
    with pytest.raises(SpecMismatch, match=words):
        require_compatible(environment_mismatches(greedy, described()), (), greedy)


def test_another_action_dimension_is_refused(spec):
    found = environment_mismatches(spec, described(action_dim=8))
    with pytest.raises(SpecMismatch, match="action.dimension: the policy has 7 numbers, the simulator 8"):
        require_compatible(found, (), spec)


def test_other_controller_bounds_are_refused(spec):
    wide = replace(spec, action=replace(spec.action, high=(2.0,) * 7))
    (mismatch,) = environment_mismatches(wide, described())
    assert mismatch.field == "action.high"


def test_a_goal_that_the_policy_cannot_know_is_said(spec):
    hidden = with_simulation(spec, env_ids=("PickCube-v1",))
    plan = plan_evaluation(hidden, options(env_id="PickCube-v1"))
    assert any("hides its goal from the cameras" in notice for notice in plan.notices)


def test_an_unseen_prompt_is_said_and_recorded(spec):
    chosen = options(prompt="Push it.")
    assert "The prompt 'Push it.' was not seen in training" in plan_evaluation(spec, chosen).notices[0]
    assert chosen.overrides == {"--prompt": "Push it."}


def test_another_task_asked_with_the_trained_prompt_is_said(spec):
    plan = plan_evaluation(spec, options(env_id="PullCube-v1", allow_mismatch=("simulation.env_ids",)))
    assert plan.prompt == "Push and move a cube to a goal region in front of it."
    assert plan.notices == (f"The prompt {plan.prompt!r} is not that of PullCube-v1, 'Pull a cube onto a target.'.",)


def test_a_task_without_a_known_prompt_asks_for_one(spec):
    prompts = replace(spec.observation.prompt, trained=())
    silent = replace(spec, observation=replace(spec.observation, prompt=prompts))
    with pytest.raises(InvalidOption, match="No prompt is known for Mystery-v1. Pass --prompt TEXT"):
        plan_evaluation(silent, options(env_id="Mystery-v1", allow_mismatch=("simulation.env_ids",)))


def test_an_execution_horizon_beyond_the_chunk_is_refused(spec):
    with pytest.raises(InvalidOption, match="--execution-horizon 5 is longer .* Pass 1 to 4"):
        plan_evaluation(spec, options(execution_horizon=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "--episodes must be at least 1, not 0."),
        ({"seed": -1}, "--seed must be at least 0, not -1."),
        ({"camera_size": (0, 64)}, "--camera-size must be at least 1, not 0."),
        ({"seed": 2**32 - 1}, "goes beyond. Pass a smaller --seed."),
    ],
)
def test_numbers_out_of_range_name_their_flag(change, message):
    with pytest.raises(InvalidOption, match=message):
        options(**change)


def test_a_run_on_demonstrations_takes_their_seeds_and_says_so(spec: PolicySpec) -> None:
    plan = plan_evaluation(spec, options(episodes=2, on_demonstrations=True))
    assert plan.seeds == (1000, 1001)
    assert plan.mismatches == ()
    assert plan.notices[0] == (
        "The episodes are the training demonstrations' own: this says what a replay reaches, not how good a policy is."
    )


def test_more_episodes_than_demonstrations_are_refused(spec: PolicySpec) -> None:
    message = (
        r"^--on-demonstrations: the policy's spec names 2 demonstration seeds, which is fewer than --episodes 5\. "
        r"Pass --episodes 2\.$"
    )
    with pytest.raises(InvalidOption, match=message):
        plan_evaluation(spec, options(episodes=5, on_demonstrations=True))


def test_a_control_mode_that_does_not_exist_is_no_mismatch_to_allow(spec: PolicySpec) -> None:
    message = r"^--control-mode 'pd_ee_delta_pos3': the robot 'panda_wristcam' has no such control mode\. Did you mean"
    with pytest.raises(UnsupportedControlMode, match=message):
        plan_evaluation(spec, options(control_mode="pd_ee_delta_pos3"))


def test_a_repeated_demonstration_seed_is_run_once(spec: PolicySpec) -> None:
    simulation = replace(spec.simulation, demonstration_seeds=(1000, 1000, 1001))
    plan = plan_evaluation(replace(spec, simulation=simulation), options(episodes=2, on_demonstrations=True))
    assert plan.seeds == (1000, 1001)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^--prompt is empty\. Pass an instruction, or leave it out\.$"):
        options(prompt=" ")
