"""A recipe: all figures that decide how demonstrations of a task become a policy that ships.

`make policy TASK=name` follows it, stage by stage, with the commands of the README. Those that ship stand beside their
experiments in `training/experiments/`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from training.experiment import Experiment

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How a policy is made and measured, beyond what its experiment says."""

    name: str
    """`checkpoints/<name>` is the policy, `docs/results/<name>` what it reached."""
    env_id: str
    """ManiSkill's name of the task."""
    experiment: str
    """What trains it."""
    demonstrations: int = 100
    """Successful ones, in which nothing blocks the hand."""
    camera_size: int = 128
    """Pixels that are rendered; the model scales them down to its own."""
    frame_stride: int = 4
    """Steps from one rendered frame to the next: training begins at those alone, and rendering is what takes long."""
    state: tuple[str, ...] = ("extra/tcp_pose[0:3]", "agent/qpos[7:8]")
    """Where the hand is and how far it is open: what delta actions need. Each number is a token, so few are better."""
    goal: tuple[str, ...] = ()
    """Parts of the state that say where to go, where no camera shows it."""
    ignore_checks: tuple[str, ...] = ()
    """What `train check` finds and is meant to be so."""
    steps: int | None = None
    """Updates; None for the experiment's own."""
    settings: tuple[str, ...] = ()
    """What the training has otherwise than the experiment, as `--set` takes it."""
    episodes: int = 100
    """Of the evaluation."""
    seed: int = 0
    """Of the evaluation's first episode; those of demonstrations begin at a million."""

    @property
    def collect(self) -> tuple[str, ...]:
        """Arguments of `sim-client collect`."""
        return (
            *("--env", self.env_id, "--episodes", str(self.demonstrations), "--camera-size", str(self.camera_size)),
            *("--frame-stride", str(self.frame_stride), "--skip-blocked"),
        )

    @property
    def convert(self) -> tuple[str, ...]:
        """Arguments of `train convert`."""
        return (*(word for part in (*self.state, *self.goal) for word in ("--state", part)), "--drop-idle-start")

    @property
    def check(self) -> tuple[str, ...]:
        """Arguments of `train check` and of the training."""
        return tuple(word for name in self.ignore_checks for word in ("--ignore-check", name))

    @property
    def train(self) -> tuple[str, ...]:
        """More arguments of the training."""
        return tuple(word for setting in self.settings for word in ("--set", setting))

    def variables(self, experiment: Experiment) -> Mapping[str, str]:
        """What the Makefile needs to know.

        What a stage makes is named by all that decides it, so a recipe that changed never takes what another one left,
        and recipes that agree so far share it.

        Args:
            experiment: of the recipe, as it ships.
        """
        data, steps = (*self.collect, *self.convert), str(self.steps or experiment.steps)
        return {
            "TASK": self.name,
            "ENV": self.env_id,
            "COLLECT": shlex.join(self.collect),
            "DEMOS_FILE": f"demos/{self.env_id}-{_digest(*self.collect)}.h5",
            "CONVERT": shlex.join(self.convert),
            "DATASET": f"datasets/{self.name}-{_digest(*data)}",
            "CHECK": shlex.join(self.check),
            "EXPERIMENT": experiment.name,
            "STEPS": steps,
            "SETTINGS": shlex.join(self.train),
            "RUN": f"runs/{experiment.name}/policy-{_digest(*data, experiment.to_json(), steps, *self.train)}",
            "EPISODES": str(self.episodes),
            "SEED": str(self.seed),
        }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
