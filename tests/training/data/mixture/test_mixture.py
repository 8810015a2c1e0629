"""Datasets that agree become one; those that do not are shown beside each other."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from training.data import CameraFacts, DatasetFacts, DatasetInvalid, DatasetsDiffer, Mixture, MixturePart, open_data
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import write_facts
from training.data.lerobot.fingerprint import fingerprint

FIXTURE = Path(__file__).parents[3] / "data" / "lerobot" / "lerobot_v30_image"
FACTS = DatasetFacts(
    env_ids=("StackCube-v1",),
    robot_uids="panda",
    control_mode="pd_ee_delta_pose",
    sim_freq=100,
    control_freq=20,
    cameras=(CameraFacts("image", "base_camera", 32, 32, (10.0, 0.0, 0.0), (3.0, 0.0, 0.0), False),),
    state_fields=(),
    action_names=(),
    action_low=(),
    action_high=(),
    prompts=("stack",),
    demonstration_length={"q50": 1.0, "q95": 1.0, "max": 1.0},
    demonstration_seeds=(1, 2),
    fingerprint="a",
)


@pytest.fixture
def copy(tmp_path):
    def copy(name, info=lambda info: None, facts=None):
        root = Path(shutil.copytree(FIXTURE, tmp_path / name))
        document = json.loads((root / "meta/info.json").read_text())
        info(document)
        (root / "meta/info.json").write_text(json.dumps(document))
        if facts is not None:
            write_facts(root, facts)
        return MixturePart(Dataset(root))

    return copy


def test_datasets_that_differ_are_shown_in_a_table(copy):
    one = copy("one")
    other = copy("two", lambda info: (info.update(fps=30), info["features"]["actions"].update(shape=[6])))
    with pytest.raises(DatasetsDiffer) as caught:
        Mixture([one, other])
    first, *table = caught.value.message.splitlines()
    assert first == (
        "The datasets differ in fps, actions, so they cannot be mixed. Convert them alike, or train on one kind "
        "(--dataset)."
    )
    cells = [line.split() for line in table]
    assert cells[0] == [str(one.dataset.root), str(other.dataset.root)]
    assert cells[1] == ["*", "fps", "20", "30"]
    assert cells[2] == ["state", "[8]", "[8]"]
    assert cells[3] == ["*", "actions", "[7]", "[6]"]
    assert cells[4][0] == "cameras"
    assert table[1].index("30") == table[3].index("[6]")  # columns are aligned


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (dataclasses.replace(FACTS, control_mode="pd_joint_pos"), "control mode"),
        (dataclasses.replace(FACTS, robot_uids="panda_wristcam", sim_freq=500), "robot, physics Hz"),
        (None, "robot, control mode, physics Hz, state fields, action bounds, frame stride"),
    ],
)
def test_simulation_facts_must_agree_too(copy, other, differing):
    with pytest.raises(DatasetsDiffer, match=rf"The datasets differ in {differing}, so they cannot be mixed"):
        Mixture([copy("one", facts=FACTS), copy("two", facts=other)])


def test_a_camera_that_only_one_dataset_has_is_a_difference(copy):
    with pytest.raises(DatasetsDiffer, match="The datasets differ in cameras,"):
        Mixture([copy("one"), copy("two", lambda info: info["features"].pop("wrist_image"))])


def test_facts_of_a_mixture_are_those_of_all(copy):
    camera = dataclasses.replace(FACTS.cameras[0], mean=(20.0, 0.0, 0.0), std=(4.0, 0.0, 0.0))
    other = dataclasses.replace(
        FACTS,
        env_ids=("PickCube-v1",),
        prompts=("pick", "stack"),
        demonstration_seeds=(2, 5),
        cameras=(camera,),
        fingerprint="b",
    )
    mixture = Mixture([copy("one", facts=FACTS), copy("two", facts=other)])
    facts = mixture.facts
    assert facts.env_ids == ("StackCube-v1", "PickCube-v1")
    assert facts.prompts == ("stack", "pick")
    assert facts.demonstration_seeds == (1, 2, 5)
    assert facts.demonstration_length == {"q50": 13.0, "q95": 17.0, "max": 17.0}
    assert facts.cameras[0].mean[0] == 15.0
    np.testing.assert_allclose(facts.cameras[0].std[0], np.sqrt((9 + 16) / 2 + 25))
    assert mixture.rows == 78
    assert mixture.tasks == mixture.datasets[0].tasks


def test_contents_and_weights_decide_the_fingerprint(copy, tmp_path):
    one = copy("one")
    assert Mixture([one]).fingerprint == fingerprint(one.dataset)
    tasks = tmp_path / "two" / "meta/tasks.parquet"
    copy("two")
    table = pq.read_table(tasks)
    text = next(name for name in table.column_names if name != "task_index")
    pq.write_table(table.set_column(table.column_names.index(text), text, [["stack", "unstack"]]), tasks)
    two = MixturePart(Dataset(tasks.parents[1]))
    heavier = dataclasses.replace(two, weight=2.0)
    assert len({Mixture(parts).fingerprint for parts in ([one], [one, two], [one, heavier], [two, one])}) == 4
    both_heavier = [dataclasses.replace(one, weight=2.0), heavier]
    assert Mixture(both_heavier).fingerprint == Mixture([one, two]).fingerprint


def test_weights_are_numbers_above_zero():
    assert open_data([str(FIXTURE), f"{FIXTURE}=3"], seed=0).mixture.weights == (0.25, 0.75)
    for weight in ("0", "-1", "nan", "inf"):
        with pytest.raises(DatasetInvalid, match=rf"lerobot_v30_image has the weight {weight}; it must be above 0\."):
            open_data([f"{FIXTURE}={weight}"], seed=0)
    with pytest.raises(DatasetInvalid, match=r"^--dataset data=much: 'much' is no weight\. Write NAME or NAME=WEIGHT,"):
        open_data(["data=much"], seed=0)
    with pytest.raises(DatasetInvalid, match=r"^There is no dataset to train on\. Pass --dataset\.$"):
        open_data([], seed=0)
