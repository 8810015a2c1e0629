"""Which steps of a run stay on disk."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from training.retention import Retention, best_step, kept_steps

STEPS = [99, 199, 299, 399, 499, 599]


@pytest.mark.parametrize(
    ("losses", "every", "kept"),
    [
        ({}, None, {499, 599}),
        ({199: 0.2, 399: 0.3, 599: 0.4}, None, {199, 499, 599}),
        ({}, 200, {199, 399, 499, 599}),
        ({99: 0.1, 150: 0.01}, 300, {99, 299, 499, 599}),
        ({99: float("nan"), 299: 0.5}, None, {299, 499, 599}),
    ],
)
def test_the_last_the_best_and_every_so_many_stay(losses, every, kept):
    assert kept_steps(STEPS, losses, 2, every) == kept


def test_of_equal_losses_the_later_step_is_the_best():
    assert best_step(STEPS, {99: 0.5, 299: 0.5}) == 299


def test_a_step_that_was_not_validated_is_never_the_best():
    assert best_step(STEPS, {}) is None


def test_losses_are_read_from_the_runs_own_file_but_not_a_line_cut_short(tmp_path):
    lines = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in ((99, 0.3), (199, 0.4))]
    (tmp_path / "validation.jsonl").write_text("".join(lines) + '{"step": 299, "lo')
    steps = [SimpleNamespace(step=step) for step in STEPS]
    assert Retention(tmp_path, last=1).should_preserve(steps, context=None) == [True, *[False] * 4, True]
