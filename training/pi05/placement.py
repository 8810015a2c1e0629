"""Where weights live: whole on one device, or every leaf cut over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

__all__ = ["Shardings", "cut_over", "whole_on"]

Shardings: TypeAlias = Callable[[str, tuple[int, ...]], Sharding]
"""Where a leaf goes, by its path and its shape."""


def whole_on(device: jax.Device) -> Shardings:
    """Every leaf on one device."""
    sharding = SingleDeviceSharding(device)
    return lambda path, shape: sharding


def cut_over(devices: Sequence[jax.Device]) -> Shardings:
    """Each leaf cut along the widest of its axes that the number of devices divides; what none divides is copied."""
    mesh = Mesh(np.array(devices), ("model",))

    def place(path: str, shape: tuple[int, ...]) -> Sharding:
        cuttable = [axis for axis, size in enumerate(shape) if size % len(devices) == 0 and size > 1]
        if not cuttable:
            return NamedSharding(mesh, PartitionSpec())
        widest = max(cuttable, key=lambda axis: shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * widest, "model"))

    return place
