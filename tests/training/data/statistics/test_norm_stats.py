"""Norm stats are exact, come from columns alone, and follow openpi's definition."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from training.data import Dataset, DatasetInvalid, DatasetWriter, Feature, compute_norm_stats

FIXTURES = Path(__file__).parents[3] / "data" / "lerobot"


def write_numbers(out, episodes):
    features = {"state": Feature("float32", (1,)), "actions": Feature("float32", (2,))}
    with DatasetWriter(out, fps=20, robot_type="", features=features) as writer:
        for state, actions in episodes:
            columns = {"state": np.asarray(state, np.float32), "actions": np.asarray(actions, np.float32)}
            writer.add_episode(columns, {}, "wait")
        writer.write_metadata()
        return Dataset(writer.commit())


def test_statistics_are_exact_over_all_rows():
    dataset = Dataset(FIXTURES / "lerobot_v30_image")
    stats = compute_norm_stats(dataset)
    assert list(stats) == ["state", "actions"]
    for key, entry in stats.items():
        values = dataset.column(key).astype(np.float64)
        np.testing.assert_allclose(entry.mean, values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(entry.std, np.sqrt(((values - values.mean(axis=0)) ** 2).mean(axis=0)), rtol=1e-12)
        np.testing.assert_allclose(entry.q01, np.quantile(values, 0.01, axis=0), rtol=1e-12)
        np.testing.assert_allclose(entry.q99, np.quantile(values, 0.99, axis=0), rtol=1e-12)
        assert entry.mean.dtype == np.float64


def test_known_numbers(tmp_path):
    """0 to 100 in steps of one: the percentiles are the numbers themselves."""
    ramp = np.arange(101.0)
    dataset = write_numbers(tmp_path / "out", [(ramp[:, None], np.stack([ramp, 0 * ramp], axis=1))])
    state, actions = compute_norm_stats(dataset).values()
    assert (state.mean, state.q01, state.q99) == (50.0, 1.0, 99.0)
    np.testing.assert_allclose(actions.std, [np.sqrt((101**2 - 1) / 12), 0.0])


def test_no_image_is_decoded(tmp_path):
    root = Path(shutil.copytree(FIXTURES / "lerobot_v21_video", tmp_path / "data"))
    shutil.rmtree(root / "videos")
    assert compute_norm_stats(Dataset(root))["state"].dimension == 8


def test_some_episodes_give_the_statistics_of_their_rows(tmp_path):
    dataset = write_numbers(tmp_path / "out", [(np.full((3, 1), level), np.zeros((3, 2))) for level in (1, 5, 9)])
    assert compute_norm_stats(dataset, episodes=(0, 2))["state"].mean == 5.0
    assert compute_norm_stats(dataset, episodes=(1,))["state"].std == 0.0


def test_a_nan_is_named_with_its_row(tmp_path):
    actions = np.zeros((4, 2))
    actions[2, 1] = np.nan
    dataset = write_numbers(tmp_path / "out", [(np.zeros((4, 1)), actions)])
    with pytest.raises(DatasetInvalid, match="The column 'actions' of .* holds NaN or infinity, first in row 2"):
        compute_norm_stats(dataset)


def test_a_missing_column_shows_what_there_is():
    with pytest.raises(
        DatasetInvalid, match=r"has no 'observation\.state'\. It has: image, wrist_image, state, actions"
    ):
        compute_norm_stats(Dataset(FIXTURES / "lerobot_v30_image"), keys=("observation.state",))
