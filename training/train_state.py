"""What training carries from step to step, and the optimizer that moves it."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from training.experiment import Experiment, OptimizerConfig
from training.freezing import Freezing
from training.pi05.model.params import flatten, param_shapes, unflatten

__all__ = ["TrainState", "init_state", "learning_rate", "optimizer", "state_shapes"]


class TrainState(flax.struct.PyTreeNode):
    """Parameters, optimizer state and averaged parameters: float32, frozen parameters bfloat16."""

    step: Int[Array, ""]
    """Updates done so far."""
    params: PyTree[Float[Array, "..."]]
    opt_state: Any
    """Of the leaves that train."""
    ema_params: PyTree[Float[Array, "..."]] | None
    """Averaged weights of the leaves that train, the ones that are served; None when averaging is off."""

    @property
    def served_params(self) -> PyTree[Float[Array, "..."]]:
        """The weights that a checkpoint's `params` holds: the averaged ones and the frozen ones."""
        if self.ema_params is None:
            return self.params
        averaged = flatten(self.ema_params)
        return unflatten({path: averaged.get(path, leaf) for path, leaf in flatten(self.params).items()})


def learning_rate(config: OptimizerConfig, decay_steps: int) -> optax.Schedule:
    """Linear warm-up from `peak_lr / (warmup_steps + 1)`, then a cosine to `end_lr`, as openpi has it."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.peak_lr / (config.warmup_steps + 1),
        peak_value=config.peak_lr,
        warmup_steps=config.warmup_steps,
        decay_steps=decay_steps,
        end_value=config.end_lr,
    )


def optimizer(config: OptimizerConfig, decay_steps: int) -> optax.GradientTransformation:
    """AdamW after clipping; the nesting is openpi's, so that its train states restore."""
    adamw = optax.adamw(
        learning_rate(config, decay_steps), b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def init_state(experiment: Experiment, params: PyTree[Float[Array, "..."]]) -> TrainState:
    """The state before the first update."""
    freezing = Freezing.of(experiment)
    params = freezing.stored(params)
    trainable = freezing.trainable(params)
    averaged = None if experiment.optimizer.ema_decay is None else jax.tree.map(jnp.array, trainable)
    opt_state = optimizer(experiment.optimizer, experiment.decay_steps).init(trainable)
    return TrainState(jnp.int32(0), params, opt_state, averaged)


def state_shapes(experiment: Experiment) -> TrainState:
    """Shapes and types of a state, without the memory of one."""
    return jax.eval_shape(lambda params: init_state(experiment, params), unflatten(param_shapes(experiment.model)))
