"""What a run may run out of: room on the disk, and memory of a device."""

from __future__ import annotations

import errno
import os

from policy_protocol.errors import ChunkwireError

__all__ = ["NO_ROOM", "NoRoom", "OutOfMemory", "explained"]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of the system that room on the disk, or in a quota, would cure."""
_NO_MEMORY = "RESOURCE_EXHAUSTED"
"""How XLA begins what it says when an array or a program's buffers do not fit."""


class NoRoom(ChunkwireError):
    """A file could not be written: the disk or the quota is full."""

    code = "no_room"


class OutOfMemory(ChunkwireError):
    """A device has no memory for what the run computes."""

    code = "out_of_memory"


def explained(error: BaseException) -> BaseException:
    """An error in words that say what to do where something ran out; any other as it is."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return _no_room(error)
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_MEMORY):  # jax's; importing it takes a second
        return _out_of_memory(error)
    return error


def _no_room(error: OSError) -> NoRoom:
    what = f"{error.filename} could not be written" if error.filename else "A file could not be written"
    return NoRoom(
        f"{what} ({os.strerror(error.errno or 0)}). Make room on the disk, then repeat the command: a training run "
        "goes on with --resume, or if it has no step yet begins anew with --overwrite."
    )


def _out_of_memory(error: RuntimeError) -> OutOfMemory:
    reason = str(error).splitlines()[0].removeprefix(f"{_NO_MEMORY}:").strip().rstrip(".")[:300]
    return OutOfMemory(
        f"A device has too little memory ({reason}). Compute each batch in more parts (--set accumulate_steps=…) or on "
        "more devices: a run with a saved step then goes on with --resume. Or begin one with a smaller batch "
        "(--set batch_size=…). What the state alone takes: train list --memory."
    )
