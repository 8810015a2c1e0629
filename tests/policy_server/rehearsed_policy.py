"""`serve` with one more policy, `rehearsed`: each request says in its state how long it takes and whether it fails."""

from __future__ import annotations

import time

import numpy as np

from policy_server import cli
from policy_server.policies import named
from policy_server.policies.dummy import DummyPolicy

SECONDS, FAULT, MARK = 0, 1, 2
"""What the state's numbers mean; the mark comes back as the action's."""
FINE, DEVICE_LOST, NAN, BUSY = 0, 1, 2, 3
"""BUSY keeps every core computing for its seconds; the others let the device sleep."""


def state(seconds=0.0, fault=FINE, mark=0.0):
    return np.array([seconds, fault, mark, 0, 0, 0, 0, 0], np.float32)


def compute(seconds):
    matrix, end = np.ones((1024, 1024), np.float32), time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix @ matrix


def act(rows, noise):
    states = np.stack([row.start_state for row in rows])
    seconds = float(states[:, SECONDS].max())
    if (states[:, FAULT] == BUSY).any():
        compute(seconds)
    else:
        time.sleep(seconds)
    if (states[:, FAULT] == DEVICE_LOST).any():
        raise RuntimeError("device lost")
    actions = np.zeros(noise.shape) + states[:, MARK, None, None]
    actions[states[:, FAULT] == NAN] = np.nan
    return actions


if __name__ == "__main__":
    named._BY_NAME["rehearsed"] = lambda spec: DummyPolicy(spec, act)
    cli.main()
