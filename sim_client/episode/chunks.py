"""Which action comes next: how chunks are turned into single steps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["ChunkExecutor"]


class ChunkExecutor:
    """Receding horizon: run the first `execution_horizon` actions of a chunk, then ask again.

    Args:
        execution_horizon: between 1 and the policy's action horizon.
    """

    def __init__(self, execution_horizon: int) -> None:
        self._execution_horizon = execution_horizon
        self._actions: Float[np.ndarray, "steps action_dim"] = np.empty((0, 0))
        self._position = 0
        self.chunks = 0
        """How many chunks were loaded; the index of the next one."""

    @property
    def wants_chunk(self) -> bool:
        """Whether a new chunk is needed before the next action."""
        return self._position >= len(self._actions)

    def load(self, actions: Float[np.ndarray, "action_horizon action_dim"]) -> None:
        """Take a fresh chunk; what is left of the old one is dropped."""
        self._actions = actions[: self._execution_horizon]
        self._position = 0
        self.chunks += 1

    def next_action(self) -> Float[np.ndarray, "action_dim"]:
        """The action to run now."""
        assert not self.wants_chunk, "load a chunk first"
        self._position += 1
        return self._actions[self._position - 1]
