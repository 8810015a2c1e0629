"""Checks of the episodes: how many, how long, and whether one is there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from training.check.finding import Finding
from training.check.inspected import Inspected

__all__ = ["duplicate_episodes", "environment_limit", "few_episodes", "short_episodes", "uneven_lengths"]

_FEW = 10
_MANY_TWICE = 0.1
"""Share of copies from which they are an error."""
_UNEVEN = 3.0
_LIMITS = {
    **dict.fromkeys(("StackCube-v1", "PickCube-v1", "PushCube-v1", "PullCube-v1", "PlaceSphere-v1"), 50),
    "PegInsertionSide-v1": 100,
}
"""`max_episode_steps` that ManiSkill 3.0.1 registers."""


def few_episodes(inspected: Inspected) -> Iterator[Finding]:
    """Too few demonstrations to learn more than themselves."""
    count = len(inspected.dataset.episodes)
    if count < _FEW:
        yield Finding(
            "few-episodes",
            "warning",
            f"The dataset has {count} episode{'' if count == 1 else 's'}.",
            f"A policy will repeat them rather than learn the task: record {_FEW} or more, best a hundred.",
        )


def duplicate_episodes(inspected: Inspected) -> Iterator[Finding]:
    """Episodes with the very states and actions of an earlier one."""
    first: dict[bytes, int] = {}
    copies = []
    for part in inspected.dataset.episodes:
        content = (inspected.state[part.start : part.stop], inspected.actions[part.start : part.stop])
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(values).tobytes() for values in content)).digest()
        if (earlier := first.setdefault(digest, part.index)) != part.index:
            copies.append((part.index, earlier))
    if copies:
        count = len(inspected.dataset.episodes)
        yield Finding(
            "duplicate-episodes",
            "error" if len(copies) >= _MANY_TWICE * count else "warning",
            f"{len(copies)} of {count} episodes repeat another one, such as episode {copies[0][0]} episode "
            f"{copies[0][1]}.",
            "Copies count more in training and put what is trained on among what is held out. Convert each recording "
            "once, and record with other seeds.",
        )


def short_episodes(inspected: Inspected) -> Iterator[Finding]:
    """Episodes shorter than a chunk, which repeat their last action more than they move."""
    horizon = inspected.action_horizon
    lengths = _lengths(inspected)
    short = 0 if horizon is None else int(np.sum(lengths < horizon))
    if short:
        yield Finding(
            "short-episodes",
            "error" if short == len(lengths) else "warning",
            f"{short} of {len(lengths)} episodes are shorter than the action horizon of {horizon}; the shortest has "
            f"{lengths.min()} steps.",
            f"Every chunk of theirs ends in repeated actions. Train with --set model.action_horizon={lengths.min()}, "
            "or leave those episodes out.",
        )


def uneven_lengths(inspected: Inspected) -> Iterator[Finding]:
    """One straggler sets the limit of every evaluation episode."""
    lengths = _lengths(inspected)
    median = float(np.median(lengths))
    if lengths.max() > _UNEVEN * median:
        longest = inspected.dataset.episodes[int(lengths.argmax())]
        yield Finding(
            "uneven-lengths",
            "warning",
            f"Episode {longest.index} takes {longest.length} steps, {longest.length / median:.1f} times the median of "
            f"{median:.0f}.",
            "Evaluation episodes may take 1.5 times the longest demonstration. See whether that episode is stuck or "
            "two joined in one, and leave it out.",
        )


def environment_limit(inspected: Inspected) -> Iterator[Finding]:
    """Demonstrations that ManiSkill's own limit would cut."""
    facts, longest = inspected.dataset.facts, int(_lengths(inspected).max())
    limits = {env: _LIMITS[env] for env in (facts.env_ids if facts else ()) if env in _LIMITS}
    for env, limit in limits.items():
        if longest > limit:
            yield Finding(
                "environment-limit",
                "note",
                f"The longest demonstration has {longest} steps, but {env} ends episodes after {limit} by default.",
                "sim-client evaluates with the limit in the checkpoint's spec; set max_episode_steps in any other.",
            )


def _lengths(inspected: Inspected) -> np.ndarray:
    return np.array([part.length for part in inspected.dataset.episodes])
