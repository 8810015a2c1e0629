"""Films of episodes: which are made, what is on them, and that nothing else changes by filming."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from fake_environment import FakeEnvironment, make_settings
from fake_policy_server import chunk_of

from policy_protocol import ActionChunk, PolicySpec
from sim_client import EpisodeRules, PolicyClient, run_episode
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.episode.video import VideoRules
from sim_client.errors import InvalidOption, RecordsError, RenderingUnavailable, SimulationError
from sim_client.simulator import SimulationSettings, Simulator

PROVENANCE = Provenance("tiny/test/9", "hash", 5, {}, {}, ())
SMALL = (32, 48)


def rules(spec: PolicySpec) -> EpisodeRules:
    return EpisodeRules(spec, "PushCube-v1", "Push.", ChunkUse(3), 4, PROVENANCE)


@pytest.fixture
def play(spec, start_server, tmp_path) -> Callable[..., EpisodeRecord]:
    """One filmed episode of a policy whose every action begins with `first`; 0.25 succeeds after 4 steps."""

    def run(video: VideoRules, first=0.0, index=0, seed=7, environment: FakeEnvironment | None = None) -> EpisodeRecord:
        server = start_server(lambda request: chunk_of(spec, request, first))
        environment = environment or FakeEnvironment(make_settings())
        with PolicyClient(server.url) as policy:
            return run_episode(environment, policy, rules(spec), index, seed, keepsakes=Keepsakes(tmp_path, video))

    return run


def films(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())


def frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            yield float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")


def test_a_film_shows_every_stride_and_the_last_step_in_real_time(play, tmp_path):
    environment = FakeEnvironment(make_settings())
    play(VideoRules("all", stride=3, size=SMALL), environment=environment)
    expected = [0, 3, 6, 9, 12, 15, 18, 20]
    assert environment.filmed == expected
    shown = list(frames(tmp_path / "videos" / "seed_7_timeout.mp4"))
    assert [seconds for seconds, _ in shown] == pytest.approx([step / 20 for step in expected])
    assert [image.mean() for _, image in shown] == pytest.approx([10 * step for step in expected], abs=4)
    assert shown[0][1].shape == (*SMALL, 3)


def test_a_film_is_h264_as_browsers_play_it(play, tmp_path):
    play(VideoRules("all", size=SMALL))
    with av.open(str(tmp_path / "videos" / "seed_7_timeout.mp4")) as file:
        assert (file.streams.video[0].codec.name, file.streams.video[0].format.name) == ("h264", "yuv420p")


def test_films_are_named_by_seed_and_outcome(play, tmp_path):
    play(VideoRules("all", size=SMALL), seed=3)
    play(VideoRules("all", size=SMALL), seed=4, first=0.25)
    assert films(tmp_path) == ["videos/seed_3_timeout.mp4", "videos/seed_4_success.mp4"]


def test_failures_alone_keeps_what_is_no_success(play, tmp_path):
    play(VideoRules("failures", size=SMALL), seed=3)
    play(VideoRules("failures", size=SMALL), seed=4, first=0.25)
    assert films(tmp_path) == ["videos/seed_3_timeout.mp4"]


def test_a_number_films_the_first_of_the_list_and_not_those_that_finish_first(play, tmp_path):
    for index in (3, 1, 2, 0):
        environment = FakeEnvironment(make_settings())
        play(VideoRules("2", size=SMALL), index=index, seed=index, environment=environment)
        assert bool(environment.filmed) == (index < 2)
    assert films(tmp_path) == ["videos/seed_0_timeout.mp4", "videos/seed_1_timeout.mp4"]


def test_without_video_nothing_is_filmed_or_written(play, tmp_path):
    environment = FakeEnvironment(make_settings())
    record = play(VideoRules(), environment=environment)
    assert (environment.filmed, films(tmp_path), list(tmp_path.iterdir())) == ([], [], [])
    assert record.wall.film_s < 0.01


def test_filming_is_booked_as_such(play):
    record = play(VideoRules("all", size=(512, 512)))
    assert record.wall.film_s > 0.01
    assert record.wall.film_s + record.wall.render_s + record.wall.wait_s <= record.wall.total_s + 0.01


def test_a_void_attempt_leaves_no_film(play, tmp_path):
    environment = FakeEnvironment(make_settings())
    environment.break_at = 5
    with pytest.raises(SimulationError, match="The fake simulator broke"):
        play(VideoRules("all", size=SMALL), environment=environment)
    assert environment.filmed == [0, 2, 4]
    assert films(tmp_path) == []


def test_an_episode_that_is_run_again_has_one_film(play, tmp_path):
    play(VideoRules("all", size=SMALL))
    play(VideoRules("all", size=SMALL), first=0.25)
    assert films(tmp_path) == ["videos/seed_7_success.mp4"]


def test_the_draft_of_a_worker_that_was_killed_goes_when_its_episode_is_run_again(play, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in (".seed_7.12345.draft", ".seed_77.12345.draft"):
        (tmp_path / "videos" / name).touch()
    play(VideoRules("failures", size=SMALL), first=0.25)
    assert films(tmp_path) == ["videos/.seed_77.12345.draft"]


def test_the_same_frames_give_the_same_file(play, tmp_path):
    play(VideoRules("all", size=SMALL))
    path = tmp_path / "videos" / "seed_7_timeout.mp4"
    first = path.read_bytes()
    play(VideoRules("all", size=SMALL))
    assert path.read_bytes() == first


def test_a_film_that_cannot_be_written_says_so_and_leaves_nothing(play, tmp_path):
    (tmp_path / "videos").write_text("in the way")
    with pytest.raises(RecordsError, match=r"^The video of episode seed 7 cannot be written to .*videos: .*file exis"):
        play(VideoRules("all", size=SMALL))
    assert films(tmp_path) == ["videos"]


def test_a_disk_that_fills_up_stops_the_film_and_leaves_nothing(play, tmp_path):
    """A limit on the size of files is what a full disk is to the encoder: a write that fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
    try:
        with pytest.raises(
            RecordsError, match=r"^The video of episode seed 7 .*too large\. Make room and run .*none\."
        ):
            play(VideoRules("all", size=SMALL))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert films(tmp_path) == []


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"which": "some"}, "--video must be none, all, failures or a number of episodes, not 'some'."),
        ({"which": "-1"}, "--video must be none, all, failures or a number of episodes, not '-1'."),
        ({"stride": 0}, "--video-stride must be at least 1, not 0."),
        ({"size": (255, 256)}, "--video-size 255x256 cannot be encoded. Pass even numbers of pixels from 2."),
    ],
)
def test_choices_that_cannot_be_filmed_name_their_flag(choices, message):
    with pytest.raises(InvalidOption) as caught:
        VideoRules(**choices)
    assert caught.value.message == message
    assert caught.value.field == message.split()[0]


