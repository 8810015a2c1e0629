"""Several tasks with one policy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from policy_protocol import PolicySpec, did_you_mean
from sim_client.errors import InvalidOption
from sim_client.evaluation.series import Series
from sim_client.results.options import EvaluationOptions
from sim_client.tasks import TASKS

__all__ = ["SUITES", "chosen_tasks", "suite_of"]

SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType({"maniskill6": tuple(TASKS)})
"""Values of `--suite`, with their tasks."""


def chosen_tasks(env: str | None, suite: str | None) -> tuple[str, ...]:
    """The tasks of `--env A,B,C` or `--suite NAME`; none where neither is given.

    Raises:
        InvalidOption: both are given, there is no such suite, or a task is named twice.
    """
    if suite is None:
        return _named(env)
    if env is not None:
        raise InvalidOption("--env and --suite both choose tasks. Pass one of them.", field="--suite")
    if suite not in SUITES:
        raise InvalidOption(
            f"--suite {suite}: there is no such suite.{did_you_mean(suite, SUITES)} Or name tasks: --env A,B,C.",
            field="--suite",
        )
    return SUITES[suite]


def suite_of(tasks: Sequence[EvaluationOptions], policy: PolicySpec, out: Path | None) -> Series:
    """The tasks as a series, by default in `results/suite-<experiment>-<run>-<step>-seed<seed>/<env>`."""
    checkpoint = policy.policy.checkpoint
    name = f"suite-{checkpoint.experiment}-{checkpoint.run}-{checkpoint.step}-seed{tasks[0].seed}"
    return Series(
        "task",
        out or Path("results") / name.replace(os.sep, "-"),
        {one.env_id: one for one in tasks},
        lambda _, run: run.spec_hash == policy.hash,
    )


def _named(env: str | None) -> tuple[str, ...]:
    names = tuple(name for part in (env or "").split(",") if (name := part.strip()))
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption(f"--env names {name} twice. Name each task once.", field="--env")
    return names
