"""Normalisation in both kinds, against openpi's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.pi05.transforms.normalization import (
    NormStats,
    NormStatsInvalid,
    norm_stats_hash,
    normalize,
    read_norm_stats,
    unnormalize,
    write_norm_stats,
)

KINDS = pytest.mark.parametrize("kind", ["zscore", "quantile"])
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture(scope="module")
def recorded(openpi_data):
    with np.load(openpi_data / "transforms.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def stats(recorded):
    names = ("mean", "std", "q01", "q99")
    return {key: NormStats(*(recorded[f"stats/{key}/{name}"] for name in names)) for key in ("state", "actions")}


@KINDS
@DTYPES
@pytest.mark.parametrize("key", ["state", "actions"])
def test_normalising_is_openpis(recorded, stats, kind, dtype, key):
    found = normalize(recorded[f"in/{key}"].astype(dtype), stats[key], kind)
    np.testing.assert_allclose(found, recorded[f"{kind}/{dtype}/norm_{key}"], rtol=1e-12)


@KINDS
@DTYPES
def test_statistics_may_be_wider_than_the_vector(recorded, stats, kind, dtype):
    narrow = normalize(recorded["in/narrow_actions"].astype(dtype), stats["actions"], kind)
    np.testing.assert_allclose(narrow, recorded[f"{kind}/{dtype}/norm_narrow_actions"], rtol=1e-12)


@KINDS
@DTYPES
@pytest.mark.parametrize("key", ["state", "actions", "wide_state", "wide_actions"])
def test_undoing_it_is_openpis_also_beyond_the_statistics(recorded, stats, kind, dtype, key):
    found = unnormalize(recorded[f"in/{key}"].astype(dtype), stats[key.removeprefix("wide_")], kind)
    np.testing.assert_allclose(
        found, recorded[f"{kind}/{dtype}/unnorm_{key}"], rtol=1e-12 if dtype == "float64" else 2e-7
    )


@KINDS
def test_undoing_what_was_done_changes_nothing(recorded, stats, kind):
    actions = recorded["in/actions"]
    back = unnormalize(normalize(actions, stats["actions"], kind), stats["actions"], kind)
    np.testing.assert_allclose(back, actions, atol=1e-9)


def test_quantiles_map_to_minus_one_and_one_and_nothing_is_clipped():
    stats = NormStats(np.zeros(1), np.ones(1), np.array([2.0]), np.array([4.0]))
    np.testing.assert_allclose(
        normalize(np.array([[2.0], [4.0], [6.0]]), stats, "quantile")[:, 0], [-1, 1, 3], atol=1e-5
    )


def test_a_vector_wider_than_the_statistics_is_refused(stats):
    with pytest.raises(NormStatsInvalid) as error:
        normalize(np.zeros(9), stats["state"], "zscore")
    assert error.value.message == (
        "The norm stats have 8 dimensions but the vector has 9. Recompute them for this dataset: train stats DATASET."
    )


def test_norm_stats_survive_the_disk(tmp_path, stats):
    path = tmp_path / "physical-intelligence" / "libero" / "norm_stats.json"
    write_norm_stats(path, stats)
    back = read_norm_stats(path)
    for key, entry in stats.items():
        np.testing.assert_array_equal(back[key].q99, entry.q99)
    assert norm_stats_hash(back) == norm_stats_hash(stats)
    assert norm_stats_hash({"state": stats["state"]}) != norm_stats_hash(stats)


def test_openpis_own_file_is_read(openpi_data):
    stats = read_norm_stats(
        openpi_data / "checkpoints/tiny_pi05/100/assets/physical-intelligence/libero/norm_stats.json"
    )
    assert {key: entry.dimension for key, entry in stats.items()} == {"state": 8, "actions": 7}


def test_statistics_without_quantiles_are_read_for_zscores(tmp_path):
    entry = {"mean": [1.0], "std": [2.0], "q01": None, "q99": None}
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps({"norm_stats": {"state": entry}}))
    stats = read_norm_stats(path)
    np.testing.assert_allclose(normalize(np.array([5.0]), stats["state"], "zscore"), [2.0], rtol=1e-5)
    write_norm_stats(path, stats)
    assert json.loads(path.read_text())["norm_stats"]["state"] == entry


@pytest.mark.parametrize("function", [normalize, unnormalize])
def test_statistics_without_quantiles_never_stand_in_for_quantiles(function):
    with pytest.raises(NormStatsInvalid) as error:
        function(np.zeros(1), NormStats(np.zeros(1), np.ones(1), None, None), "quantile")
    assert error.value.message == "The norm stats have no quantiles (q01, q99)."


def test_missing_norm_stats_name_the_path(tmp_path):
    with pytest.raises(NormStatsInvalid) as error:
        read_norm_stats(tmp_path / "no.json")
    assert error.value.message == f"The norm stats {tmp_path}/no.json cannot be read: No such file or directory."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("{}", "'norm_stats'"),
        ('{"norm_stats": []}', "no attribute 'items'"),
        ('{"norm_stats": {"state": {"mean": [0], "q01": [0], "q99": [0]}}}', "'std'"),
        (
            '{"norm_stats": {"state": {"mean": [0, 1], "std": [1], "q01": [0], "q99": [0]}}}',
            r"the columns have different lengths \(mean 2, std 1, q01 1, q99 1\)",
        ),
        (
            '{"norm_stats": {"state": {"mean": [[0, 1]], "std": [[1, 1]]}}}',
            r"mean must be a list of numbers, not of shape \(1, 2\)",
        ),
        ('{"norm_stats": {"state": {"mean": 0, "std": 1}}}', r"mean must be a list of numbers, not of shape \(\)"),
        ('{"norm_stats": {"state": {"mean": [0], "std": [1], "q01": [0]}}}', "q01 and q99 must both be there"),
        (
            '{"norm_stats": {"state": {"mean": [NaN], "std": [1], "q01": [0], "q99": [0]}}}',
            "mean holds NaN or infinity",
        ),
    ],
)
def test_a_file_that_holds_no_norm_stats_says_why(tmp_path, content, reason):
    path = tmp_path / "norm_stats.json"
    path.write_text(content)
    with pytest.raises(NormStatsInvalid, match=rf"^{path} is not a norm stats file: .*({reason})"):
        read_norm_stats(path)
