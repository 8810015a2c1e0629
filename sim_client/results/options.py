"""What an evaluation was asked to do, before the policy has been heard."""

from __future__ import annotations

from dataclasses import dataclass

from sim_client.errors import InvalidOption
from sim_client.option_checks import RENDER_BACKENDS, require_at_least, require_choice

__all__ = ["DEFAULT_SEED", "EvaluationOptions"]

DEFAULT_SEED = 0
"""First episode seed. Demonstrations are collected from a seed far above, so that the two do not meet."""


@dataclass(frozen=True)
class EvaluationOptions:
    """The command line of an evaluation. None leaves the choice to the policy's spec.

    Raises:
        InvalidOption: a value is out of range; the message names the flag.
    """

    env_id: str
    """ManiSkill's name of the task."""
    episodes: int = 20
    seed: int = DEFAULT_SEED
    """Seed of the first episode; episode i is reset with seed + i."""
    run_seed: int = 0
    """Base of the policy's noise: the same run seed gives the same noise in every episode."""
    prompt: str | None = None
    robot_uids: str | None = None
    control_mode: str | None = None
    sim_freq: int | None = None
    """Physics steps per second."""
    control_freq: int | None = None
    """Actions per second."""
    camera_size: tuple[int, int] | None = None
    """Height and width of every camera in pixels."""
    max_episode_steps: int | None = None
    execution_horizon: int | None = None
    """Actions of a chunk that are run before the next chunk is asked for."""
    settle_steps: int | None = 10
    """Steps run after the first success, then `success_at_end` is judged; None runs on to the limit."""
    render_backend: str = "cpu"
    """Where images are rendered: `cpu`, `gpu`, or `none` for a policy without cameras."""
    retries: int = 2
    """How often an episode is begun anew after an infrastructure error."""
    allow_mismatch: tuple[str, ...] = ()
    """Spec fields whose mismatch is accepted, and written into the results."""

    def __post_init__(self) -> None:
        require_choice("--render-backend", self.render_backend, RENDER_BACKENDS)
        require_at_least("--episodes", self.episodes, 1)
        require_at_least("--seed", self.seed, 0)
        require_at_least("--run-seed", self.run_seed, 0)
        require_at_least("--retries", self.retries, 0)
        for flag, value in (
            ("--sim-freq", self.sim_freq),
            ("--control-freq", self.control_freq),
            ("--max-episode-steps", self.max_episode_steps),
            ("--execution-horizon", self.execution_horizon),
            ("--camera-size", None if self.camera_size is None else min(self.camera_size)),
        ):
            if value is not None:
                require_at_least(flag, value, 1)
        if self.settle_steps is not None:
            require_at_least("--settle", self.settle_steps, 0)
        if self.seed + self.episodes > 2**32:
            raise InvalidOption(
                f"Episode seeds end at {2**32 - 1}, but --seed {self.seed} --episodes {self.episodes} goes beyond. "
                "Pass a smaller --seed.",
                field="--seed",
            )

    @property
    def seeds(self) -> range:
        """The episode seeds, decided before the first step."""
        return range(self.seed, self.seed + self.episodes)

    @property
    def overrides(self) -> dict[str, str]:
        """Flag -> value of everything that was not left to the policy's spec."""
        chosen = {
            "--prompt": self.prompt,
            "--robot": self.robot_uids,
            "--control-mode": self.control_mode,
            "--sim-freq": self.sim_freq,
            "--control-freq": self.control_freq,
            "--camera-size": None if self.camera_size is None else "x".join(map(str, self.camera_size)),
            "--max-episode-steps": self.max_episode_steps,
            "--execution-horizon": self.execution_horizon,
        }
        return {flag: str(value) for flag, value in chosen.items() if value is not None}
