"""How names are told in an error."""

from __future__ import annotations

from training.pi05.listing import counted, listed

NAMES = [f"leaf_{number}" for number in range(11)]


def test_up_to_eight_names_are_told_and_the_rest_counted():
    assert listed(NAMES[:8]) == "leaf_0, leaf_1, leaf_2, leaf_3, leaf_4, leaf_5, leaf_6, leaf_7"
    assert listed(NAMES).endswith(", leaf_7 and 3 more")
    assert counted("missing", NAMES[:2]) == ["2 missing: leaf_0, leaf_1."]


def test_of_nothing_nothing_is_told():
    assert counted("missing", []) == []
