"""The proprioceptive state as a list of slices of the simulator's observation, written `agent/qpos[0:8]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from policy_protocol.spec import StateField
from training.data.errors import DemonstrationsInvalid

__all__ = ["default_state", "field_names", "parse_state"]

_FORM = re.compile(r"(?P<source>[\w/]+)(\[(?P<start>\d*):(?P<stop>\d*)\])?")
_JOINTS = "agent/qpos[0:8]"
# PickCube hides its goal from the cameras: without it a policy cannot know where to go.
_HIDDEN_GOALS = {"PickCube-v1": "extra/goal_pos"}


def default_state(env_id: str) -> tuple[str, ...]:
    """Seven arm joints and one finger (the other mirrors it), and the goal where no camera shows it."""
    return (_JOINTS, _HIDDEN_GOALS[env_id]) if env_id in _HIDDEN_GOALS else (_JOINTS,)


def parse_state(parts: Sequence[str], widths: Mapping[str, int]) -> tuple[StateField, ...]:
    """The fields that `--state` names.

    Args:
        parts: `source`, `source[start:stop]`, in the order of the state vector.
        widths: dimensions of each source that the recording has.

    Raises:
        DemonstrationsInvalid: not of that form, an unknown source, or a slice outside of it.
    """
    return tuple(_field(part, widths) for part in parts)


def _field(part: str, widths: Mapping[str, int]) -> StateField:
    match = _FORM.fullmatch(part)
    if match is None:
        raise DemonstrationsInvalid(f"--state {part!r} is not of the form source[start:stop], such as {_JOINTS}.")
    source = match["source"]
    if source not in widths:
        has = ", ".join(f"{name} ({width})" for name, width in widths.items())
        raise DemonstrationsInvalid(f"--state {part}: the recording has no {source!r}. It has: {has}.")
    start, stop = int(match["start"] or 0), int(match["stop"] or widths[source])
    if not start < stop <= widths[source]:
        raise DemonstrationsInvalid(f"--state {part}: {source!r} has {widths[source]} dimensions.")
    return StateField(source.rpartition("/")[2], source, start, stop)


def field_names(fields: Sequence[StateField]) -> tuple[str, ...]:
    """A name for each dimension of the state, such as `qpos_3`."""
    return tuple(f"{part.name}_{index}" for part in fields for index in range(part.start, part.stop))
