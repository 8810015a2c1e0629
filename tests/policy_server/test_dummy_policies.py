"""Policies without a model: deterministic, and a replay gives back what was recorded, bit for bit."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from websockets.sync.client import connect

from policy_protocol import EpisodeMoment, InferReply, InferRequest, PolicySpec, pack, unpack
from policy_protocol.errors import InvalidObservation, SpecMismatch
from policy_server.policies.dummy import random_policy, zeros_policy
from policy_server.policies.named import PolicyUnknown, named_policy
from policy_server.policies.recording import RecordingInvalid
from training.data.conversion.convert import convert
from training.pi05.policy import noise_from_seed

from .conftest import LIBERO, OPENPI, ServerProcess

DEMONSTRATION = OPENPI.parent / "demonstration/stackcube"
SEEDS, LENGTHS = (1000, 1001, 1003), (5, 7, 3)
NAMES = ("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper")


def recorded_actions(episode):
    return np.random.default_rng(episode).uniform(-1, 1, (LENGTHS[episode], 7)).astype(np.float32)


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    """Three episodes as `sim-client collect` writes them."""
    path = tmp_path_factory.mktemp("demos") / "pull.h5"
    with h5py.File(path, "w") as file:
        for episode, length in enumerate(LENGTHS):
            group = file.create_group(f"traj_{episode}")
            group["actions"] = recorded_actions(episode)
            group["obs/agent/qpos"] = np.zeros((length + 1, 9), np.float32)
            group["obs/sensor_data/base_camera/rgb"] = np.full((length + 1, 8, 8, 3), 7, np.uint8)
    simulation = {
        "env_id": "PullCube-v1",
        "prompt": "Pull a cube.",
        "robot_uids": "panda",
        "control_mode": "pd_ee_delta_pose",
        "sim_freq": 100,
        "control_freq": 20,
        "camera_height": 8,
        "camera_width": 8,
        "cameras": ["base_camera"],
        "action_names": NAMES,
        "action_low": [-1.0] * 7,
        "action_high": [1.0] * 7,
        "state_sources": {"agent/qpos": 9},
        "frame_stride": 1,
        "versions": {},
    }
    episodes = [{"episode_id": episode, "episode_seed": seed, "success": True} for episode, seed in enumerate(SEEDS)]
    document = {"env_info": {"env_id": "PullCube-v1"}, "episodes": episodes, "simulation": simulation}
    path.with_suffix(".json").write_text(json.dumps(document))
    return path


@pytest.fixture(scope="session", params=["h5", "v2.1", "v3.0"])
def recording(request, demonstrations, tmp_path_factory):
    """The same three episodes in every form that can be replayed."""
    if request.param == "h5":
        return demonstrations
    out = tmp_path_factory.mktemp("datasets") / request.param
    convert(demonstrations, out, format=request.param)
    return out


def observation_for(spec, **changes):
    observation = {
        camera.key: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in spec.observation.cameras
    }
    return {**observation, "observation/state": np.zeros(spec.observation.state.dimension), "prompt": "x", **changes}


def replayed(policy, seed, step, row=0, env_id="PullCube-v1"):
    moment = policy.recall(observation_for(policy.spec), EpisodeMoment(env_id, seed, step), row)
    return policy.launch([moment], np.zeros((1, *policy.noise_shape))).actions()[0]


@pytest.mark.parametrize("episode", range(3))
def test_a_replay_gives_the_recorded_actions_bit_for_bit(recording, episode):
    policy, actions = named_policy(f"replay:{recording}"), recorded_actions(episode)
    for step in range(len(actions)):
        chunk = replayed(policy, SEEDS[episode], step)
        assert chunk.dtype == np.float32
        np.testing.assert_array_equal(chunk[: len(actions) - step], actions[step:])


def test_beyond_its_end_a_replay_holds_still(recording):
    policy, last = named_policy(f"replay:{recording}"), recorded_actions(0)[-1]
    still = np.array([*[0.0] * 6, last[6]], np.float32)  # no more motion, and the gripper as it was
    np.testing.assert_array_equal(replayed(policy, SEEDS[0], 4), [last, *[still] * 49])
    np.testing.assert_array_equal(replayed(policy, SEEDS[0], 5000), [still] * 50)


def test_the_rows_of_a_batch_replay_the_episodes_recorded_after_the_first(recording):
    policy = named_policy(f"replay:{recording}")
    for row in range(3):
        np.testing.assert_array_equal(replayed(policy, SEEDS[0], 0, row)[:3], recorded_actions(row)[:3])
    with pytest.raises(InvalidObservation, match="a row 2, but .* holds only 1 episodes after that of seed 1001"):
        replayed(policy, SEEDS[1], 0, 2)


def test_a_replay_says_how_to_set_up_the_simulator(recording):
    spec = named_policy(f"replay:{recording}").spec
    assert spec.simulation.env_ids == ("PullCube-v1",)
    assert spec.simulation.demonstration_seeds == SEEDS
    assert spec.simulation.max_episode_steps == 11  # 1.5 times the longest
    assert (spec.simulation.control_freq, spec.simulation.sim_freq) == (20, 100)
    assert spec.action.control_mode == "pd_ee_delta_pose"
    assert spec.action.names == NAMES
    assert [camera.simulator_camera for camera in spec.observation.cameras] == ["base_camera"]
    assert spec.observation.state.fields[0].source == "agent/qpos"
    assert spec.observation.prompt.trained == ("Pull a cube.",)
    assert PolicySpec.from_wire(spec.to_wire()) == spec


def test_a_replay_refuses_what_was_not_recorded(recording):
    policy = named_policy(f"replay:{recording}")
    with pytest.raises(InvalidObservation) as refused:
        replayed(policy, 1002, 0)
    assert (
        refused.value.message
        == f"{recording} holds no episode of reset seed 1002. It holds the 3 seeds 1000, 1001, 1003."
    )
    assert refused.value.field == "episode.seed"
    with pytest.raises(InvalidObservation, match="was recorded in PullCube-v1, not in PushCube-v1"):
        replayed(policy, 1000, 0, env_id="PushCube-v1")
    with pytest.raises(InvalidObservation, match="this request names none. Use sim-client or PolicyClient"):
        policy.recall(observation_for(policy.spec), None)


def test_a_replay_refuses_an_observation_that_a_model_would_refuse(recording):
    policy = named_policy(f"replay:{recording}")
    moment = EpisodeMoment("PullCube-v1", 1000, 0)
    with pytest.raises(InvalidObservation, match="observation/state must be . numbers .*, not shape"):
        policy.recall(observation_for(policy.spec, **{"observation/state": np.zeros(3)}), moment)


def test_another_spec_changes_the_length_of_replayed_chunks_but_not_their_width(demonstrations, tmp_path):
    own = named_policy(f"replay:{demonstrations}").spec.to_wire()
    own["policy"] |= {"action_horizon": 4, "execution_horizon": 4}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(own))
    assert replayed(named_policy(f"replay:{demonstrations}", str(path)), 1001, 0).shape == (4, 7)
    with pytest.raises(SpecMismatch, match="of 7 dimensions for 'pd_ee_delta_pose', but the spec has 8 for ''"):
        named_policy(f"replay:{demonstrations}", "pi05_droid")


def test_recordings_that_cannot_be_replayed_say_why(demonstrations, tmp_path):
    with pytest.raises(RecordingInvalid, match="There is no recording at nowhere. Pass --policy replay:DATASET"):
        named_policy("replay:nowhere")
    with pytest.raises(RecordingInvalid, match="has no meta/chunkwire.json, so nothing says which episode"):
        named_policy(f"replay:{tmp_path}")
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"x")
    damaged.with_suffix(".json").write_bytes(demonstrations.with_suffix(".json").read_bytes())
    with pytest.raises(RecordingInvalid, match=r"The recording .*damaged.h5 cannot be read: "):
        named_policy(f"replay:{damaged}")
    plain = json.loads(demonstrations.with_suffix(".json").read_text())
    del plain["simulation"]
    damaged.with_suffix(".json").write_text(json.dumps(plain))
    with pytest.raises(RecordingInvalid, match="does not say how the simulation was set up. Convert the recording"):
        named_policy(f"replay:{damaged}")


def test_a_dataset_that_does_not_know_every_seed_is_not_replayed(demonstrations, tmp_path):
    out = tmp_path / "dataset"
    convert(demonstrations, out)
    facts = json.loads((out / "meta/chunkwire.json").read_text())
    facts["demonstration_seeds"].pop()
    (out / "meta/chunkwire.json").write_text(json.dumps(facts))
    with pytest.raises(RecordingInvalid, match="knows the reset seeds of 2 of its 3 episodes"):
        named_policy(f"replay:{out}")


def noise(policy, seeds):
    return np.stack([noise_from_seed(seed, policy.noise_shape) for seed in seeds])


def test_random_actions_depend_on_the_noise_seed_alone():
    policy = random_policy(LIBERO)
    alone = policy.launch([None], noise(policy, [7]), 1).actions()[0]
    among = policy.launch([None] * 3, noise(policy, [1, 7, 2]), 4).actions()
    np.testing.assert_array_equal(alone, among[1])
    assert not np.array_equal(among[0], among[1])


def test_random_actions_fill_the_controllers_bounds_evenly(recording):
    bounded = random_policy(named_policy(f"replay:{recording}").spec)
    drawn = bounded.launch([None] * 200, noise(bounded, range(200))).actions()
    assert drawn.shape == (200, 50, 7)
    assert -1 <= drawn.min() < -0.99
    assert 0.99 < drawn.max() <= 1
    assert np.histogram(drawn, 4, (-1, 1))[0] / drawn.size == pytest.approx([0.25] * 4, abs=0.01)


def test_without_bounds_random_actions_keep_to_the_training_quantiles():
    wire = LIBERO.to_wire()
    wire["action"] |= {"q01": [2.0] * 7, "q99": [3.0] * 7}
    policy = random_policy(PolicySpec.from_wire(wire))
    drawn = policy.launch([None] * 50, noise(policy, range(50))).actions()
    assert 2 <= drawn.min() < 2.05
    assert 2.95 < drawn.max() <= 3


def test_zeros_are_zeros():
    policy = zeros_policy(LIBERO)
    np.testing.assert_array_equal(policy.launch([None], noise(policy, [1])).actions(), np.zeros((1, 20, 7)))


@pytest.mark.parametrize("make", [random_policy, zeros_policy])
def test_a_dummy_refuses_an_observation_in_the_words_of_a_model(make, observation):
    policy = make(LIBERO)
    policy.transform(observation)
    with pytest.raises(InvalidObservation, match="The observation lacks 'observation/image': an image"):
        policy.transform({"prompt": "x"})
    with pytest.raises(InvalidObservation, match="holds NaN, infinity or a number beyond 1e30"):
        policy.transform({**observation, "observation/state": np.full(8, np.nan)})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randm", "There is no policy 'randm'. Did you mean 'random'?"),
        ("replay", "--policy replay does not say what to replay. Pass --policy replay:DATASET."),
        ("random:x", "There is no policy 'random:x'."),
        ("zeros", "--policy zeros needs to know what to pretend to be. Pass --spec with the name of a released policy"),
    ],
)
def test_a_policy_that_is_not_there_is_said_so(name, message):
    with pytest.raises(PolicyUnknown) as refused:
        named_policy(name)
    assert refused.value.message.startswith(message)


@pytest.fixture(scope="session")
def replay_server(environment):
    """`serve --policy replay:…` on one real demonstration."""
    server = ServerProcess(["--policy", f"replay:{DEMONSTRATION}", "--port", 0], environment)
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def test_a_demonstration_comes_through_the_whole_server_bit_for_bit(replay_server):
    policy = named_policy(f"replay:{DEMONSTRATION}")
    with connect(replay_server.url, compression=None, max_size=None) as connection:
        spec = PolicySpec.from_wire(unpack(connection.recv(timeout=60)).value["policy_spec"])
        assert spec == policy.spec
        taken = []
        for step in range(0, 87, 10):
            moment = EpisodeMoment("StackCube-v1", 1000012, step)
            connection.send(pack(InferRequest(step, observation_for(spec), noise_seed=1, episode=moment).to_wire()))
            taken.append(InferReply.from_wire(unpack(connection.recv(timeout=60)).value).chunk.actions[:10])
    recorded = replayed(policy, 1000012, 0, env_id="StackCube-v1"), replayed(policy, 1000012, 50, env_id="StackCube-v1")
    np.testing.assert_array_equal(np.concatenate(taken)[:87], np.concatenate(recorded)[:87])


def test_each_row_of_a_batch_may_be_at_a_moment_of_its_own(replay_server):
    policy = named_policy(f"replay:{DEMONSTRATION}")
    moments = EpisodeMoment("StackCube-v1", 1000012, 50), EpisodeMoment("StackCube-v1", 1000012, 3)
    rows = {
        key: value if isinstance(value, str) else np.stack([value] * 2)
        for key, value in observation_for(policy.spec).items()
    }
    with connect(replay_server.url, compression=None, max_size=None) as connection:
        connection.recv(timeout=60)
        connection.send(pack(InferRequest(1, rows, noise_seed=(1, 2), batch=2, episode=moments).to_wire()))
        actions = InferReply.from_wire(unpack(connection.recv(timeout=60)).value).chunk.actions
    for row, moment in enumerate(moments):
        recorded = replayed(policy, moment.seed, moment.step, env_id=moment.env_id)
        np.testing.assert_array_equal(actions[row], recorded)


def test_an_openpi_client_of_a_replay_is_told_what_it_lacks(replay_server):
    with connect(replay_server.url, compression=None, max_size=None) as connection:
        spec = PolicySpec.from_wire(unpack(connection.recv(timeout=60)).value["policy_spec"])
        connection.send(pack(observation_for(spec)))
        assert connection.recv(timeout=60).startswith(
            "invalid_argument: The replay policy answers by the request's episode (env_id, seed, step)"
        )
