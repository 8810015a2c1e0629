"""Policies without a model, behind the same server: they read observations as a model does and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from policy_protocol.messages import Observation
from policy_protocol.spec import PolicySpec
from training.pi05.model.config import preset
from training.pi05.transforms.normalization import NormStats
from training.pi05.transforms.observation import ObservationTransform
from training.pi05.transforms.tokenizer import Tokenizer

__all__ = ["Act", "DummyPolicy", "Finished", "action_bounds", "random_policy", "reading_transform", "zeros_policy"]

Act: TypeAlias = Callable[
    [Sequence[Any], Float[np.ndarray, "rows action_horizon action_dim"]],
    Float[np.ndarray, "rows action_horizon action_dim"],
]
"""Prepared rows and their noise -> actions in physical units."""
_IMAGE_SIDE = 224
"""Pixels; openpi's models see squares of this size, so a dummy resizes what they would."""
_UNLIMITED_TOKENS = 1_000_000
_erf = np.frompyfunc(math.erf, 1, 1)


class Finished:
    """A batch that was done as soon as it was launched."""

    def __init__(self, actions: Float[np.ndarray, "rows action_horizon action_dim"], checkpoint: str) -> None:
        self._actions, self.checkpoint = actions, checkpoint

    def wait(self) -> None:
        """Returns at once."""

    def actions(self) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        """The batch's actions in physical units."""
        return self._actions


class DummyPolicy:
    """A `ServedPolicy` that acts without a model.

    Args:
        spec: the policy that it stands in for; observations are refused just as that one's server refuses them.
        act: makes the actions.
    """

    prompt_lengths: tuple[int, ...] = ()
    """Nothing is compiled."""
    replicas = 1

    def __init__(self, spec: PolicySpec, act: Act) -> None:
        self.spec = spec
        self._act = act
        self._read = reading_transform(spec)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(action_horizon, action_dim)."""
        return self.spec.policy.action_horizon, self.spec.action.dimension

    def transform(self, observation: Observation) -> Any:
        """The observation as a model's row. Raises `InvalidObservation` for what a model would refuse."""
        return self._read(observation)

    def compile(self, batch: int, prompt_length: int, replica: int = 0) -> None:
        """Nothing to compile."""

    def finish_compiling(self) -> None:
        """Nothing was compiled."""

    def launch(
        self,
        rows: Sequence[Any],
        noise: Float[np.ndarray, "rows action_horizon action_dim"],
        pad_to: int | None = None,
        replica: int = 0,
    ) -> Finished:
        """Act at once."""
        return Finished(self._act(rows, noise), str(self.spec.policy.checkpoint))


def zeros_policy(spec: PolicySpec) -> DummyPolicy:
    """Every action is zero: the robot should stand still under a delta controller."""
    return DummyPolicy(spec, lambda rows, noise: np.zeros(noise.shape))


def random_policy(spec: PolicySpec) -> DummyPolicy:
    """Actions drawn uniformly within `action_bounds`; requests of equal `noise_seed` get equal actions."""
    low, high = action_bounds(spec)

    def act(
        rows: Sequence[Any], noise: Float[np.ndarray, "rows action_horizon action_dim"]
    ) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        # The normal distribution function makes the seeded normal noise uniform.
        uniform = 0.5 * (1 + _erf(noise.astype(np.float64) / math.sqrt(2)).astype(np.float64))
        return low + uniform * (high - low)

    return DummyPolicy(spec, act)


def action_bounds(spec: PolicySpec) -> tuple[Float[np.ndarray, "action_dim"], Float[np.ndarray, "action_dim"]]:
    """Lower and upper bound of each action dimension: the controller's, else the training quantiles, else -1 and 1."""
    for low, high in ((spec.action.low, spec.action.high), (spec.action.q01, spec.action.q99)):
        if low and high:
            return np.array(low), np.array(high)
    return np.full(spec.action.dimension, -1.0), np.ones(spec.action.dimension)


def reading_transform(spec: PolicySpec) -> ObservationTransform:
    """How a model's server reads observations of this spec, for a model of any size and without its norm stats."""
    small, widest = preset("pi05_small"), max(spec.observation.state.dimension, spec.action.dimension)
    model = replace(
        small,
        vision=replace(small.vision, image_size=_IMAGE_SIDE),
        action_dim=widest,
        max_token_len=_UNLIMITED_TOKENS,
    )
    zeros, ones = np.zeros(widest), np.ones(widest)
    unchanged: Mapping[str, NormStats] = dict.fromkeys(("state", "actions"), NormStats(zeros, ones, -ones, ones))
    return ObservationTransform(spec, model, unchanged, Tokenizer.load("small"))
