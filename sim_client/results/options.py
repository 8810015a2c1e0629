"""What an evaluation was asked to do, before the policy has been heard."""

from __future__ import annotations

from dataclasses import dataclass

from sim_client.episode.chunk_use import MEASURED, ChunkUse
from sim_client.errors import InvalidOption
from sim_client.option_checks import RENDER_BACKENDS, SIM_BACKENDS, require_at_least, require_choice

__all__ = ["DEFAULT_SEED", "DEFAULT_SETTLE_STEPS", "EvaluationOptions"]

DEFAULT_SEED = 0
"""First episode seed. Demonstrations are collected from a seed far above, so that the two do not meet."""

DEFAULT_SETTLE_STEPS = 10
"""Half a second at 20 Hz: what falls again within it was no success that lasts."""


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
    on_demonstrations: bool = False
    """Instead, the seeds of the training demonstrations: what a replay of them reaches, no measure of a policy."""
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
    ensemble: float | None = None
    """Temporal ensembling: every step runs the mean of all chunks' actions for it, weighted by exp(-ensemble * i)."""
    overlap: int | None = None
    """Asynchronous inference: the next chunk is asked for this many steps before the current one is used up."""
    latency_ms: float | None = None
    """Milliseconds that an answer takes on the robot's clock."""
    measured_latency: bool = False
    """An answer takes as long on the robot's clock as it really took; two runs then differ."""
    jpeg_quality: int | None = None
    """Images are sent as JPEG of this quality instead of their pixels: the policy sees what is left of them."""
    settle_steps: int | None = DEFAULT_SETTLE_STEPS
    """Steps run after the first success, then `success_at_end` is judged; None runs on to the limit."""
    stop_when_sure: float | None = None
    """Stop when the anytime-valid 95% interval is this narrow, as a share between 0 and 1."""
    sim_backend: str = "cpu"
    """Where physics runs: `cpu`, one environment a worker, or `gpu`, `--num-envs` at once."""
    render_backend: str = "cpu"
    """Where images are rendered: `cpu`, `gpu`, or `none` for a policy without cameras."""
    retries: int = 2
    """How often an episode is begun anew after an infrastructure error."""
    allow_mismatch: tuple[str, ...] = ()
    """Spec fields whose mismatch is accepted, and written into the results."""

    def __post_init__(self) -> None:
        require_choice("--sim-backend", self.sim_backend, SIM_BACKENDS)
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
        if self.prompt is not None and not self.prompt.strip():
            raise InvalidOption("--prompt is empty. Pass an instruction, or leave it out.", field="--prompt")
        self._require_a_width()
        self._require_seeds()

    @property
    def seeds(self) -> range:
        """The episode seeds from `seed` on; a run on demonstrations takes those of the policy's spec instead."""
        return range(self.seed, self.seed + self.episodes)

    @property
    def overrides(self) -> dict[str, str]:
        """Flag -> value of everything that was not left to the policy's spec, or differs from what is usual."""
        chosen = {
            "--prompt": self.prompt,
            "--robot": self.robot_uids,
            "--control-mode": self.control_mode,
            "--sim-freq": self.sim_freq,
            "--control-freq": self.control_freq,
            "--camera-size": None if self.camera_size is None else "x".join(map(str, self.camera_size)),
            "--max-episode-steps": self.max_episode_steps,
            "--execution-horizon": self.execution_horizon,
            "--ensemble": self.ensemble,
            "--async": self.overlap,
            "--latency-ms": MEASURED if self.measured_latency else self.latency_ms,
            "--jpeg-quality": self.jpeg_quality,
            "--settle": self.settle_steps if self.settle_steps not in (None, DEFAULT_SETTLE_STEPS) else None,
            "--run-to-limit": "" if self.settle_steps is None else None,
            "--sim-backend": self.sim_backend if self.sim_backend != "cpu" else None,
            "--render-backend": self.render_backend if self.render_backend != "cpu" else None,
        }
        return {flag: str(value) for flag, value in chosen.items() if value is not None}

    def chunk_use(self, execution_horizon: int) -> ChunkUse:
        """How chunks are used. Raises `InvalidOption`.

        Args:
            execution_horizon: the policy's own, for where none was asked for.
        """
        horizon = self.execution_horizon or execution_horizon
        return ChunkUse(horizon, self.ensemble, self.overlap, self.latency_ms, self.measured_latency)

    def _require_a_width(self) -> None:
        if self.stop_when_sure is not None and not 0 < self.stop_when_sure < 1:
            raise InvalidOption(
                f"--stop-when-sure must be the width of an interval between 0 and 1, not {self.stop_when_sure:g}. "
                "0.2 stops at plus or minus 10 points.",
                field="--stop-when-sure",
            )

    def _require_seeds(self) -> None:
        if self.seed + self.episodes > 2**32:
            raise InvalidOption(
                f"Episode seeds end at {2**32 - 1}, but --seed {self.seed} --episodes {self.episodes} goes beyond. "
                "Pass a smaller --seed.",
                field="--seed",
            )
