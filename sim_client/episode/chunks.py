"""Which action comes next: how chunks are turned into single steps.

Actions are counted as they run. A chunk that was asked for after `n` actions predicts action `n` in its first row, so
action `t` is its row `t - n`; that the robot held still in between makes no row go by, for it has not moved.

```
action          0 1 2 3 4 5 6 7 8 9 …      execution_horizon 4, overlap 2
first chunk     r r r r
second chunk        . . r r r r            asked for after 2 actions, takes over after 4: `.` is skipped
third chunk                 . . r r …
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sim_client.episode.chunk_use import ChunkUse

__all__ = ["ChunkExecutor"]


class ChunkExecutor:
    """Asks for chunks in time and runs them: receding horizon, temporal ensembling, asynchronous inference.

    A chunk takes over when the one before it is used up and its reply is there; a reply that is early waits for its
    turn, so that a latency of up to `overlap` steps changes nothing. Before the first chunk there is nothing to keep
    waiting: a robot that has not been told anything yet rests, and its clock starts with the first reply.

    Args:
        use: checked against the policy's spec.
    """

    def __init__(self, use: ChunkUse) -> None:
        self._use = use
        self._running: list[_Chunk] = []
        """Oldest first: the newest one alone, or with ensembling all that still predict something."""
        self._coming: _Chunk | None = None
        self._delay = 0
        """Control steps until the reply of the coming chunk is there."""
        self._ran = 0
        self._ask_at = 0
        self._used_up_at = 0
        self.chunks = 0
        """How many chunks were loaded; the index of the next one."""

    @property
    def wants_chunk(self) -> bool:
        """Whether a new chunk is to be asked for before the next action."""
        return self._coming is None and self._ran >= self._ask_at

    def load(self, actions: Float[np.ndarray, "action_horizon action_dim"], delay: int = 0) -> None:
        """Take the chunk that was asked for now.

        Args:
            delay: control steps that pass until it can be used.
        """
        assert self._coming is None, "one chunk at a time"
        self._coming = _Chunk(self._ran, actions)
        self._delay = delay if self.chunks else 0
        self.chunks += 1

    def next_action(self) -> Float[np.ndarray, "action_dim"] | None:
        """The action to run now; None to hold still for this step, because the next chunk is not there yet."""
        assert not self.wants_chunk, "load a chunk first"
        used_up = self._ran >= self._used_up_at
        if used_up and self._coming is not None and self._delay == 0:
            self._take_over(self._coming)
            used_up = False
        self._delay = max(self._delay - 1, 0)
        if used_up:
            return None
        self._ran += 1
        return self._mean(self._ran - 1)

    def _take_over(self, chunk: _Chunk) -> None:
        older = self._running if self._use.ensemble is not None else []
        self._running, self._coming = [*older, chunk], None
        self._used_up_at = self._ran + self._use.execution_horizon
        self._ask_at = self._used_up_at - (self._use.overlap or 0)

    def _mean(self, action: int) -> Float[np.ndarray, "action_dim"]:
        """The newest chunk's prediction; with ensembling the weighted mean of all predictions of that action.

        The gripper is averaged like the rest, as ACT does: ManiSkill's takes a position, not a yes or no.
        """
        self._running = [chunk for chunk in self._running if action - chunk.asked < len(chunk.actions)]
        predicted = np.stack([chunk.actions[action - chunk.asked] for chunk in self._running])
        if len(predicted) == 1:
            return predicted[0]
        return _weights(self._use.ensemble or 0.0, len(predicted)) @ predicted


@dataclass(frozen=True)
class _Chunk:
    asked: int
    """Actions that had run when it was asked for."""
    actions: Float[np.ndarray, "action_horizon action_dim"]


def _weights(coefficient: float, count: int) -> Float[np.ndarray, "count"]:
    """w_i = exp(-coefficient * i), i = 0 for the oldest, normalised; no coefficient is too large."""
    exponents = -coefficient * np.arange(count)
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()
