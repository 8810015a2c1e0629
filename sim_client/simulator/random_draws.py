"""Random numbers of ManiSkill's tasks, so that an episode's start is a function of its seed alone.

A task places its objects with `torch.rand` on the device that simulates. PyTorch's generators differ between devices,
so the same seed would start another episode on a GPU than on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mani_skill.envs.sapien_env import BaseEnv
from torch.overrides import TorchFunctionMode

from sim_client.errors import SimulationError

__all__ = ["DrawnOnCpu", "refuse_shared_scenes"]

_DRAWS = {torch.rand, torch.randn, torch.randint, torch.randperm}
"""Random numbers made from nothing but a shape: what ManiSkill's tasks start from."""


class DrawnOnCpu(TorchFunctionMode):
    """Within it the draws of a task come from the CPU's generator and are then moved to the device asked for."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """PyTorch's hook; every other function goes through."""
        options = dict(kwargs or {})
        if func not in _DRAWS or options.get("generator") is not None:
            return func(*args, **options)
        device = options.pop("device", None) or "cpu"
        return func(*args, **options, device="cpu").to(device)


class _Refused(TorchFunctionMode):
    """Within it there are no draws."""

    def __init__(self, refuse: Callable[[], None]) -> None:
        super().__init__()
        self._refuse = refuse

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DRAWS:
            self._refuse()
        return func(*args, **(kwargs or {}))


class _NoGenerator:
    """Stands in for the generator of environment 0, which is no other environment's."""

    def __init__(self, refuse: Callable[[], None]) -> None:
        self._refuse = refuse

    def __getattr__(self, name: str) -> Any:
        self._refuse()


def refuse_shared_scenes(environment: BaseEnv, env_id: str) -> None:
    """Make building the scenes fail where it draws from what all environments share.

    ManiSkill has a generator for each environment (`_batched_episode_rng`), which PegInsertionSide-v1 uses for the size
    of its pegs. PyTorch's and `_episode_rng` are seeded by the first environment's seed: a scene that they shape would
    depend on which episodes run beside it.

    Raises:
        SimulationError: from the next `reset` that builds such scenes.
    """

    def refuse() -> None:
        raise SimulationError(
            f"{env_id} builds its scenes from random numbers that all environments share, so an episode would depend "
            "on those that run beside it. Pass --sim-backend cpu.",
            field="--sim-backend",
        )

    build = environment._load_scene

    def load_scene(options: dict[str, Any]) -> None:
        environment._episode_rng = _NoGenerator(refuse)  # set anew by ManiSkill when the scenes are built
        with _Refused(refuse):
            build(options)

    environment._load_scene = load_scene
