"""A process of a run, the only one of its kind, that runs out of room or of memory: `failing.py PORT room|memory`."""

from __future__ import annotations

import errno
import os
import sys

import jax.numpy as jnp

from training.parallel.membership import Membership, joined


def fail(lacking):
    if lacking == "room":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
    jnp.zeros(2**50, jnp.uint8).block_until_ready()


if __name__ == "__main__":
    with joined(Membership(f"127.0.0.1:{sys.argv[1]}", 1, 0)):
        fail(sys.argv[2])
