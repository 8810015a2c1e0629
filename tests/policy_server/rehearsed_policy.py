"""`serve` with one more policy, `rehearsed`: each request says in its state how long it takes and whether it fails.

Its checkpoints are folders that say how long they take to load, see `write_rehearsed_step`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np

from policy_protocol.spec import PolicySpec
from policy_server import cli
from policy_server.log import log
from policy_server.policies import named
from policy_server.policies.dummy import DummyPolicy
from training.pi05 import load
from training.pi05.checkpoint.step_directory import SPEC_FILE, CheckpointInvalid

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
    log.debug("acting on %d rows", len(rows))  # tests wait for it
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


class RehearsedPolicy(DummyPolicy):
    """Acts as it is asked; one shape is compiled, for as long as REHEARSED_COMPILE_S says."""

    prompt_lengths = (1,)
    model = dataclasses.make_dataclass("Model", [("family", str)])("rehearsed")
    parameter_count = 0

    def __init__(self, spec):
        super().__init__(spec, act)

    def compile(self, batch, prompt_length, replica=0):
        time.sleep(float(os.environ.get("REHEARSED_COMPILE_S", "0")))


def write_rehearsed_step(run, number, spec, seconds=0.0, fault=""):
    """A step of a run that takes so long to load, or cannot be loaded for that reason."""
    draft = run / f"{number}.unfinished"
    (draft / "assets").mkdir(parents=True)
    (draft / "params").mkdir()
    checkpoint = dataclasses.replace(spec.policy.checkpoint, step=number)
    spec = dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, checkpoint=checkpoint))
    (draft / "assets" / SPEC_FILE).write_text(spec.to_json())
    (draft / "seconds").write_text(str(seconds))
    (draft / "fault").write_text(fault)
    draft.rename(run / str(number))


def read_step(step):
    """Its spec, once the time is over."""
    log.info("reading step %s", step.name)  # tests wait for it
    time.sleep(float((step / "seconds").read_text()))
    if fault := (step / "fault").read_text():
        raise CheckpointInvalid(fault)
    return PolicySpec.read(step / "assets" / SPEC_FILE)


def reload(policy, step, **_):
    policy.spec = read_step(step)


if __name__ == "__main__":
    named._BY_NAME["rehearsed"] = RehearsedPolicy
    load.load_policy = lambda source, **_: RehearsedPolicy(read_step(Path(source)))
    load.reload_policy = reload
    cli.main()
