"""How chunks become single actions: receding horizon, ensembling, asynchronous inference, a clock that runs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_environment import FakeEnvironment, make_settings

from policy_protocol import ActionChunk, PolicySpec
from policy_protocol.json_tree import from_json, to_json
from sim_client import EpisodeRules, run_episode
from sim_client.episode.chunk_use import ChunkUse, read_latency
from sim_client.episode.chunks import ChunkExecutor
from sim_client.episode.hold import hold_action
from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.errors import InvalidOption

HORIZON = 8
HOLD = None


def chunk(index: int) -> np.ndarray:
    """Row r of chunk c is the number 100 c + r."""
    return (100.0 * index + np.arange(HORIZON))[:, None]


def drive(use: ChunkUse, steps: int, delay: int = 0) -> tuple[list[float | None], list[int]]:
    """The actions of `steps` control steps, and the steps at which a chunk was asked for."""
    executor, actions, asked = ChunkExecutor(use), [], []
    for step in range(steps):
        if executor.wants_chunk:
            asked.append(step)
            executor.load(chunk(executor.chunks), delay)
        action = executor.next_action()
        actions.append(None if action is None else float(action[0]))
    return actions, asked


def test_a_receding_horizon_runs_the_first_actions_of_each_chunk():
    actions, asked = drive(ChunkUse(3), 8)
    assert actions == [0, 1, 2, 100, 101, 102, 200, 201]
    assert asked == [0, 3, 6]


def test_an_asynchronous_chunk_is_asked_for_ahead_and_takes_over_without_its_first_actions():
    actions, asked = drive(ChunkUse(4, overlap=2), 12)
    assert actions == [0, 1, 2, 3, 102, 103, 104, 105, 202, 203, 204, 205]
    assert asked == [0, 2, 6, 10]


def test_without_overlap_the_robot_holds_still_until_the_reply_is_there():
    actions, asked = drive(ChunkUse(3, latency_ms=1), 11, delay=2)
    assert actions == [0, 1, 2, HOLD, HOLD, 100, 101, 102, HOLD, HOLD, 200]
    assert asked == [0, 3, 8]


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_latency_that_the_overlap_covers_changes_nothing(delay):
    use = ChunkUse(4, overlap=2)
    assert drive(use, 30, delay) == drive(use, 30)


def test_latency_beyond_the_overlap_is_waited_for_and_what_ran_meanwhile_is_skipped():
    actions, asked = drive(ChunkUse(4, overlap=2), 14, delay=5)
    assert actions == [0, 1, 2, 3, HOLD, HOLD, HOLD, 102, 103, 104, 105, HOLD, HOLD, HOLD]
    assert asked == [0, 2, 9]


def test_any_use_that_is_accepted_runs_actions_of_its_chunks_in_order():
    for horizon, overlap, delay in itertools.product(range(1, HORIZON + 1), range(HORIZON), range(4)):
        if overlap >= horizon or horizon + overlap > HORIZON:
            continue
        actions, _ = drive(ChunkUse(horizon, overlap=overlap or None), 60, delay)
        ran = [action for action in actions if action is not HOLD]
        expected = [100 * (t // horizon) + (overlap if t >= horizon else 0) + t % horizon for t in range(len(ran))]
        assert ran == expected, (horizon, overlap, delay)
        late = max(delay - overlap, 0)
        assert actions.count(HOLD) == pytest.approx(late * (60 / (horizon + late) - 1), abs=late), (horizon, overlap)


@pytest.mark.parametrize("coefficient", [0.0, 0.01, 0.7, -0.3])
def test_ensembling_every_step_is_acts_weighted_mean_of_all_predictions(coefficient):
    """Zhao et al. 2023, algorithm 2: w_i = exp(-m * i), where w_0 is the weight of the oldest prediction."""
    actions, asked = drive(ChunkUse(1, ensemble=coefficient), 20)
    for t, action in enumerate(actions):
        chunks = range(max(0, t - HORIZON + 1), t + 1)
        weights = [np.exp(-coefficient * i) for i, _ in enumerate(chunks)]
        predictions = [chunk(c)[t - c, 0] for c in chunks]
        assert action == pytest.approx(np.dot(weights, predictions) / np.sum(weights)), t
    assert asked == list(range(20))


def test_ensembling_asks_every_execution_horizon_steps_and_keeps_chunks_to_their_last_action():
    actions, asked = drive(ChunkUse(4, ensemble=0.0), 12)
    assert asked == [0, 4, 8]
    assert actions[:4] == [0, 1, 2, 3]
    assert actions[4:8] == [(4 + 100) / 2, (5 + 101) / 2, (6 + 102) / 2, (7 + 103) / 2]
    assert actions[8:] == [(104 + 200) / 2, (105 + 201) / 2, (106 + 202) / 2, (107 + 203) / 2]


def test_an_ensemble_coefficient_however_large_leaves_the_oldest_or_the_newest():
    assert drive(ChunkUse(1, ensemble=1e6), HORIZON)[0] == list(range(HORIZON))
    assert drive(ChunkUse(1, ensemble=-1e6), 5)[0] == [0, 100, 200, 300, 400]


def test_ensembling_goes_with_asynchronous_inference():
    actions, asked = drive(ChunkUse(4, ensemble=0.0, overlap=2), 12)
    assert asked == [0, 2, 6, 10]
    assert actions[:8] == [0, 1, 2, 3, (4 + 102) / 2, (5 + 103) / 2, (6 + 104) / 2, (7 + 105) / 2]
    assert actions[8:] == [(106 + 202) / 2, (107 + 203) / 2, 204, 205]


@pytest.mark.parametrize(
    ("latency_ms", "control_freq", "steps"), [(0, 20, 0), (1, 20, 1), (50, 20, 1), (51, 20, 2), (150, 10, 2)]
)
def test_a_latency_is_rounded_up_to_control_steps(latency_ms, control_freq, steps):
    assert ChunkUse(3, latency_ms=latency_ms).delay_steps(999.0, control_freq) == steps
    assert ChunkUse(3, measured_latency=True).delay_steps(latency_ms, control_freq) == steps
    assert ChunkUse(3).delay_steps(latency_ms, control_freq) == 0


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ({"execution_horizon": 0}, "--execution-horizon must be at least 1, not 0."),
        ({"ensemble": float("nan")}, "--ensemble must be a finite number, not nan."),
        ({"overlap": 0}, "--async must be at least 1, not 0."),
        (
            {"overlap": 3},
            "--async 3 asks for the next chunk before the current one is begun: it has 3 actions to run. "
            "Pass an --async below --execution-horizon.",
        ),
        ({"latency_ms": -1.0}, "--latency-ms must be a number of milliseconds from 0, or measured, not -1."),
        ({"latency_ms": 80.0, "measured_latency": True}, "--latency-ms is either 80 or measured, not both."),
    ],
)
def test_a_use_out_of_range_names_its_flag(use, message):
    with pytest.raises(InvalidOption) as caught:
        ChunkUse(**{"execution_horizon": 3, **use})
    assert caught.value.message == message
    assert caught.value.field == message.split()[0]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (ChunkUse(5), "--execution-horizon 5 is longer than the policy's action horizon. Pass 1 to 4."),
        (
            ChunkUse(3, overlap=2),
            "--async 2 skips the first 2 of a chunk's 4 actions, which leaves fewer than --execution-horizon 3. "
            "Pass an --execution-horizon of at most 2, or a smaller --async.",
        ),
    ],
)
def test_chunks_too_short_for_their_use_are_refused_before_the_first_episode(spec, use, message):
    with pytest.raises(InvalidOption) as caught:
        rules(spec, use)
    assert caught.value.message == message


def test_a_latency_is_read_from_its_flag():
    assert read_latency(None) == (None, False)
    assert read_latency("80") == (80.0, False)
    assert read_latency("measured") == (None, True)
    with pytest.raises(InvalidOption, match="^--latency-ms must be a number .* or measured, not 'fast'.$"):
        read_latency("fast")


def test_a_use_says_what_it_is_in_one_line():
    assert str(ChunkUse(3)) == "3 actions of each chunk executed"
    assert str(ChunkUse(4, ensemble=0.01, overlap=2, latency_ms=80)) == (
        "4 actions of each chunk executed, averaged over the chunks that predict them (temporal ensembling, 0.01), "
        "the next chunk asked for 2 steps ahead (asynchronous inference), replies delayed by 80 ms"
    )
    assert str(ChunkUse(4, measured_latency=True)).endswith("by their measured round trip, which no other run repeats")


def test_holding_still_is_no_movement_or_the_same_target_and_the_gripper_stays():
    last = np.array([0.5, -0.5, 0.8], np.float32)
    names = ("x", "y", "gripper")
    for relative in ("pd_ee_delta_pose", "pd_joint_target_delta_pos", "pd_joint_delta_pos_vel", "pd_joint_vel"):
        np.testing.assert_array_equal(hold_action(relative, names, last), np.array([0, 0, 0.8], np.float32))
    for absolute in ("pd_joint_pos", "pd_ee_pose"):
        np.testing.assert_array_equal(hold_action(absolute, names, last), last)
    speeds = ("joint_0", "joint_velocity_0", "gripper_position")
    np.testing.assert_array_equal(hold_action("pd_joint_pos_vel", speeds, last), np.array([0.5, 0, 0.8], np.float32))


# Whole episodes: a fake environment, and a policy in this process that answers what the test says.

PROVENANCE = Provenance("tiny/test/9", "hash", 5, {}, {}, ())
MOVE = (1 / 32, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)


class Steady:
    """Answers every question with the same movement, after `round_trip_ms` by its own account."""

    def __init__(self, spec: PolicySpec, round_trip_ms: float = 1.0) -> None:
        self.spec, self.asked_at, self._timing = spec, [], {"round_trip_ms": round_trip_ms}

    def infer(self, observation, *, noise_seed=None, episode=None, batch=None, deadline_ms=None) -> ActionChunk:
        self.asked_at.append(episode.step)
        return ActionChunk(np.tile(np.float32(MOVE), (4, 1)), self._timing)

    def close(self) -> None:
        pass


def rules(spec: PolicySpec, use: ChunkUse) -> EpisodeRules:
    return EpisodeRules(spec, "PushCube-v1", "Push.", use, settle_steps=4, provenance=PROVENANCE)


def play(spec, use: ChunkUse, round_trip_ms: float = 1.0, **settings):
    environment, policy = FakeEnvironment(make_settings(**settings)), Steady(spec, round_trip_ms)
    return run_episode(environment, policy, rules(spec, use), index=0, seed=1), environment, policy


def test_a_robot_that_waits_moves_nothing_but_keeps_its_grip_and_time_goes_on(spec):
    record, environment, policy = play(spec, ChunkUse(3, latency_ms=80))
    assert (record.steps, record.held_steps, record.chunks) == (20, 8, 5)
    assert record.delay_steps == (2, 2, 2, 2, 2)
    assert policy.asked_at == [0, 3, 8, 13, 18]
    hold = np.float32((0, 0, 0, 0, 0, 0, -1))
    held = [step for step, action in enumerate(environment.actions) if np.array_equal(action, hold)]
    assert held == [3, 4, 8, 9, 13, 14, 18, 19]


def test_a_robot_with_absolute_targets_waits_at_its_last_target(spec):
    _, environment, _ = play(spec, ChunkUse(3, latency_ms=80), control_mode="pd_joint_pos")
    assert all(np.array_equal(action, np.float32(MOVE)) for action in environment.actions)


def test_latency_makes_a_success_later_and_asynchronous_inference_hides_it(spec):
    def first_success(use: ChunkUse) -> tuple[int | None, int]:
        record, *_ = play(spec, use, max_episode_steps=200)
        return record.first_success, record.held_steps

    assert first_success(ChunkUse(2)) == (32, 0)
    assert first_success(ChunkUse(2, latency_ms=50)) == (32 + 15, 15 + 2)  # 2 more until it has settled
    assert first_success(ChunkUse(2, latency_ms=50, overlap=1)) == (32, 0)


def test_a_measured_latency_is_what_the_client_waited(spec):
    record, *_ = play(spec, ChunkUse(3, measured_latency=True), round_trip_ms=120.0)
    assert set(record.delay_steps) == {3}
    assert record.chunk_use == ChunkUse(3, measured_latency=True)


def test_a_measured_latency_needs_a_policy_that_tells_it(spec):
    policy = Steady(spec)
    policy._timing = {}
    use = rules(spec, ChunkUse(3, measured_latency=True))
    with pytest.raises(InvalidOption, match="^--latency-ms measured needs a policy whose replies tell their 'round_"):
        run_episode(FakeEnvironment(make_settings()), policy, use, index=0, seed=1)


def test_without_a_clock_nothing_is_delayed_however_long_the_policy_thinks(spec):
    record, *_ = play(spec, ChunkUse(3), round_trip_ms=5000.0)
    assert (record.held_steps, record.delay_steps) == (0, ())


def test_the_record_says_how_chunks_were_used_and_older_records_are_still_read(spec):
    record, *_ = play(spec, ChunkUse(2, ensemble=0.1, overlap=1, latency_ms=10))
    written = to_json(record)
    assert from_json(EpisodeRecord, written) == record
    for added in ("chunk_use", "delay_steps", "held_steps", "state_outside_by_dimension"):
        del written[added]
    del written["wall"]["film_s"]
    older = from_json(EpisodeRecord, written)
    assert (older.chunk_use, older.delay_steps, older.held_steps) == (None, (), 0)
    assert older.action_hash == record.action_hash


def test_state_outside_the_quantiles_is_counted_for_each_number(spec):
    state = replace(spec.observation.state, q01=(0.15,) * 8, q99=(1.0,) * 8)
    narrow = replace(spec, observation=replace(spec.observation, state=state))
    record, *_ = play(narrow, ChunkUse(3))
    shares = record.state_outside_by_dimension
    assert shares[1:] == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert 0 < shares[0] < 1
    assert record.state_outside_share == pytest.approx(np.mean(shares), abs=1e-4)
