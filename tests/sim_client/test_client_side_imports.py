"""The simulator side never loads the model side, and only `sim_client.simulator` loads the simulator."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import sim_client

MODEL_SIDE = {"jax", "jaxlib", "flax", "orbax", "optax", "training", "policy_server"}
SIMULATOR = {"torch", "sapien", "mani_skill", "gymnasium"}


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_no_module_of_the_client_loads_the_model_side_or_the_simulator_on_import():
    names = [module.name for module in pkgutil.walk_packages(sim_client.__path__, "sim_client.")]
    inside = ("sim_client.simulator", "sim_client.collect.attempt")  # the second is what a worker process runs
    outside = [name for name in names if not name.startswith(inside)]
    assert len(outside) > 20
    loaded = loaded_by(f"import {', '.join(outside)}")
    assert not (MODEL_SIDE | SIMULATOR) & loaded


def test_the_simulator_itself_loads_no_model_side():
    loaded = loaded_by("from sim_client.simulator import Simulator")
    assert loaded >= SIMULATOR
    assert not MODEL_SIDE & loaded