def test_a_simulation_that_renders_nothing_is_not_filmed():
    VideoRules().check(make_settings(render_backend="none"))
    VideoRules("all").check(make_settings())
    with pytest.raises(InvalidOption, match="^--video all needs a renderer, but --render-backend is none. Pass --re"):
        VideoRules("all").check(make_settings(render_backend="none"))


# ManiSkill itself, on the task that hides its goal from the policy.


class Looking:
    """A policy whose actions follow from every pixel that it is shown."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec, self.shown = spec, []

    def infer(self, observation, *, noise_seed=None, episode=None, batch=None, deadline_ms=None) -> ActionChunk:
        images = [observation[camera.key] for camera in self.spec.observation.cameras]
        self.shown.append(images)
        seed = sum(int(image.astype(np.int64).sum()) for image in images)
        return ActionChunk(np.random.default_rng(seed).uniform(-1, 1, (4, 7)).astype(np.float32))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def pick() -> Iterator[Simulator]:
    size = {"camera_height": 64, "camera_width": 64}
    simulator = Simulator(SimulationSettings("PickCube-v1", max_episode_steps=6, **size))
    yield simulator
    simulator.close()


def test_filming_changes_neither_what_the_policy_sees_nor_the_physics(spec, pick, tmp_path):
    played = []
    for video in (VideoRules(), VideoRules("all", stride=2, size=(64, 96)), VideoRules()):
        policy = Looking(spec)
        record = run_episode(pick, policy, rules(spec), 0, 5, keepsakes=Keepsakes(tmp_path, video))
        played.append((record.action_hash, policy.shown, pick.observe(cameras=()).state["agent/qpos"].tolist()))
    plain, filmed, again = played
    assert filmed[0] == plain[0] == again[0]
    assert filmed[2] == plain[2] == again[2]
    np.testing.assert_array_equal(filmed[1], plain[1])
    np.testing.assert_array_equal(again[1], plain[1])
    assert films(tmp_path) == ["videos/seed_5_timeout.mp4"]


def test_the_film_shows_the_goal_that_the_policy_must_not_see(pick):
    def goal_pixels(image: np.ndarray) -> int:
        red, green, blue = image.astype(int).transpose(2, 0, 1)
        return int(((green > 80) & (red < 40) & (blue < 40)).sum())

    pick.reset(3)
    film = pick.film(128, 192)
    assert film.shape == (128, 192, 3)
    assert goal_pixels(film) > 20
    assert goal_pixels(pick.observe().images["base_camera"]) == 0
    assert np.array_equal(pick.film(128, 192), film)
    assert pick.film(32, 32).shape == (32, 32, 3)


def test_the_film_follows_the_scene_that_a_reset_builds_anew(pick):
    pick.reset(5)
    first = pick.film(64, 64)
    pick.reset(6)
    assert not np.array_equal(pick.film(64, 64), first)
    pick.reset(5)
    assert np.array_equal(pick.film(64, 64), first)


def test_without_a_renderer_the_simulator_films_nothing():
    simulator = Simulator(SimulationSettings("PushCube-v1", render_backend="none"))
    with pytest.raises(RenderingUnavailable, match="^Render backend 'none' films nothing. Pass --render-backend cpu.$"):
        simulator.film(64, 64)
    simulator.close()
