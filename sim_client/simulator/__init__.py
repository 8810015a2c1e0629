"""ManiSkill behind one small interface. Nothing outside this package imports mani_skill, sapien, torch or gymnasium.

Importing this package is cheap: the simulator itself (about 10 s and 800 MB) is loaded when one of the names below
is first used, so that command lines can show their help at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sim_client.errors import SimulationError
from sim_client.simulator.backend import require_backend
from sim_client.simulator.types import (
    DEFAULT_MAX_EPISODE_STEPS,
    SimulationSettings,
    SimulatorDescription,
    SimulatorObservation,
    StepResult,
)
from sim_client.simulator.vector_types import StepResults, VectorObservation

if TYPE_CHECKING:
    from sim_client.simulator.environment import env_ids
    from sim_client.simulator.planner import Planner
    from sim_client.simulator.rendering import check_rendering
    from sim_client.simulator.simulator import Simulator
    from sim_client.simulator.vector_simulator import VectorSimulator

__all__ = [
    "DEFAULT_MAX_EPISODE_STEPS",
    "Planner",
    "SimulationSettings",
    "Simulator",
    "SimulatorDescription",
    "SimulatorObservation",
    "StepResult",
    "StepResults",
    "VectorObservation",
    "VectorSimulator",
    "check_rendering",
    "env_ids",
    "require_backend",
]

_HEAVY = {
    "Planner": "sim_client.simulator.planner",
    "Simulator": "sim_client.simulator.simulator",
    "VectorSimulator": "sim_client.simulator.vector_simulator",
    "check_rendering": "sim_client.simulator.rendering",
    "env_ids": "sim_client.simulator.environment",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HEAVY[name]), name)
    except ModuleNotFoundError as error:
        raise SimulationError(
            f"The simulator is not installed ({error}). Install it with `pip install 'chunkwire[sim]'`."
        ) from error
    except ImportError as error:  # a bare machine lacks libX11.so.6 or libGL.so.1
        raise SimulationError(
            f"The simulator cannot be loaded ({error}). Run `sh docker/install-vulkan.sh` as root, which installs the "
            "shared libraries that it needs; with --check it only names them."
        ) from error
