"""The rules of the loader."""

import threading
from pathlib import Path

import numpy as np
import pytest

from training.data import (
    Dataset,
    DatasetInvalid,
    DatasetWriter,
    Feature,
    Loader,
    open_frame_cache,
)
from training.data.loading.prefetch import Prefetch

FIXTURES = Path(__file__).parents[3] / "data" / "lerobot"


@pytest.fixture(scope="module")
def dataset():
    return Dataset(FIXTURES / "lerobot_v30_image")


@pytest.fixture(scope="module")
def cache(dataset, tmp_path_factory):
    return open_frame_cache(dataset, tmp_path_factory.mktemp("cache"), height=14, width=14)


@pytest.fixture
def make(dataset, cache):
    return lambda **changes: Loader(dataset, cache, **{"action_horizon": 5, "batch_size": 8, "seed": 3, **changes})


def assert_equal(one, other):
    for name in ("state", "actions", "actions_is_pad", "rows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for key in one.images:
        np.testing.assert_array_equal(one.images[key], other.images[key])
    assert one.prompts == other.prompts


def test_a_batch_is_a_function_of_seed_and_step(make):
    assert_equal(make().batch(11), make().batch(11))
    loader = make()
    for step in (4, 900, 2):
        loader.batch(step)
    assert_equal(loader.batch(11), make().batch(11))
    assert make().rows(11).tolist() != make(seed=4).rows(11).tolist()
    assert make().rows(11).tolist() != make().rows(12).tolist()


@pytest.mark.parametrize("batch_size", [1, 8, 39, 100])
def test_every_anchor_is_visited_once_an_epoch(make, batch_size):
    """Also where a batch spans two epochs, or holds several."""
    loader = make(batch_size=batch_size)
    rows = np.concatenate([loader.rows(step) for step in range(-(-3 * 39 // batch_size))])
    for epoch in range(3):
        assert sorted(rows[epoch * 39 : (epoch + 1) * 39]) == list(range(39))
    assert rows[:39].tolist() != rows[39:78].tolist()
    assert loader.steps_per_epoch == 39 / batch_size


def test_a_sample_holds_what_the_dataset_has_at_its_row(make, dataset, cache):
    batch = make().batch(0)
    np.testing.assert_array_equal(batch.state, dataset.column("state")[batch.rows])
    np.testing.assert_array_equal(batch.actions[:, 0], dataset.column("actions")[batch.rows])
    assert batch.prompts == dataset.prompts(batch.rows)
    for key in dataset.cameras:
        assert batch.images[key].shape == (8, 14, 14, 3)
        np.testing.assert_array_equal(batch.images[key], cache.gather(key, batch.rows))
    assert (batch.state.dtype, batch.actions.dtype, batch.actions_is_pad.dtype) == (np.float32, np.float32, bool)


def test_past_the_end_of_an_episode_the_last_action_is_repeated_and_marked(make, dataset):
    batch = make().samples(np.array([7, 10, 12, 13]))
    actions = dataset.column("actions")
    assert batch.actions_is_pad.sum(axis=1).tolist() == [0, 2, 4, 0]
    np.testing.assert_array_equal(batch.actions[1], actions[[10, 11, 12, 12, 12]])
    np.testing.assert_array_equal(batch.actions[2], actions[[12] * 5])
    np.testing.assert_array_equal(batch.actions[3], actions[13:18])


def test_only_the_chosen_episodes_are_drawn_from(make):
    loader = make(episodes=(1,))
    assert loader.anchors.tolist() == list(range(13, 22))
    assert set(np.concatenate([loader.rows(step) for step in range(9)])) == set(range(13, 22))


def test_only_rows_with_a_frame_of_their_own_are_anchors(tmp_path):
    features = {
        "image": Feature("image", (4, 4, 3)),
        "state": Feature("float32", (2,)),
        "actions": Feature("float32", (1,)),
        "frame_rendered": Feature("bool", (1,)),
    }
    with DatasetWriter(tmp_path / "data", fps=20, robot_type="", features=features) as writer:
        for start in (0, 7):
            rendered = np.arange(7)[:, None] % 3 == 0
            actions = np.arange(start, start + 7, dtype=np.float32)[:, None]
            columns = {"state": np.zeros((7, 2), np.float32), "actions": actions, "frame_rendered": rendered}
            writer.add_episode(columns, {"image": np.zeros((7, 4, 4, 3), np.uint8)}, "wait")
        writer.write_metadata()
        dataset = Dataset(writer.commit())
    cache = open_frame_cache(dataset, tmp_path, height=4, width=4)
    loader = Loader(dataset, cache, action_horizon=4, batch_size=6, seed=0)
    assert loader.anchors.tolist() == [0, 3, 6, 7, 10, 13]
    batch = loader.batch(0)
    assert sorted(batch.rows) == loader.anchors.tolist()
    # The chunk's actions are of consecutive rows all the same.
    assert loader.samples(np.array([3])).actions[0, :, 0].tolist() == [3, 4, 5, 6]


def test_prefetched_batches_equal_those_made_directly_from_any_start(make):
    loader = make()
    with loader.prefetch(start=5, stop=9) as batches:
        for step, batch in zip(range(5, 9), batches, strict=True):
            assert_equal(batch, loader.batch(step))


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_leaving_an_endless_prefetch_stops_its_thread(make):
    with make().prefetch() as batches:
        next(batches)
        assert len(prefetch_threads()) == 1
    assert prefetch_threads() == []
    assert list(batches) == []


def test_at_most_depth_items_wait():
    made = []
    with Prefetch(made.append, 0, None, depth=2) as items:
        next(items)
        threading.Event().wait(0.3)
        assert len(made) <= 4  # one taken, two ready, one in the hand of the thread


def test_an_exception_is_raised_in_its_turn():
    def fail_at_two(step):
        if step == 2:
            raise ValueError("the third item")
        return step

    with Prefetch(fail_at_two, 0, None, depth=1) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(ValueError, match="the third item"):
            next(items)
    assert prefetch_threads() == []


def test_a_loader_without_a_needed_column_or_without_episodes_says_so(make):
    with pytest.raises(DatasetInvalid, match=r"has no 'action'\. It has: image, wrist_image, state, actions"):
        make(action_key="action")
    with pytest.raises(DatasetInvalid, match=r"No episode of .* is left to train on\. Hold fewer episodes out\."):
        make(episodes=())
