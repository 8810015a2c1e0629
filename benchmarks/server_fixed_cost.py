"""Our server around a policy that takes a fixed time for each batch, as a GPU would: a process of `server.py`.

python benchmarks/server_fixed_cost.py PORT --base-ms 13 --row-ms 1.3 --cameras 2
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float

from policy_protocol.spec import PolicySpec
from policy_server.options import ServerOptions
from policy_server.policies.dummy import DummyPolicy
from policy_server.process import run_server
from training.pi05.released import find_spec

__all__ = ["FixedCost", "cost_s", "fixed_cost_spec"]

SIDE = 224
"""Pixels of an image's side: two uint8 images are 301 KB."""


def cost_s(rows: int, base_ms: float, row_ms: float) -> float:
    """Seconds that the device takes for a batch."""
    return (base_ms + row_ms * rows) / 1e3 if base_ms or row_ms else 0.0


def fixed_cost_spec(cameras: int) -> PolicySpec:
    """LIBERO's spec with one or two 224 x 224 cameras and chunks of 20 steps."""
    spec = find_spec("pi05_libero")
    seen = tuple(dataclasses.replace(camera, height=SIDE, width=SIDE) for camera in spec.observation.cameras[:cameras])
    observation = dataclasses.replace(spec.observation, cameras=seen)
    policy = dataclasses.replace(spec.policy, action_horizon=20, execution_horizon=10, parameter_count=0)
    return dataclasses.replace(spec, observation=observation, policy=policy)


class _Computing:
    """A batch on the pretended device."""

    checkpoint = "fixed/cost/0"

    def __init__(self, rows: int, shape: tuple[int, int], done: float) -> None:
        self._shape, self._done = (rows, *shape), done

    def wait(self) -> None:
        """Sleeps until the device would be done."""
        time.sleep(max(0.0, self._done - time.perf_counter()))

    def actions(self) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        """Zeros."""
        return np.zeros(self._shape)


class FixedCost(DummyPolicy):
    """One pretended device: a batch begins when the one before is done and takes the time of its padded shape."""

    def __init__(self, spec: PolicySpec, base_ms: float, row_ms: float) -> None:
        super().__init__(spec, lambda rows, noise: noise)
        self._base_ms, self._row_ms, self._free_at = base_ms, row_ms, 0.0

    def launch(self, rows: Sequence[Any], noise: np.ndarray, pad_to: int | None = None, replica: int = 0) -> Any:
        """Occupies the device from now on, or from the end of the batch before."""
        begin = max(self._free_at, time.perf_counter())
        self._free_at = begin + cost_s(pad_to or len(rows), self._base_ms, self._row_ms)
        return _Computing(len(rows), self.noise_shape, self._free_at)


def main(
    port: int,
    base_ms: Annotated[float, typer.Option(help="Milliseconds of a batch.")] = 0.0,
    row_ms: Annotated[float, typer.Option(help="Milliseconds for each of its rows.")] = 0.0,
    cameras: Annotated[int, typer.Option(help="224 x 224 cameras.")] = 2,
) -> None:
    """Serve on PORT, and gRPC on PORT + 1."""
    run_server(FixedCost(fixed_cost_spec(cameras), base_ms, row_ms), ServerOptions(port=port))


if __name__ == "__main__":
    typer.run(main)
