"""Measures weights on held-out episodes, each time on the same samples with the same noise and times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from policy_protocol.spec import PolicySpec
from training.data import Batch, Loader, MixedLoader
from training.experiment import Experiment
from training.parallel.sharding import local_rows, own_rows, place_batch
from training.pi05.model.batch_cut import BATCH
from training.pi05.model.flow import denoise, flow_loss
from training.pi05.model.pi import PiModel
from training.pi05.transforms.normalization import NormStats
from training.samples import Samples, SampleTransform
from training.validation.action_error import ActionErrors, ErrorSums, trivial_policies

__all__ = ["Validation", "Validator"]

_POLICY = "policy"
_KEY = 0
"""Seed of all noise and times here: not the run's, so that runs of other seeds are compared on the same."""


@dataclass(frozen=True)
class Validation:
    """What was measured."""

    loss: float
    """As the training loss, without augmentation."""
    errors: ActionErrors

    def record(self) -> dict[str, float]:
        """One flat line."""
        return {"loss": self.loss, **self.errors.record()}


class Validator:
    """Weights to a `Validation`.

    Args:
        experiment: whose model, execution horizon and denoising steps are taken.
        loader: of the held-out episodes; its first batches are used, up to an epoch of them.
        transform: as in training.
        norm_stats: of what is trained on.
        mesh: the devices that measure, of all processes of a run: each reads and judges its own rows of a batch.
        batches: at most this many are looked at.
    """

    def __init__(
        self,
        experiment: Experiment,
        loader: Loader | MixedLoader,
        transform: SampleTransform,
        norm_stats: Mapping[str, NormStats],
        mesh: Mesh,
        batches: int = 4,
    ) -> None:
        self._experiment, self._loader, self._transform = experiment, loader, transform
        self._mean = np.asarray(norm_stats["actions"].mean, np.float64)
        self._mesh, self._rows = mesh, own_rows(mesh, loader.batch_size)
        self._batches = min(batches, math.ceil(loader.steps_per_epoch))
        model = PiModel(experiment.model)

        def loss(params: PyTree[Array], key: Array, samples: Samples) -> Array:
            squared = flow_loss(model, params, key, samples.inputs, samples.actions)
            return jnp.sum(squared * samples.weights) / jnp.sum(samples.weights)

        def act(params: PyTree[Array], key: Array, samples: Samples) -> Array:
            noise = jax.random.normal(key, samples.actions.shape)
            return denoise(model, params, samples.inputs, noise, experiment.denoising_steps)

        self._loss = jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._act = jax.jit(act, out_shardings=NamedSharding(mesh, BATCH))

    def __call__(self, params: PyTree[Float[Array, "..."]]) -> Validation:
        """Measure weights, as a checkpoint's `params` holds them; the same weights give the same numbers."""
        losses, sums = [], ErrorSums()
        for index in range(self._batches):
            batch = self._loader.samples(self._loader.rows(index)[self._rows])
            samples = place_batch(self._mesh, self._transform(batch))
            key = jax.random.fold_in(jax.random.key(_KEY), index)
            with jax.set_mesh(self._mesh):  # what `keep_batch_cut` cuts over
                losses.append(self._loss(params, key, samples))
                acted = self._act(params, key, samples)
            sums.add(*self._compared(batch, local_rows(acted)))
        mean = float(np.mean([float(loss) for loss in losses]))
        return Validation(mean, sums.of_all_processes().errors(_names(self._spec), _POLICY))

    @property
    def _spec(self) -> PolicySpec:
        return self._transform.observation.spec

    def _compared(self, batch: Batch, acted: np.ndarray) -> tuple[Any, dict[str, Any], Any]:
        """What was done, what each policy does instead, and which steps are no padding."""
        steps = self._experiment.execution_horizon
        observation = self._transform.observation
        start_states = np.stack([observation.state.stages(state)[0] for state in batch.state])
        chunks = observation.actions.inverse(acted, start_states)[:, :steps]
        before = self._loader.samples(np.maximum(batch.rows - 1, 0))
        action = self._spec.action
        trivial = trivial_policies(batch, before, self._mean, steps, action.names, action.control_mode)
        return batch.actions[:, :steps], {_POLICY: chunks, **trivial}, ~batch.actions_is_pad[:, :steps]


def _names(spec: PolicySpec) -> tuple[str, ...]:
    return tuple(spec.action.names)
