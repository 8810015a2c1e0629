"""The parameters that a run starts from: fresh ones, or a base's with the leaves that it lacks fresh."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from training.experiment import Experiment, ExperimentInvalid
from training.freezing import Freezing
from training.pi05.checkpoint.base_weights import BaseWeights, open_base_weights
from training.pi05.checkpoint.finite import non_finite
from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.listing import listed
from training.pi05.model.config import ModelConfig
from training.pi05.model.lora import is_lora
from training.pi05.model.params import (
    ParamsMismatch,
    check_params,
    flatten,
    init_params,
    param_shapes,
    unflatten,
)
from training.pi05.placement import Shardings, whole_on

__all__ = ["InitialParams"]


@dataclass(frozen=True)
class InitialParams:
    """Which leaf comes from where, decided before anything is read."""

    model: ModelConfig
    freezing: Freezing
    base: BaseWeights | None
    """None starts from scratch."""
    taken: tuple[str, ...]
    """Leaves that come from the base."""
    fresh: tuple[str, ...]
    """Leaves that start at random."""

    @classmethod
    def plan(cls, experiment: Experiment) -> InitialParams:
        """Find the experiment's base weights and compare them with its model, leaf by leaf.

        Raises:
            CheckpointInvalid, DownloadFailed: there are no usable weights.
            ParamsMismatch: a leaf is missing, unexpected or misshapen that may not start fresh.
            ExperimentInvalid: a pattern of `init_fresh` matches no leaf.
        """
        expected = param_shapes(experiment.model)
        freezing = Freezing.of(experiment)
        if not experiment.init:
            return cls(experiment.model, freezing, None, (), tuple(expected))
        _check_patterns(experiment.init_fresh, expected)
        base = open_base_weights(experiment.init, vision_heads=experiment.model.vision.heads)
        held = {path for path, leaf in base.shapes.items() if path in expected and leaf.shape == expected[path].shape}
        absent = {path for path in expected if is_lora(path) and path not in base.shapes}
        fresh = absent | {path for path in expected.keys() - held if _may_be_fresh(path, experiment.init_fresh)}
        _check(base, expected, fresh, experiment)
        return cls(
            experiment.model,
            freezing,
            base,
            tuple(path for path in expected if path not in fresh),
            tuple(path for path in expected if path in fresh),
        )

    def make(self, key: PRNGKeyArray, shardings: Shardings | None = None) -> PyTree[Array]:
        """The parameters in float32, frozen ones in bfloat16.

        Each leaf is restored straight to its devices or made there, and none of them twice.

        Args:
            shardings: where each leaf goes; the first device takes all when None.

        Raises:
            CheckpointInvalid: the base is damaged, or holds NaN or infinity (names the leaves).
        """
        shardings = shardings or whole_on(jax.devices()[0])
        if self.base is None:
            return self.freezing.stored(unflatten(_fresh_leaves(self.model, key, self.fresh, shardings)))
        taken = {}
        for dtype in (jnp.float32, jnp.bfloat16):
            paths = [path for path in self.taken if self.freezing.dtype(path) == dtype]
            taken |= self.base.read(paths, dtype, shardings)
        _check_finite(taken, self.base.source)
        return self.freezing.stored(unflatten({**taken, **_fresh_leaves(self.model, key, self.fresh, shardings)}))


def _may_be_fresh(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], expected: Collection[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in expected):
            raise ExperimentInvalid(
                f"--init-fresh {pattern!r} matches no leaf of the model, such as {min(expected)}. "
                "A star stands for any letters, slashes too."
            )


def _check(base: BaseWeights, expected: Mapping[str, Any], fresh: Collection[str], experiment: Experiment) -> None:
    complete = {**base.shapes, **{path: expected[path] for path in fresh}}
    try:
        check_params(complete, experiment.model, base.source)
    except ParamsMismatch as error:
        if complete.keys() - expected.keys():
            raise  # what is too much is not made good by fresh leaves
        raise ParamsMismatch(f"{error.message} {_advice(base, experiment.model)}") from error


def _advice(base: BaseWeights, model: ModelConfig) -> str:
    if base.kind != "PaliGemma":
        return "Leaves that may start fresh are named by --init-fresh PATTERN."
    own = ("action_*", "time_mlp_*") if model.pi05 else ("action_*", "state_proj/*")
    flags = " ".join(f"--init-fresh '{pattern}'" for pattern in ("PaliGemma/llm/*_1/*", *own))
    return f"A PaliGemma has no action expert: let it start fresh with {flags}."


def _fresh_leaves(
    model: ModelConfig, key: PRNGKeyArray, paths: Collection[str], shardings: Shardings
) -> dict[str, Array]:
    """Those leaves of `init_params` alone: the compiler drops what makes the others."""

    def make(key: PRNGKeyArray) -> dict[str, Array]:
        made = flatten(init_params(model, key))
        return {path: made[path] for path in paths}

    shapes = param_shapes(model)
    placed = {path: shardings(path, shapes[path].shape) for path in paths}
    return jax.jit(make, out_shardings=placed)(key) if paths else {}


def _check_finite(leaves: Mapping[str, Array], source: str) -> None:
    if wrong := non_finite(leaves):
        raise CheckpointInvalid(
            f"The weights of {source} hold NaN or infinity in {listed(wrong)}. Start from another checkpoint."
        )
