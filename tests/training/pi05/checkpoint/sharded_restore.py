"""A process with eight virtual devices that restores the step in its first argument over a mesh (test_weights.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from training.pi05.checkpoint.weights import read_params


def main() -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "fsdp"))

    def sharding(path: str, shape: tuple[int, ...]) -> NamedSharding:
        """The last axis over four devices where it divides, and the one before it over two."""
        axes: list[str | None] = [None] * len(shape)
        for axis, name in ((-1, "fsdp"), (-2, "data")):
            if len(shape) >= -axis and shape[axis] % mesh.shape[name] == 0:
                axes[axis] = name
        return NamedSharding(mesh, PartitionSpec(*axes))

    step = Path(sys.argv[1])
    whole = read_params(step)
    for dtype in (None, jnp.bfloat16):
        for path, leaf in read_params(step, dtype, sharding).items():
            expected = whole[path].astype(leaf.dtype)
            assert leaf.dtype == (dtype or np.float32), path
            assert leaf.sharding == sharding(path, leaf.shape), path
            assert len(leaf.addressable_shards) == 8, path
            for shard in leaf.addressable_shards:
                assert shard.data.shape == leaf.sharding.shard_shape(leaf.shape), path
                np.testing.assert_array_equal(shard.data, expected[shard.index])
    gating = read_params(step, None, sharding)["PaliGemma/llm/layers/mlp/gating_einsum"]
    print(len(whole), gating.shape, {shard.data.shape for shard in gating.addressable_shards})


main()
