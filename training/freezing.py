"""Which leaves of the parameters train, and which stay as they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from training.experiment import Experiment, ExperimentInvalid
from training.pi05.model.config import ModelConfig
from training.pi05.model.params import flatten, param_shapes, unflatten

__all__ = ["Freezing"]

_FACTORS = "!*lora_?"


@dataclass(frozen=True)
class Freezing:
    """Parts a parameter tree into the leaves that train and the frozen ones."""

    frozen: frozenset[str]
    """Paths of the frozen leaves."""

    @classmethod
    def of(cls, experiment: Experiment) -> Freezing:
        """By the experiment's `freeze`, or as openpi freezes its model.

        Raises:
            ExperimentInvalid: a pattern matches no leaf, or every leaf is frozen.
        """
        patterns = _openpis(experiment.model) if experiment.freeze is None else experiment.freeze
        paths = tuple(param_shapes(experiment.model))
        for pattern in patterns:
            if not any(fnmatchcase(path, pattern.removeprefix("!")) for path in paths):
                raise ExperimentInvalid(
                    f"freeze: {pattern!r} matches no leaf of the model, such as {min(paths)}. "
                    "A star stands for any letters, slashes too.",
                    field="freeze",
                )
        frozen = frozenset(path for path in paths if _is_frozen(path, patterns))
        if len(frozen) == len(paths):
            raise ExperimentInvalid("freeze leaves no leaf to train. Let some go: a pattern with a ! in front.")
        return cls(frozen)

    def trainable(self, params: PyTree[Any]) -> PyTree[Any]:
        """The tree of the leaves that train."""
        return unflatten({path: leaf for path, leaf in flatten(params).items() if path not in self.frozen})

    def join(self, trainable: PyTree[Any], params: PyTree[Any]) -> PyTree[Any]:
        """The tree of `params` with the leaves of `trainable` in their places."""
        trained = flatten(trainable)
        return unflatten({path: trained.get(path, leaf) for path, leaf in flatten(params).items()})

    def stored(self, params: PyTree[Array]) -> PyTree[Array]:
        """The leaves as they are kept: float32 master weights, the frozen ones bfloat16."""
        return unflatten({path: jnp.asarray(leaf, self.dtype(path)) for path, leaf in flatten(params).items()})

    def dtype(self, path: str) -> Any:
        """Type in which a leaf is kept."""
        return jnp.bfloat16 if path in self.frozen else jnp.float32


def _openpis(model: ModelConfig) -> Sequence[str]:
    language, expert = bool(model.language.lora_rank), bool(model.expert.lora_rank)
    if language:
        return ("PaliGemma/llm/*", *(() if expert else ("!PaliGemma/llm/*_1/*",)), _FACTORS)
    return ("PaliGemma/llm/*_1/*", _FACTORS) if expert else ()


def _is_frozen(path: str, patterns: Sequence[str]) -> bool:
    frozen = False
    for pattern in patterns:
        if fnmatchcase(path, pattern.removeprefix("!")):
            frozen = not pattern.startswith("!")
    return frozen
