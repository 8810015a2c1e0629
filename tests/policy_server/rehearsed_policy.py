"""`serve` with one more policy, `rehearsed`: each request says in its state how long it takes and whether it fails."""

from __future__ import annotations

import time

import numpy as np

from policy_server import cli
from policy_server.policies import named
from policy_server.policies.dummy import DummyPolicy

SECONDS, FAULT, MARK = 0, 1, 2
"""What the state's numbers mean; the mark comes back as the action's."""
FINE, DEVICE_LOST, NAN = 0, 1, 2


def state(seconds=0.0, fault=FINE, mark=0.0):
    return np.array([seconds, fault, mark, 0, 0, 0, 0, 0], np.float32)


def act(rows, noise):
    states = np.stack([row.start_state for row in rows])
    time.sleep(float(states[:, SECONDS].max()))
    if (states[:, FAULT] == DEVICE_LOST).any():
        raise RuntimeError("device lost")
    actions = np.zeros(noise.shape) + states[:, MARK, None, None]
    actions[states[:, FAULT] == NAN] = np.nan
    return actions


if __name__ == "__main__":
    named._BY_NAME["rehearsed"] = lambda spec: DummyPolicy(spec, act)
    cli.main()
