"""A dataset is read whole for its fingerprint once, and again when a file of it changed."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from training.data import Dataset, DatasetFacts, fingerprint
from training.data.lerobot.content_hash import ContentHash
from training.data.lerobot.facts import write_facts

FIXTURES = Path(__file__).parents[3] / "data" / "lerobot"
MODULE = "training.data.lerobot.fingerprint"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(FIXTURES / "lerobot_v21_video", tmp_path / "data"))


@pytest.fixture
def facts():
    """Of a conversion whose data was changed behind it."""
    return DatasetFacts(
        env_ids=("StackCube-v1",),
        robot_uids="panda",
        control_mode="pd_ee_delta_pose",
        sim_freq=100,
        control_freq=20,
        cameras=(),
        state_fields=(),
        action_names=(),
        action_low=(),
        action_high=(),
        prompts=("stack",),
        demonstration_length={"q50": 1.0, "q95": 1.0, "max": 1.0},
        fingerprint="a",
    )


@pytest.fixture
def read(monkeypatch):
    """The roots of the datasets that were read whole."""
    roots = []

    class Counted(ContentHash):
        def __init__(self, dataset):
            roots.append(dataset.root)
            super().__init__(dataset)

    monkeypatch.setattr(f"{MODULE}.ContentHash", Counted)
    return roots


def test_it_is_read_once_by_all_starts(root, read):
    dataset = Dataset(root)
    assert len({fingerprint(dataset), fingerprint(dataset), fingerprint(Dataset(root))}) == 1
    assert read == [root]


def test_a_file_that_changed_is_noticed_in_spite_of_the_facts_of_the_conversion(root, read, facts):
    write_facts(root, facts)
    before = fingerprint(Dataset(root))
    assert before != facts.fingerprint
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.schema.field(0), table[0].take(list(range(len(table)))[::-1])), path)
    assert fingerprint(Dataset(root)) != before
    assert len(read) == 2


def test_a_file_that_was_only_touched_changes_nothing(root, read):
    before = fingerprint(Dataset(root))
    os.utime(root / "data/chunk-000/episode_000001.parquet", (1, 1))
    assert fingerprint(Dataset(root)) == before
    assert len(read) == 2


def test_a_dataset_of_which_a_part_is_missing_is_read_at_every_start(root, read):
    """The file may be there the next time, and its size and time need not tell."""
    (root / "videos/chunk-000/image/episode_000001.mp4").unlink()
    dataset = Dataset(root)
    assert fingerprint(dataset) == fingerprint(dataset) == fingerprint(Dataset(root))
    assert len(read) == 2


def test_a_large_one_is_announced(root, monkeypatch, capsys):
    monkeypatch.setattr(f"{MODULE}._LARGE", 1000)
    fingerprint(Dataset(root))
    assert capsys.readouterr().err == f"Hashing {root}, 0.0 GB, once until a file of it changes\n"
    fingerprint(Dataset(root))
    assert capsys.readouterr().err == ""


def test_without_a_place_for_the_note_it_is_read_again(root, read, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path / "file"))
    assert fingerprint(Dataset(root)) == fingerprint(Dataset(root))
    assert len(read) == 2
