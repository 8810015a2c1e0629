"""Chunkwire's simulator side: collect demonstrations in ManiSkill, and measure served policies there.

For those who bring their own loop, robot or simulator, a policy in ten lines:

```python
from sim_client import PolicyClient

with PolicyClient("ws://127.0.0.1:8000") as policy:
    spec = policy.spec
    while not robot.done:
        observation = {camera.key: robot.image(camera.key) for camera in spec.observation.cameras}
        observation |= {spec.observation.state.key: robot.state, spec.observation.prompt.key: "Pull a cube."}
        chunk = policy.infer(observation)
        robot.execute(chunk.actions[: spec.policy.execution_horizon])
```

`Simulator` with `SimulationSettings` is ManiSkill with rendering on demand, `run_episode` the loop between the two,
`read_results` what an evaluation wrote. Names are loaded when first used, so importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim_client.episode.record import EpisodeRecord
    from sim_client.episode.runner import EpisodeRules, run_episode
    from sim_client.policy_client import PolicyClient
    from sim_client.results.directory import read_results
    from sim_client.simulator import SimulationSettings, Simulator

__all__ = [
    "EpisodeRecord",
    "EpisodeRules",
    "PolicyClient",
    "SimulationSettings",
    "Simulator",
    "read_results",
    "run_episode",
]

_HOMES = {
    "EpisodeRecord": "sim_client.episode.record",
    "EpisodeRules": "sim_client.episode.runner",
    "PolicyClient": "sim_client.policy_client",
    "SimulationSettings": "sim_client.simulator",
    "Simulator": "sim_client.simulator",
    "read_results": "sim_client.results.directory",
    "run_episode": "sim_client.episode.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
