"""Saves two steps of a small run, killed in the second save; again for each of several moments of it.

    python saves_that_are_killed.py STEP FOLDER

STEP is a checkpoint that lends its assets; FOLDER/MOMENT is then the run that was killed at that moment. Prints the
signals that the processes died of, by moment, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
from at_moment import at

from training.checkpoints import RunCheckpoints
from training.experiment import Experiment
from training.pi05.checkpoint.step_directory import read_assets
from training.pi05.model.config import preset
from training.train_state import TrainState, optimizer

_MOMENTS = {
    "begun": [("os.mkdir", r"/1\.orbax-checkpoint-tmp$")],
    "arrays": [("os.mkdir", r"/1\.orbax-checkpoint-tmp/params.*/.")],
    "first_part": [("os.rename", r"/1\.orbax-checkpoint-tmp/")],
    "unnamed": [("os.rename", r"/1\.orbax-checkpoint-tmp$")],
    "deleting": [("shutil.rmtree", "/0$"), ("os.rmdir", "")],
}


def save_until(moment: str, step: Path, folder: Path) -> None:
    """Step 0 is saved whole; only the last step is kept, so the save of step 1 ends by deleting step 0."""
    experiment = Experiment("small", preset("pi05_small"), "none")
    params = {"w": jnp.zeros(2)}
    opt_state = optimizer(experiment.optimizer, experiment.decay_steps).init(params)
    folder.mkdir()
    with RunCheckpoints(folder, read_assets(step), experiment, "run", keep=1) as checkpoints:
        for number in range(2):
            if number == 1:
                at(_MOMENTS[moment], lambda: os.kill(os.getpid(), signal.SIGKILL))
            checkpoints.save(TrainState(jnp.int32(number + 1), {"w": jnp.full(2, number)}, opt_state, None))
            checkpoints.wait()


def main() -> None:
    step, folder = map(Path, sys.argv[1:])
    died = {}
    for moment in _MOMENTS:
        child = os.fork()  # before jax has a thread of its own; what is imported need not be imported again
        if child == 0:
            save_until(moment, step, folder / moment)
            os._exit(0)
        died[moment] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(died))


if __name__ == "__main__":
    main()
