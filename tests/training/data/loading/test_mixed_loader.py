"""Several datasets in one batch: shares, order, and that a run can begin at any step."""

from collections import Counter

import numpy as np
import pytest

from training.data import DatasetInvalid, DatasetWriter, Feature, open_data
from training.data.loading.turns import Turns

SIZE = {"height": 4, "width": 4, "action_horizon": 3, "batch_size": 8}


def write(out, level, lengths, prompt):
    """A dataset whose every number is made of `level` and the row."""
    features = {
        "image": Feature("image", (4, 4, 3)),
        "state": Feature("float32", (2,)),
        "actions": Feature("float32", (1,)),
    }
    with DatasetWriter(out, fps=20, robot_type="", features=features) as writer:
        for length in lengths:
            rows = np.arange(length, dtype=np.float32)[:, None] + level
            frames = np.full((length, 4, 4, 3), level, np.uint8)
            writer.add_episode({"state": np.repeat(rows, 2, axis=1), "actions": rows}, {"image": frames}, prompt)
        writer.write_metadata()
        return str(writer.commit())


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    return write(root / "stack", 0, (6, 5, 7), "stack"), write(root / "pick", 100, (4, 6), "pick")


@pytest.fixture(scope="module")
def make(names, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(*weights, seed=3, held_out=0.0):
        weighted = [f"{name}={weight}" for name, weight in zip(names, weights, strict=True)]
        return open_data(weighted, seed=seed, held_out=held_out).loaders(cache, **SIZE)

    return make


def test_datasets_are_drawn_by_weight(make):
    loader = make(3, 1).train
    steps = 10_000 // 8  # one cycle, in which every share is exact
    owners = Counter(np.concatenate([loader.rows(step) >= 18 for step in range(steps)]).tolist())
    assert owners == {False: 7500, True: 2500}


def test_a_mixed_batch_is_a_function_of_seed_and_step(make):
    rows = make(3, 1).train.rows(1249)
    other = make(3, 1).train
    for step in (0, 5000, 7):
        other.rows(step)
    assert other.rows(1249).tolist() == rows.tolist()
    assert make(3, 1, seed=4).train.rows(1249).tolist() != rows.tolist()


def test_each_dataset_visits_all_its_rows_before_it_repeats_one(make):
    loader = make(1, 1).train
    rows = np.concatenate([loader.rows(step) for step in range(2600)])  # two cycles and more
    for first, size in ((0, 18), (18, 10)):
        drawn = rows[(rows >= first) & (rows < first + size)]
        for epoch in range(len(drawn) // size):
            assert sorted(drawn[epoch * size : (epoch + 1) * size]) == list(range(first, first + size))


def test_a_sample_holds_what_its_own_dataset_has_at_its_row(make):
    loader = make(1, 1).train
    batch = loader.samples(np.array([19, 5, 0, 27]))
    assert batch.rows.tolist() == [19, 5, 0, 27]
    assert batch.prompts == ("pick", "stack", "stack", "pick")
    assert batch.state[:, 0].tolist() == [101, 5, 0, 105]
    assert batch.actions[:, :, 0].tolist() == [[101, 102, 103], [5, 5, 5], [0, 1, 2], [105, 105, 105]]
    assert batch.actions_is_pad.sum(axis=1).tolist() == [0, 2, 0, 2]
    assert batch.images["image"][:, 0, 0, 0].tolist() == [100, 0, 0, 100]
    assert loader.samples(np.array([3])).prompts == ("stack",)


def test_prefetched_mixed_batches_equal_those_made_directly(make):
    loader = make(1, 2).train
    with loader.prefetch(4, 7) as batches:
        for step, batch in zip(range(4, 7), batches, strict=True):
            assert batch.rows.tolist() == loader.rows(step).tolist()


def test_validation_draws_from_the_held_out_episodes_and_training_from_the_others(make):
    loaders = make(1, 1, held_out=0.3)
    trained, validated = set(loaders.train.anchors.tolist()), set(loaders.validation.anchors.tolist())
    assert trained.isdisjoint(validated)
    assert trained | validated == set(range(28))
    assert set(loaders.validation.rows(0)) <= validated
    assert make(1, 1).validation is None


def test_one_dataset_is_loaded_as_it_is(names, tmp_path):
    loaders = open_data(names[:1], seed=3).loaders(tmp_path, **SIZE)
    assert type(loaders.train).__name__ == "Loader"
    assert loaders.train.steps_per_epoch == 18 / 8


def test_norm_stats_are_of_the_episodes_trained_on(names):
    data = open_data(names, seed=3, held_out=0.3)
    rows = [
        dataset.column("actions")[dataset.episodes[episode].start : dataset.episodes[episode].stop]
        for dataset, chosen in zip(data.mixture.datasets, data.trained, strict=True)
        for episode in chosen
    ]
    np.testing.assert_allclose(data.norm_stats()["actions"].q99, np.quantile(np.concatenate(rows), 0.99), rtol=1e-6)
    assert sum(map(len, data.held_out)) == 2


def test_a_weight_that_no_cycle_can_hold_is_refused():
    with pytest.raises(DatasetInvalid, match=r"A weight is below one in 10000 of all: .* Leave it out or raise it\."):
        Turns((1e-5, 1 - 1e-5), seed=0)


def test_a_dataset_that_cannot_hold_any_episode_out_is_named(tmp_path):
    name = write(tmp_path / "single", 0, (6,), "stack")
    with pytest.raises(DatasetInvalid, match=r"single: A dataset of one episode cannot hold any out\."):
        open_data([name], seed=0, held_out=0.1)
