"""Which episodes training never sees."""

import pytest

from training.data import DatasetInvalid, held_out_episodes


def test_held_out_episodes_are_a_function_of_the_seed():
    chosen = held_out_episodes(1000, 0.25, seed=7)
    assert chosen == held_out_episodes(1000, 0.25, seed=7) == tuple(sorted(set(chosen)))
    assert 220 < len(chosen) < 280
    assert chosen != held_out_episodes(1000, 0.25, seed=8)


def test_more_episodes_or_a_larger_share_move_no_episode_back_into_training():
    chosen = set(held_out_episodes(100, 0.2, seed=7))
    assert {episode for episode in held_out_episodes(150, 0.2, seed=7) if episode < 100} == chosen
    assert chosen < set(held_out_episodes(100, 0.4, seed=7))


def test_something_is_held_out_and_something_is_left():
    assert held_out_episodes(3, 0.0, seed=0) == ()
    for seed in range(5):
        assert len(held_out_episodes(3, 0.01, seed=seed)) == 1
        assert len(held_out_episodes(3, 0.99, seed=seed)) == 2
    with pytest.raises(DatasetInvalid, match=r"The held-out fraction 1\.0 must be at least 0 and below 1\."):
        held_out_episodes(3, 1.0, seed=0)
    with pytest.raises(DatasetInvalid, match="A dataset of one episode cannot hold any out"):
        held_out_episodes(1, 0.1, seed=0)
