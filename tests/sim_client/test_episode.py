"""The episode loop, on the fake environment and a policy behind a real socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fake_environment import FakeEnvironment, make_settings
from fake_policy_server import chunk_of

from policy_protocol import EpisodeMoment, PolicySpec, noise_seed
from policy_protocol.errors import ProtocolViolation
from sim_client import EpisodeRules, PolicyClient, run_episode
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.episode.tally import EpisodeTally
from sim_client.simulator import StepResult

PROVENANCE = Provenance("tiny/test/9", "hash", 5, {}, {}, ())


def rules(spec: PolicySpec, **changes: object) -> EpisodeRules:
    base = EpisodeRules(spec, "PushCube-v1", "Push.", ChunkUse(3), settle_steps=4, provenance=PROVENANCE)
    return replace(base, **changes)


@pytest.fixture
def play(spec, start_server) -> Callable[..., tuple[EpisodeRecord, FakeEnvironment, list]]:
    """One episode of a policy whose every action begins with `first`: the record, the environment, the requests."""

    def run(first: float = 0.0, environment: FakeEnvironment | None = None, of: PolicySpec = spec, **changes: object):
        environment = environment or FakeEnvironment(make_settings(camera_height=8, camera_width=8))
        server = start_server(lambda request: chunk_of(of, request, first), of=of)
        with PolicyClient(server.url) as policy:
            record = run_episode(environment, policy, rules(of, **changes), index=2, seed=42)
        return record, environment, server.requests

    return run


def test_the_client_asks_for_a_new_chunk_after_execution_horizon_steps(play):
    record, _, requests = play()
    assert (record.steps, record.chunks) == (20, 7)
    assert [request.episode for request in requests] == [EpisodeMoment("PushCube-v1", 42, 3 * i) for i in range(7)]


def test_nothing_is_rendered_but_what_is_sent(play):
    _, environment, requests = play()
    assert environment.resets == [42]
    assert environment.rendered == [("base_camera", "hand_camera")] * len(requests)


def test_every_chunk_has_its_own_noise_seed_that_nothing_else_decides(play):
    _, _, requests = play()
    assert [request.noise_seed for request in requests] == [noise_seed(5, 42, index) for index in range(7)]


def test_the_observation_is_what_the_spec_orders(play):
    _, _, requests = play()
    observation = requests[0].observation
    assert set(observation) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    assert observation["observation/image"].shape == (8, 8, 3)
    assert observation["observation/image"].max() == 10
    assert observation["observation/wrist_image"].max() == 20
    np.testing.assert_allclose(observation["observation/state"], np.arange(8) / 10)
    assert observation["observation/state"].dtype == np.float32
    assert observation["prompt"] == "Push."


def test_a_camera_that_was_black_in_training_is_shown_black_and_not_rendered(play, spec):
    cameras = (spec.observation.cameras[0], replace(spec.observation.cameras[1], all_zero=True))
    black = replace(spec, observation=replace(spec.observation, cameras=cameras))
    _, environment, requests = play(of=black)
    assert set(environment.rendered) == {("base_camera",)}
    assert not requests[0].observation["observation/wrist_image"].any()


def test_without_success_the_limit_ends_the_episode(play):
    record, _, _ = play()
    assert (record.outcome, record.success_once, record.success_at_end, record.first_success) == (
        "timeout",
        False,
        False,
        None,
    )
    assert record.stages == {"is_half_way": None, "is_static": None}


def test_after_the_first_success_the_episode_settles_and_is_judged_again(play):
    record, _, _ = play(first=0.25)
    assert (record.outcome, record.first_success, record.steps) == ("success", 4, 8)
    assert record.success_at_end
    assert record.stages == {"is_half_way": 2, "is_static": None}


def test_a_stage_that_holds_from_the_start_counts_only_after_it_was_left(spec):
    tally = EpisodeTally(spec, FakeEnvironment(make_settings()))
    for step, static in enumerate((True, False, False, True, False, True), start=1):
        tally.stepped(StepResult(success=False, stages={"is_static": static}, truncated=False, elapsed_steps=step))
    assert tally.record(0, 0, "PushCube-v1", PROVENANCE).stages == {"is_static": 4}


def test_an_episode_that_the_task_declares_failed_ends_as_a_failure(spec):
    tally = EpisodeTally(spec, FakeEnvironment(make_settings()))
    tally.stepped(StepResult(success=False, stages={"fail": True}, truncated=False, elapsed_steps=1))
    assert tally.is_over(settle_steps=10)
    assert tally.record(0, 0, "PushCube-v1", PROVENANCE).outcome == "failure"


def test_a_success_that_does_not_last_counts_once_and_not_at_end(play):
    record, _, _ = play(first=0.25, environment=FakeEnvironment(make_settings(), lose_after=2))
    assert (record.success_once, record.success_at_end) == (True, False)


def test_without_settling_an_episode_runs_to_its_limit(play):
    record, _, _ = play(first=0.25, settle_steps=None)
    assert (record.outcome, record.steps) == ("success", 20)


def test_actions_are_clipped_to_the_controller_and_counted(play):
    record, environment, _ = play(first=1.5)
    assert all(action[0] == 1 for action in environment.actions)
    assert record.clipped_share == pytest.approx(1 / 7, abs=1e-4)


def test_state_outside_the_training_quantiles_is_counted(play, spec):
    state = replace(spec.observation.state, q01=(0.05,) * 8, q99=(1.0,) * 8)
    narrow = replace(spec, observation=replace(spec.observation, state=state))
    record, _, _ = play(of=narrow)
    assert record.state_outside_share == pytest.approx(1 / 8)


def test_image_statistics_are_per_camera_and_colour(play):
    record, _, _ = play()
    assert record.cameras["observation/wrist_image"].mean == (20.0, 20.0, 20.0)
    assert record.cameras["observation/image"].std == (0.0, 0.0, 0.0)


def test_the_wall_time_is_split_and_every_request_timed(play):
    record, _, _ = play()
    wall = record.wall
    assert wall.wait_s > 0
    assert wall.simulate_s + wall.render_s + wall.wait_s <= wall.total_s + 0.01
    assert len(record.round_trip_ms) == record.chunks
    assert record.infer_ms == (1.5,) * record.chunks


def test_the_same_actions_have_the_same_hash(play):
    assert play(0.25)[0].action_hash == play(0.25)[0].action_hash != play(0.5)[0].action_hash


def test_actions_that_are_not_finite_end_the_episode_with_an_error(spec, start_server):
    server = start_server(lambda request: chunk_of(spec, request, float("nan")))
    environment = FakeEnvironment(make_settings())
    with PolicyClient(server.url) as policy, pytest.raises(ProtocolViolation, match="must be finite"):
        run_episode(environment, policy, rules(spec), index=0, seed=1)
    assert environment.actions == []
