"""Each fault planted in a dataset is found by its name, and nothing is found in a good dataset."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

from policy_protocol.spec import StateField
from training.check import CHECK_NAMES, DatasetUnsound, check_dataset, require_sound
from training.cli import main
from training.data import Dataset, DatasetFacts, DatasetWriter, Feature
from training.data.lerobot.facts import write_facts

HORIZON, LENGTH, EPISODES = 6, 18, 12
GRIPPER = 6
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
FACTS = DatasetFacts(
    env_ids=("StackCube-v1",),
    robot_uids="panda",
    control_mode="pd_ee_delta_pose",
    sim_freq=100,
    control_freq=20,
    cameras=(),
    state_fields=(StateField("qpos", "agent/qpos", 0, 8),),
    action_names=NAMES,
    action_low=(-1.0,) * 7,
    action_high=(1.0,) * 7,
    prompts=("stack",),
    demonstration_length={"q50": 18.0, "q95": 18.0, "max": 18.0},
)


class Demonstrations:
    """A good recording of StackCube, to plant a fault in before it is written."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.fps, self.facts = 20, FACTS
        self.prompts = ["stack"] * EPISODES
        self.state = [rng.uniform(-1, 1, (LENGTH, 8)).astype(np.float32) for _ in range(EPISODES)]
        self.actions = [rng.uniform(-0.9, 0.9, (LENGTH, 7)).astype(np.float32) for _ in range(EPISODES)]
        for actions in self.actions:
            actions[:, GRIPPER] = np.where(np.arange(LENGTH) < LENGTH // 2, 1, -1)
        self.images = {
            key: [rng.integers(0, 256, (LENGTH, 8, 8, 3), dtype=np.uint8) for _ in range(EPISODES)]
            for key in ("image", "wrist_image")
        }

    def fact(self, **changes):
        self.facts = dataclasses.replace(self.facts, **changes)

    def every(self, column, change):
        for values in getattr(self, column):
            change(values)

    def write(self, out):
        features = {key: Feature("image", (8, 8, 3)) for key in self.images}
        features |= {"state": Feature("float32", (8,)), "actions": Feature("float32", (7,), NAMES)}
        with DatasetWriter(out, fps=self.fps, robot_type="panda", features=features) as writer:
            for index, prompt in enumerate(self.prompts):
                columns = {"state": self.state[index], "actions": self.actions[index]}
                writer.add_episode(columns, {key: frames[index] for key, frames in self.images.items()}, prompt)
            writer.write_metadata()
            if self.facts:
                write_facts(writer.root, self.facts)
            return Dataset(writer.commit())


def keep(demonstrations, count):
    for values in (
        demonstrations.prompts,
        demonstrations.state,
        demonstrations.actions,
        *demonstrations.images.values(),
    ):
        del values[count:]


def shorten(demonstrations, count):
    """Cut episodes to fewer steps than a chunk, around the moment in which the gripper closes."""
    around = slice(LENGTH // 2 - 2, LENGTH // 2 - 3 + HORIZON)
    for values in (demonstrations.state, demonstrations.actions, *demonstrations.images.values()):
        values[:count] = [episode[around] for episode in values[:count]]


def lengthen(demonstrations, index, times):
    for values in (demonstrations.state, demonstrations.actions, *demonstrations.images.values()):
        values[index] = np.concatenate([values[index]] * times)


def repeat_an_episode(demonstrations, count):
    for index in range(1, count + 1):
        demonstrations.state[index] = demonstrations.state[0]
        demonstrations.actions[index] = demonstrations.actions[0]


def set_column(column, index, value, rows=slice(None)):
    def plant(demonstrations):
        for values in getattr(demonstrations, column):
            values[rows, index] = value

    return plant


def blacken(*keys):
    return lambda demonstrations: [frames.fill(0) for key in keys for frames in demonstrations.images[key]]


def freeze(demonstrations):
    for frames in demonstrations.images["wrist_image"]:
        frames[:] = frames[0]


def one_nan(demonstrations):
    demonstrations.actions[3][4, 2] = np.nan


def a_spike(demonstrations):
    """A dimension that is zero but once in a while."""
    demonstrations.fact(action_low=(), action_high=())
    demonstrations.every("actions", lambda values: values[:, 5].fill(0))
    demonstrations.actions[7][3, 5] = 0.5


def pick_a_cube(demonstrations):
    demonstrations.fact(env_ids=("PickCube-v1",))


def no_prompt(demonstrations):
    demonstrations.prompts[4] = "  "


PLANTED = {
    "all cameras black": (blacken("image", "wrist_image"), "black-camera", "error"),
    "one camera black": (blacken("wrist_image"), "black-camera", "warning"),
    "a frozen camera": (freeze, "frozen-camera", "error"),
    "no camera": (lambda planted: planted.images.clear(), "no-camera", "error"),
    "a NaN": (one_nan, "not-finite", "error"),
    "a dead joint": (set_column("state", 3, 0.25), "constant-dimension", "warning"),
    "a dead state": (set_column("state", slice(None), 0), "constant-dimension", "error"),
    "a spike": (a_spike, "outliers", "error"),
    "actions often clipped": (set_column("actions", 1, 1.0, slice(0, 5)), "saturated-actions", "warning"),
    "actions mostly clipped": (set_column("actions", 1, -1.0, slice(0, 12)), "saturated-actions", "error"),
    "a gripper that never moves": (set_column("actions", GRIPPER, 1.0), "still-gripper", "error"),
    "three episodes": (lambda planted: keep(planted, 3), "few-episodes", "warning"),
    "a copy": (lambda planted: repeat_an_episode(planted, 1), "duplicate-episodes", "warning"),
    "copies": (lambda planted: repeat_an_episode(planted, 4), "duplicate-episodes", "error"),
    "a short episode": (lambda planted: shorten(planted, 1), "short-episodes", "warning"),
    "short episodes": (lambda planted: shorten(planted, EPISODES), "short-episodes", "error"),
    "a straggler": (lambda planted: lengthen(planted, 5, 4), "uneven-lengths", "warning"),
    "no facts": (lambda planted: setattr(planted, "facts", None), "missing-facts", "warning"),
    "another frequency": (lambda planted: setattr(planted, "fps", 10), "control-frequency", "error"),
    "a hidden goal": (pick_a_cube, "hidden-goal", "error"),
    "no prompt": (no_prompt, "missing-prompt", "error"),
}


def found(dataset, **options):
    return {(finding.check, finding.severity) for finding in check_dataset(dataset, **options)}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return Demonstrations().write(tmp_path_factory.mktemp("good") / "dataset")


def test_nothing_is_found_in_a_good_dataset(good):
    assert check_dataset(good, action_horizon=HORIZON) == ()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the writer's own statistics of NaN
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_by_its_name(tmp_path, fault):
    plant, name, severity = PLANTED[fault]
    demonstrations = Demonstrations()
    plant(demonstrations)
    assert (name, severity) in (seen := found(demonstrations.write(tmp_path / "bad"), action_horizon=HORIZON))
    assert len(seen) == (2 if fault == "a straggler" else 1)  # that one is beyond ManiSkill's limit too


def test_episodes_beyond_maniskills_own_limit_are_noted(tmp_path):
    demonstrations = Demonstrations()
    lengthen(demonstrations, 0, 3)
    (finding,) = check_dataset(demonstrations.write(tmp_path / "long"))
    assert (finding.check, finding.severity, finding.seen) == (
        "environment-limit",
        "note",
        "The longest demonstration has 54 steps, but StackCube-v1 ends episodes after 50 by default.",
    )


def test_a_gripper_may_rest_where_nothing_is_grasped(tmp_path):
    demonstrations = Demonstrations()
    demonstrations.fact(env_ids=("PushCube-v1",))
    set_column("actions", GRIPPER, -1.0)(demonstrations)
    assert check_dataset(demonstrations.write(tmp_path / "push")) == ()


def test_pickcube_with_its_goal_in_the_state_hides_nothing(tmp_path):
    demonstrations = Demonstrations()
    fields = (StateField("qpos", "agent/qpos", 0, 5), StateField("goal_pos", "extra/goal_pos", 0, 3))
    demonstrations.fact(env_ids=("PickCube-v1",), state_fields=fields)
    assert check_dataset(demonstrations.write(tmp_path / "pick")) == ()


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path, good, monkeypatch):
    def stored(*arguments):
        yield b"not a picture"

    monkeypatch.setattr("training.data.lerobot.image_frames.iterate_stored_images", stored)
    findings = check_dataset(good)
    assert [finding.check for finding in findings] == ["corrupt-frame", "corrupt-frame"]
    assert findings[0].seen.startswith("Frame 0 of episode 0 (row 0, camera 'image') in ")


def test_a_dataset_of_other_columns_says_what_it_has(lerobot_dataset, tmp_path):
    features = {"image": Feature("image", (8, 8, 3)), "observation.state": Feature("float32", (2,))}
    with DatasetWriter(tmp_path / "other", fps=20, robot_type="", features=features) as writer:
        columns = {"observation.state": np.zeros((2, 2), np.float32)}
        writer.add_episode(columns, {"image": np.zeros((2, 8, 8, 3), np.uint8)}, "task")
        writer.write_metadata()
        (finding,) = check_dataset(Dataset(writer.commit()), ignore=["missing-column"])
    assert (finding.check, finding.severity) == ("missing-column", "error")
    assert finding.seen == (
        "The dataset has no 'state' and no 'actions'. It has: image, observation.state, timestamp, frame_index, "
        "episode_index, index, task_index."
    )


def test_what_is_ignored_is_not_found(tmp_path):
    demonstrations = Demonstrations()
    demonstrations.fps = 10
    assert check_dataset(demonstrations.write(tmp_path / "slow"), ignore=["control-frequency"]) == ()


def test_a_check_that_does_not_exist_is_not_ignored(good):
    with pytest.raises(DatasetUnsound) as error:
        check_dataset(good, ignore=["control-frequnecy"])
    assert error.value.message == (
        "--ignore-check 'control-frequnecy': there is no such check. Did you mean 'control-frequency'? "
        f"There are: {', '.join(CHECK_NAMES)}."
    )


def test_errors_stop_a_training_and_say_how_to_go_on(tmp_path):
    demonstrations = Demonstrations()
    demonstrations.fps = 10
    blacken("wrist_image")(demonstrations)
    findings = check_dataset(demonstrations.write(tmp_path / "slow"))
    with pytest.raises(DatasetUnsound) as error:
        require_sound(findings, "datasets/slow")
    assert error.value.message == (
        "datasets/slow should not be trained on:\n"
        "  control-frequency: The dataset has 10 rows a second (fps), but its actions are for a control frequency of "
        "20 Hz. Actions replayed at another frequency fail (expert demonstrations of StackCube: 0 of 5). Convert again "
        "with --fps 20 if that is how they were recorded.\n"
        "To train on it as it is: --ignore-check control-frequency"
    )


def test_warnings_alone_stop_nothing(tmp_path):
    demonstrations = Demonstrations()
    blacken("wrist_image")(demonstrations)
    require_sound(check_dataset(demonstrations.write(tmp_path / "black")), "datasets/black")


@pytest.fixture
def train(monkeypatch, capsys):
    """Runs `train …`; gives the exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, capsys.readouterr().out

    return run


def test_the_command_prints_a_table_and_fails_on_errors(train, tmp_path):
    demonstrations = Demonstrations()
    pick_a_cube(demonstrations)
    dataset = demonstrations.write(tmp_path / "pick")
    code, out = train("check", dataset.root)
    assert code == 1
    assert "hidden-goal" in out
    assert "extra/goal_pos" in out
    assert f"{dataset.root}: 216 rows of 12 episodes; 1 error, 0 warnings, 0 notes" in out
    assert train("check", dataset.root, "--ignore-check", "hidden-goal")[0] == 0


def test_the_command_prints_json_for_programs(train, good, tmp_path):
    assert train("check", good.root, "--json") == (0, "[]\n")
    demonstrations = Demonstrations()
    keep(demonstrations, 2)
    code, out = train("check", demonstrations.write(tmp_path / "few").root, "--json")
    (finding,) = json.loads(out)
    assert code == 0
    assert finding == {
        "check": "few-episodes",
        "severity": "warning",
        "seen": "The dataset has 2 episodes.",
        "advice": "A policy will repeat them rather than learn the task: record 10 or more, best a hundred.",
    }
