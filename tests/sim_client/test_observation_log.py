"""`--save-observations`: all that was sent and answered, readable with numpy alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_environment import FakeEnvironment, make_settings
from fake_policy_server import chunk_of

from policy_protocol import noise_seed
from sim_client import EpisodeRules, PolicyClient, run_episode
from sim_client.episode.chunk_use import ChunkUse
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.record import Provenance
from sim_client.errors import RecordsError, SimulationError

PROVENANCE = Provenance("tiny/test/9", "hash", 5, {}, {}, ())


@pytest.fixture
def play(spec, start_server, tmp_path):
    """One episode whose observations are saved: its requests as the server saw them."""

    def run(environment: FakeEnvironment | None = None) -> list:
        server = start_server(lambda request: chunk_of(spec, request, 0.001 * request.episode.step))
        rules = EpisodeRules(spec, "PushCube-v1", 'Push "it".', ChunkUse(3), 4, PROVENANCE)
        environment = environment or FakeEnvironment(make_settings(camera_height=8, camera_width=8))
        with PolicyClient(server.url) as policy:
            run_episode(environment, policy, rules, 2, 42, keepsakes=Keepsakes(tmp_path, observations=True))
        return server.requests

    return run


def saved(tmp_path: Path) -> dict[str, np.ndarray]:
    with np.load(tmp_path / "observations" / "seed_42.npz", allow_pickle=False) as file:
        return dict(file)


def test_what_is_saved_is_what_the_server_was_sent(play, tmp_path):
    requests = play()
    log = saved(tmp_path)
    for row, request in enumerate(requests):
        for key, value in request.observation.items():
            np.testing.assert_array_equal(log[f"sent/{key}"][row], value)
    assert log["sent/observation/image"].shape == (7, 8, 8, 3)
    assert log["sent/observation/image"].dtype == np.uint8
    assert log["sent/prompt"].tolist() == ['Push "it".'] * 7


def test_every_question_has_its_answer_its_step_and_its_noise(play, tmp_path):
    play()
    log = saved(tmp_path)
    assert log["step"].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert log["noise_seed"].tolist() == [noise_seed(5, 42, index) for index in range(7)]
    assert log["reply/actions"].shape == (7, 4, 7)
    np.testing.assert_allclose(log["reply/actions"][:, :, 0], np.repeat(0.001 * log["step"][:, None], 4, axis=1))


def test_a_void_attempt_saves_nothing(play, tmp_path):
    environment = FakeEnvironment(make_settings())
    environment.break_at = 5
    with pytest.raises(SimulationError):
        play(environment)
    assert list(tmp_path.iterdir()) == []


def test_observations_that_cannot_be_written_stop_the_run_and_say_so(play, tmp_path):
    (tmp_path / "observations").write_text("in the way")
    message = (
        r"^The observations of episode seed 42 cannot be written to .*seed_42.npz: file exists\. Make room .*out\.$"
    )
    with pytest.raises(RecordsError, match=message):
        play()
