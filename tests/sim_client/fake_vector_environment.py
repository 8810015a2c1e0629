"""Many carts without ManiSkill, each with a start of its own: some arrive early, some late, some never."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fake_environment import FakeEnvironment, make_settings

from sim_client.simulator import SimulationSettings, SimulatorObservation, StepResult, StepResults, VectorObservation

__all__ = ["Cart", "FakeVectorEnvironment", "make_settings"]


class Cart(FakeEnvironment):
    """Starts the further back the larger the last digit of its seed; every seed that ends in 3 fails at step 6."""

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._way = -0.4 * (seed % 10)

    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        stages = {**result.stages, "fail": self._seed % 10 == 3 and self._steps >= 6}
        return StepResult(result.success, stages, result.truncated, result.elapsed_steps)

    def observe(self, cameras: Sequence[str] | None = None) -> SimulatorObservation:
        """As its parent, in colours that tell where it is."""
        seen = super().observe(cameras)
        shade = np.uint8(5 * self._steps)
        return SimulatorObservation({name: image + shade for name, image in seen.images.items()}, seen.state)


class FakeVectorEnvironment:
    """`carts` are stepped in turn; `observed` lists whose images were asked for."""

    def __init__(self, settings: SimulationSettings, num_envs: int, lose_after: int | None = None) -> None:
        self.settings, self.num_envs = settings, num_envs
        self.carts = [Cart(settings, lose_after=lose_after) for _ in range(num_envs)]
        self.cameras, self.state_sources = self.carts[0].cameras, self.carts[0].state_sources
        self.action_low, self.action_high = self.carts[0].action_low, self.carts[0].action_high
        self.observed: list[tuple[int, ...]] = []
        self.closed = False

    def reset(self, seeds: Sequence[int]) -> None:
        assert len(seeds) == self.num_envs
        for cart, seed in zip(self.carts, seeds, strict=True):
            cart.reset(seed)

    def step(self, actions: np.ndarray) -> StepResults:
        assert actions.shape == (self.num_envs, 7)
        results = [cart.step(action.copy()) for cart, action in zip(self.carts, actions, strict=True)]
        return StepResults(
            success=np.array([result.success for result in results]),
            stages={flag: np.array([result.stages[flag] for result in results]) for flag in results[0].stages},
            truncated=np.array([result.truncated for result in results]),
            elapsed_steps=np.array([result.elapsed_steps for result in results]),
        )

    def observe(self, cameras: Sequence[str] | None = None, envs: Sequence[int] | None = None) -> VectorObservation:
        rows = tuple(range(self.num_envs) if envs is None else envs)
        self.observed.append(rows)
        seen = [self.carts[env].observe(cameras) for env in rows]
        return VectorObservation(
            {name: np.stack([one.images[name] for one in seen]) for name in seen[0].images},
            {source: np.stack([one.state[source] for one in seen]) for source in seen[0].state},
        )

    def close(self) -> None:
        self.closed = True
