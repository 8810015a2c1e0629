"""Checks of what is said about a dataset: its simulator, its frequency, its goals, its prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.check.finding import Finding
from training.check.inspected import Inspected
from training.data.conversion.state_fields import default_state

__all__ = ["control_frequency", "hidden_goal", "missing_facts", "missing_prompt"]


def missing_facts(inspected: Inspected) -> Iterator[Finding]:
    """A dataset without its simulation facts."""
    if inspected.dataset.facts is None:
        yield Finding(
            "missing-facts",
            "warning",
            "The dataset does not say how it was recorded: it has no meta/chunkwire.json.",
            "No evaluation can tell whether its simulator is the same. Convert the recordings with train convert, or "
            "evaluate on the real robot.",
        )


def control_frequency(inspected: Inspected) -> Iterator[Finding]:
    """Rows per second that are not the controller's: actions would be executed at another speed."""
    facts, fps = inspected.dataset.facts, inspected.dataset.metadata.fps
    if facts and fps != facts.control_freq:
        yield Finding(
            "control-frequency",
            "error",
            f"The dataset has {fps:g} rows a second (fps), but its actions are for a control frequency of "
            f"{facts.control_freq} Hz.",
            "Actions replayed at another frequency fail (expert demonstrations of StackCube: 0 of 5). Convert again "
            f"with --fps {facts.control_freq} if that is how they were recorded.",
        )


def hidden_goal(inspected: Inspected) -> Iterator[Finding]:
    """A goal that no camera shows and the state does not hold."""
    facts = inspected.dataset.facts
    held = {part.source for part in facts.state_fields} if facts else set()
    for env in facts.env_ids if facts else ():
        for source in default_state(env)[1:]:
            if source not in held:
                yield Finding(
                    "hidden-goal",
                    "error",
                    f"{env} hides its goal from the cameras, and the state, {', '.join(sorted(held))}, lacks it.",
                    f"No policy can know where to go. Convert again with --state {source} among the parts.",
                )


def missing_prompt(inspected: Inspected) -> Iterator[Finding]:
    """Rows without an instruction."""
    dataset = inspected.dataset
    tasks = dataset.metadata.tasks
    for index, count in zip(*np.unique(dataset.task_indices, return_counts=True), strict=True):
        if not tasks.get(int(index), "").strip():
            known = "is empty" if int(index) in tasks else "is not listed in meta/"
            yield Finding(
                "missing-prompt",
                "error",
                f"{count} of {dataset.rows} rows have no prompt: task {index} {known}.",
                "Convert again with --prompt, the very sentence that the policy will be given.",
            )
