"""Two updates on one device and on eight; prints what they computed as JSON."""

from __future__ import annotations

import json

import jax
import numpy as np

from training.experiment import Experiment, OptimizerConfig
from training.initial_params import InitialParams
from training.parallel import sharding
from training.parallel.mesh import make_mesh
from training.parallel.parallel_step import first_state, make_parallel_step
from training.pi05.model.config import GemmaConfig, ModelConfig, SigLIPConfig
from training.pi05.model.pi import ModelInput
from training.samples import Samples

_TOWER = SigLIPConfig(image_size=16, patch_size=8, width=16, depth=1, mlp_width=16, heads=2)
_GEMMA = GemmaConfig(width=16, mlp_width=16, depth=1, heads=2, kv_heads=1, head_dim=8)
_SIZES = {"vocabulary": 64, "action_dim": 8, "action_horizon": 4, "dtype": "float32", "remat": False}
_MODEL = ModelConfig("pi05", _TOWER, _GEMMA, _GEMMA, **_SIZES)
_EXPERIMENT = Experiment(
    "tiny", _MODEL, "none", batch_size=16, steps=9, execution_horizon=4, optimizer=OptimizerConfig(warmup_steps=1)
)


def samples():
    random, rows = np.random.default_rng(0), _EXPERIMENT.batch_size
    actions = random.normal(size=(rows, 4, 8)).astype(np.float32)
    inputs = ModelInput(
        images={"base_0_rgb": random.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8)},
        image_masks={"base_0_rgb": np.ones(rows, bool)},
        tokens=random.integers(0, 64, (rows, 6), dtype=np.int32),
        token_mask=np.ones((rows, 6), bool),
        state=np.zeros((rows, 8), np.float32),
    )
    return Samples(inputs, actions, random.uniform(size=actions.shape).astype(np.float32))


def run(devices):
    mesh, key = make_mesh(_EXPERIMENT, devices), jax.random.key(0)
    state = first_state(_EXPERIMENT, InitialParams.plan(_EXPERIMENT), key, mesh)
    step, reports = make_parallel_step(_EXPERIMENT, mesh), []
    for _ in range(2):
        before = state
        state, metrics = step(state, key, sharding.place_batch(mesh, samples()))
        reports.append([float(metrics[name]) for name in ("loss", "grad_norm", "param_norm")])
    table = state.opt_state[1][0].mu["PaliGemma"]["llm"]["embedder"]["input_embedding"]
    return {
        "reports": reports,
        "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params)),
        "shard": table.addressable_shards[0].data.shape,
    }


def main():
    jax.config.update("jax_disable_most_optimizations", True)
    sharding.SMALLEST_CUT = 0  # the model is tiny
    devices = jax.devices()
    print(json.dumps({"one": run(devices[:1]), "eight": run(devices)}))


if __name__ == "__main__":
    main()
