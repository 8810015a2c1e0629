"""A wave of episodes: what an episode comes to does not depend on how many run beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from fake_vector_environment import Cart, FakeVectorEnvironment, make_settings

from policy_protocol import ActionChunk, EpisodeMoment, InferReply, InferRequest, noise_seed
from policy_protocol.errors import ChunkwireError
from sim_client import EpisodeRules, PolicyClient, run_episode
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.record import EpisodeRecord, Provenance, WallTime
from sim_client.episode.vector_runner import run_episodes
from sim_client.episode.video import VideoRules
from sim_client.errors import InvalidOption

PROVENANCE = Provenance("tiny/test/9", "hash", 5, {}, {}, ())
SEEDS = (40, 41, 43, 44, 47, 49, 51, 58, 60)
SETTINGS = make_settings(camera_height=8, camera_width=8)


def answer(request: InferRequest) -> dict:
    """Every row gets actions that its own noise seed and state decide."""
    rows = request.batch or 1
    seeds = request.noise_seed if request.batch else (request.noise_seed,)
    states = np.asarray(request.observation["observation/state"]).reshape(rows, -1)
    actions = np.stack([_actions(seed, state) for seed, state in zip(seeds, states, strict=True)])
    return InferReply(request.id, ActionChunk(actions if request.batch else actions[0], {"infer_ms": 1.5})).to_wire()


def _actions(seed: int, state: np.ndarray) -> np.ndarray:
    drawn = np.random.default_rng(seed).uniform(-1.1, 1.1, (4, 7))
    drawn[:, 0] = 0.15 + 0.1 * drawn[:, 0] - 0.02 * state[0]
    return drawn.astype(np.float32)


@pytest.fixture
def rules(spec) -> Callable[..., EpisodeRules]:
    """The rules of a run with chunks of four actions."""

    def make(**changes: object) -> EpisodeRules:
        return replace(EpisodeRules(spec, "PushCube-v1", "Push.", ChunkUse(3), 4, PROVENANCE), **changes)

    return make


@pytest.fixture
def play(rules, start_server) -> Callable[..., tuple[list[EpisodeRecord], FakeVectorEnvironment, list[InferRequest]]]:
    """Waves over `seeds` in `num_envs` carts: the records, the carts of the last wave, the requests."""

    def run(num_envs: int, seeds: Sequence[int] = SEEDS, lose_after: int | None = None, **changes: object):
        server, records = start_server(answer), []
        with PolicyClient(server.url) as policy:
            for start in range(0, len(seeds), num_envs):
                wave = list(enumerate(seeds))[start : start + num_envs]
                environment = FakeVectorEnvironment(SETTINGS, num_envs, lose_after)
                records += run_episodes(environment, policy, rules(**changes), wave)
        return sorted(records, key=lambda record: record.index), environment, server.requests

    return run


def without_times(record: EpisodeRecord) -> EpisodeRecord:
    return replace(record, wall=WallTime(), round_trip_ms=(), finished_at="")


@pytest.mark.parametrize(
    "use",
    [ChunkUse(3), ChunkUse(1, ensemble=0.1), ChunkUse(3, overlap=1), ChunkUse(3, latency_ms=50)],
    ids=["receding", "ensemble", "overlap", "latency"],
)
@pytest.mark.parametrize("settle_steps", [4, None])
def test_every_number_of_environments_gives_the_records_of_one_by_one(play, rules, start_server, use, settle_steps):
    changes = {"settle_steps": settle_steps, "chunk_use": use}
    cart = Cart(SETTINGS, lose_after=2)
    with PolicyClient(start_server(answer).url) as policy:
        alone = [run_episode(cart, policy, rules(**changes), index, seed) for index, seed in enumerate(SEEDS)]
    assert {record.outcome for record in alone} == {"success", "failure", "timeout"}
    assert len({record.steps for record in alone}) > 2 or settle_steps is None
    assert len({record.first_success for record in alone}) > 3
    assert len({record.action_hash for record in alone}) == len(SEEDS)
    for num_envs in (1, 2, 7):
        records, _, _ = play(num_envs, lose_after=2, **changes)
        assert [*map(without_times, records)] == [*map(without_times, alone)], num_envs


def test_all_that_want_a_chunk_ask_in_one_request_with_seeds_and_moments_of_their_own(play):
    records, environment, requests = play(7, SEEDS[:7])
    assert [request.batch for request in requests] == [len(envs) for envs in environment.observed]
    assert requests[0].batch == 7
    assert requests[-1].batch < 7
    for number, (request, envs) in enumerate(zip(requests, environment.observed, strict=True)):
        seeds = [SEEDS[env] for env in envs]
        assert request.noise_seed == tuple(noise_seed(5, seed, number) for seed in seeds)
        assert request.episode == tuple(EpisodeMoment("PushCube-v1", seed, 3 * number) for seed in seeds)
    assert sum(request.batch for request in requests) == sum(record.chunks for record in records)


def test_a_request_has_a_leading_axis_of_its_rows_and_a_prompt_for_each(play):
    _, _, requests = play(2, SEEDS[:2])
    observation = requests[0].observation
    assert observation["observation/image"].shape == (2, 8, 8, 3)
    assert observation["observation/state"].shape == (2, 8)
    assert observation["prompt"] == ["Push.", "Push."]


def test_a_finished_robot_holds_still_and_is_neither_looked_at_nor_counted(play):
    """Seed 43 is declared failed at step 6; had it gone on, it would have arrived."""
    records, environment, requests = play(2, (43, 49))
    failed, other = records
    assert (failed.outcome, failed.steps, failed.success_once) == ("failure", 6, False)
    assert other.steps > 10
    after = environment.carts[0].actions[6:]
    assert len(after) == other.steps - 6
    assert all((action[:6] == 0).all() for action in after)
    assert len({action[6] for action in (environment.carts[0].actions[5], *after)}) == 1  # the gripper stays as it is
    assert all(0 not in envs for envs in environment.observed[2:])
    assert [request.batch for request in requests[:3]] == [2, 2, 1]


def test_environments_without_an_episode_repeat_the_last_one_and_leave_no_record(play):
    records, environment, requests = play(4, SEEDS[:2])
    assert [record.seed for record in records] == [40, 41]
    assert [cart.resets for cart in environment.carts] == [[40], [41], [41], [41]]
    assert {env for envs in environment.observed for env in envs} == {0, 1}
    assert max(request.batch for request in requests) == 2
    for spare in environment.carts[2:]:
        np.testing.assert_array_equal(spare.actions, environment.carts[1].actions)


def test_an_episode_is_handed_over_as_soon_as_it_is_over(rules, start_server):
    environment, steps = FakeVectorEnvironment(SETTINGS, 3), []
    with PolicyClient(start_server(answer).url) as policy:
        wave = run_episodes(environment, policy, rules(), [(0, 49), (1, 43), (2, 40)], lambda *step: steps.append(step))
        first = next(wave)
        assert (first.index, first.steps) == (1, 6)
        assert steps == [(index, step) for step in range(1, 7) for index in range(3)]
        rest = list(wave)
    assert {record.index for record in rest} == {0, 2}
    assert steps.count((1, 6)) == 1
    assert (1, 7) not in steps


def test_a_policy_that_breaks_leaves_what_is_over_and_voids_the_rest(rules, start_server):
    def break_at_step_9(request: InferRequest) -> dict:
        if request.episode[0].step == 9:
            return InferReply(request.id, error=ChunkwireError("The policy broke.")).to_wire()
        return answer(request)

    with PolicyClient(start_server(break_at_step_9).url) as policy:
        wave = run_episodes(FakeVectorEnvironment(SETTINGS, 2), policy, rules(), [(0, 43), (1, 49)])
        assert next(wave).seed == 43
        with pytest.raises(ChunkwireError, match=r"The policy broke\."):
            next(wave)


def test_wall_time_is_shared_so_that_episodes_add_up_to_the_wave(play):
    began = time.perf_counter()
    records, _, _ = play(7, SEEDS[:7])
    elapsed = time.perf_counter() - began
    total = sum(record.wall.total_s for record in records)
    assert 0 < total <= elapsed + 0.01
    for record in records:
        parts = record.wall.simulate_s + record.wall.render_s + record.wall.wait_s
        assert parts <= record.wall.total_s + 0.003
        assert len(record.round_trip_ms) == len(record.infer_ms) == record.chunks


def test_more_than_32_mb_of_images_go_in_several_requests_and_change_nothing(spec, rules, start_server):
    settings = make_settings(camera_height=1024, camera_width=1024, max_episode_steps=3)
    server = start_server(answer)
    wave = list(enumerate(SEEDS[:7]))
    with PolicyClient(server.url) as policy:
        records = list(run_episodes(FakeVectorEnvironment(settings, 7), policy, rules(), wave))
        alone = [run_episode(Cart(settings), policy, rules(), index, seed) for index, seed in wave]
    assert [request.batch for request in server.requests[:2]] == [5, 2]
    assert [record.action_hash for record in records] == [record.action_hash for record in alone]


def test_what_was_sent_and_answered_is_kept_for_each_episode_as_if_it_ran_alone(rules, start_server, tmp_path):
    kept = {name: Keepsakes(tmp_path / name, observations=True) for name in ("wave", "alone")}
    with PolicyClient(start_server(answer).url) as policy:
        environment = FakeVectorEnvironment(SETTINGS, 2)
        list(run_episodes(environment, policy, rules(), [(0, 43), (1, 40)], keepsakes=kept["wave"]))
        for index, seed in ((0, 43), (1, 40)):
            run_episode(Cart(SETTINGS), policy, rules(), index, seed, keepsakes=kept["alone"])
    files = sorted(path.relative_to(tmp_path / "wave") for path in (tmp_path / "wave").rglob("*.npz"))
    assert len(files) == 2
    for file in files:
        wave, alone = (np.load(tmp_path / name / file, allow_pickle=False) for name in ("wave", "alone"))
        assert wave.files == alone.files
        for key in wave.files:
            np.testing.assert_array_equal(wave[key], alone[key], err_msg=key)


def test_films_are_refused_before_anything_is_run(rules, start_server):
    environment = FakeVectorEnvironment(SETTINGS, 2)
    with PolicyClient(start_server(answer).url) as policy:
        wave = run_episodes(environment, policy, rules(), [(0, 43)], keepsakes=Keepsakes(video=VideoRules("failures")))
        with pytest.raises(InvalidOption) as refused:
            next(wave)
    assert str(refused.value) == (
        "--video failures cannot film environments that are simulated together on a GPU. Leave it out, or pass "
        "--sim-backend cpu to film the same seeds."
    )
    assert refused.value.field == "--video"
    assert environment.carts[0].resets == []


def test_a_wave_of_nothing_is_nothing(rules, start_server):
    with PolicyClient(start_server(answer).url) as policy:
        assert list(run_episodes(FakeVectorEnvironment(SETTINGS, 2), policy, rules(), [])) == []
