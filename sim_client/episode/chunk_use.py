"""How action chunks are used: when the next one is asked for, which actions are run, how long a reply takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy_protocol import PolicySpec
from sim_client.errors import InvalidOption
from sim_client.option_checks import require_at_least

__all__ = ["MEASURED", "ChunkUse", "read_latency"]

MEASURED = "measured"
"""The value of `--latency-ms` that lets every reply take as long as it really took."""


@dataclass(frozen=True)
class ChunkUse:
    """The choices of `--execution-horizon`, `--ensemble`, `--async` and `--latency-ms`.

    By default: receding horizon on a robot whose clock stands still while the policy thinks.

    Raises:
        InvalidOption: a value is out of range; the message names the flag.
    """

    execution_horizon: int
    """Actions that are run before the next chunk takes over."""
    ensemble: float | None = None
    """Temporal ensembling: an action is the mean of all that were predicted for it, the i-th oldest weighted by
    exp(-ensemble * i) (Zhao et al. 2023, arXiv 2304.13705). None: the newest chunk alone decides."""
    overlap: int | None = None
    """Asynchronous inference: the next chunk is asked for this many actions before the current one is used up, and
    its first ones are skipped when it takes over. None: asked for when the current one is used up."""
    latency_ms: float | None = None
    """What a reply takes on the robot's clock, in milliseconds. None: nothing."""
    measured_latency: bool = False
    """A reply takes as long on the robot's clock as the client waited for it. Two runs then differ."""

    def __post_init__(self) -> None:
        require_at_least("--execution-horizon", self.execution_horizon, 1)
        if self.ensemble is not None and not math.isfinite(self.ensemble):
            raise InvalidOption(f"--ensemble must be a finite number, not {self.ensemble:g}.", field="--ensemble")
        if self.overlap is not None:
            require_at_least("--async", self.overlap, 1)
            self._require_overlap_below_horizon(self.overlap)
        if self.latency_ms is not None:
            self._require_latency(self.latency_ms)

    def check(self, spec: PolicySpec) -> None:
        """Raises `InvalidOption` when the policy's chunks are too short for this use; names the flag."""
        longest, overlap = spec.policy.action_horizon, self.overlap or 0
        if self.execution_horizon > longest:
            raise InvalidOption(
                f"--execution-horizon {self.execution_horizon} is longer than the policy's action horizon. "
                f"Pass 1 to {longest}.",
                field="--execution-horizon",
            )
        if self.execution_horizon + overlap > longest:
            raise InvalidOption(
                f"--async {overlap} skips the first {overlap} of a chunk's {longest} actions, which leaves fewer than "
                f"--execution-horizon {self.execution_horizon}. Pass an --execution-horizon of at most "
                f"{longest - overlap}, or a smaller --async.",
                field="--async",
            )

    @property
    def has_clock(self) -> bool:
        """Whether replies take time on the robot's clock."""
        return self.measured_latency or self.latency_ms is not None

    def delay_steps(self, round_trip_ms: float, control_freq: int) -> int:
        """Control steps that pass until the reply is there.

        Args:
            round_trip_ms: what the client measured for it.
            control_freq: steps per simulated second.
        """
        latency_ms = round_trip_ms if self.measured_latency else self.latency_ms or 0.0
        return math.ceil(latency_ms * control_freq / 1000)

    def __str__(self) -> str:
        """One line for a report."""
        parts = [f"{self.execution_horizon} actions of each chunk executed"]
        if self.ensemble is not None:
            parts.append(f"averaged over the chunks that predict them (temporal ensembling, {self.ensemble:g})")
        if self.overlap is not None:
            parts.append(f"the next chunk asked for {self.overlap} steps ahead (asynchronous inference)")
        if self.measured_latency:
            parts.append("replies delayed by their measured round trip, which no other run repeats")
        elif self.latency_ms is not None:
            parts.append(f"replies delayed by {self.latency_ms:g} ms")
        return ", ".join(parts)

    def _require_overlap_below_horizon(self, overlap: int) -> None:
        if overlap >= self.execution_horizon:
            raise InvalidOption(
                f"--async {overlap} asks for the next chunk before the current one is begun: it has "
                f"{self.execution_horizon} actions to run. Pass an --async below --execution-horizon.",
                field="--async",
            )

    def _require_latency(self, latency_ms: float) -> None:
        if not (latency_ms >= 0 and math.isfinite(latency_ms)):
            raise InvalidOption(
                f"--latency-ms must be a number of milliseconds from 0, or {MEASURED}, not {latency_ms:g}.",
                field="--latency-ms",
            )
        if self.measured_latency:
            raise InvalidOption(f"--latency-ms is either {latency_ms:g} or {MEASURED}, not both.", field="--latency-ms")


def read_latency(text: str | None) -> tuple[float | None, bool]:
    """`--latency-ms MS|measured` as (`latency_ms`, `measured_latency`). Raises `InvalidOption`."""
    if text is None or text == MEASURED:
        return None, text == MEASURED
    try:
        return float(text), False
    except ValueError as error:
        raise InvalidOption(
            f"--latency-ms must be a number of milliseconds from 0, or {MEASURED}, not {text!r}.", field="--latency-ms"
        ) from error
