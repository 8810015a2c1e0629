"""What the engine needs of a policy: a model's, or one that debugs a simulator without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from policy_protocol.messages import Observation
from policy_protocol.spec import PolicySpec

__all__ = ["Launched", "ServedPolicy"]


class Launched(Protocol):
    """A batch that the device is computing."""

    @property
    def checkpoint(self) -> str:
        """`experiment/run/step` of the weights that compute it."""
        ...

    def wait(self) -> None:
        """Until the device is done with it; raises what went wrong."""
        ...

    def actions(self) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        """The batch's actions in physical units, padding taken off."""
        ...


class ServedPolicy(Protocol):
    """A policy behind a server. `transform` is called from many threads; the rest from one thread for each replica."""

    @property
    def spec(self) -> PolicySpec:
        """What clients are told; changes when a newer checkpoint is loaded in place."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(action_horizon, action_dim) of the noise that each row starts from."""
        ...

    @property
    def prompt_lengths(self) -> tuple[int, ...]:
        """Prompt lengths that are compiled, ascending."""
        ...

    @property
    def replicas(self) -> int:
        """Copies of the weights, each computing on its own."""
        ...

    def transform(self, observation: Observation) -> Any:
        """A prepared row. Raises `InvalidObservation`."""
        ...

    def compile(self, batch: int, prompt_length: int, replica: int = 0) -> None:
        """Make one shape ready, ahead of requests. It may still run for the first time when this returns."""
        ...

    def finish_compiling(self) -> None:
        """Wait until everything that was compiled is ready; raises what went wrong."""
        ...

    def launch(
        self,
        rows: Sequence[Any],
        noise: Float[np.ndarray, "rows action_horizon action_dim"],
        pad_to: int | None = None,
        replica: int = 0,
    ) -> Launched:
        """Hand a batch to the device without waiting for it; it computes at the shape of `pad_to` rows."""
        ...
