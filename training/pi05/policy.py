"""A policy: observations in, action chunks out, in physical units. What a server serves and a notebook calls."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from policy_protocol.errors import InternalError
from policy_protocol.messages import ActionChunk, Observation
from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.step_directory import Assets, CheckpointInvalid, find_step, read_assets
from training.pi05.checkpoint.weights import read_params
from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig
from training.pi05.model.flow import denoise
from training.pi05.model.lora import is_lora, merge_lora
from training.pi05.model.params import check_params, config_of_params, count_params, flatten, unflatten
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.model.serving import ServingParams, serving_params
from training.pi05.transforms.observation import ObservationTransform, Row, collate, trained_prompt_lengths

__all__ = ["NonFiniteActions", "Policy", "load_policy", "noise_from_seed"]


def noise_from_seed(seed: int | None, shape: tuple[int, ...]) -> Float[np.ndarray, "action_horizon action_dim"]:
    """Initial noise of one request, float32; the same on every device. None draws fresh noise."""
    bits = np.random.Philox(key=secrets.randbits(63) if seed is None else seed)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


class NonFiniteActions(InternalError):
    """The model produced NaN or infinity for a row."""

    def __init__(self) -> None:
        super().__init__("The model produced NaN or infinite actions; the weights are probably damaged.")


class Policy:
    """Weights on the device and the transforms around them. Not thread-safe: one thread owns the device.

    Args:
        model: sizes of the model.
        params: its parameter tree, already in the type to compute with.
        assets: norm stats, spec and tokenizer.
        attention: `cudnn` is for NVIDIA GPUs and bfloat16; all give the same actions to rounding.
    """

    def __init__(
        self, model: ModelConfig, params: PyTree[Array], assets: Assets, attention: AttentionKernel = "plain"
    ) -> None:
        self.model = model
        self.spec = assets.spec
        self.transform = ObservationTransform(assets.spec, model, assets.norm_stats, assets.tokenizer)
        flat, steps = flatten(params), assets.spec.policy.denoising_steps
        self.parameter_count = count_params(flat)
        """Number of parameters of the model."""
        self._weights = serving_params(model, flat, steps)
        self._compiled: dict[tuple[int, int], Callable[..., Any]] = {}
        self.prompt_lengths = _prompt_lengths(assets, model.max_token_len)
        """Prompt lengths in tokens, ascending, that requests are padded to: the trained prompts', and the longest."""
        network = PiModel(model, unrolled=True, kernel=attention)

        def run(weights: ServingParams, inputs: ModelInput, noise: Array) -> Array:
            return denoise(network, weights.params, inputs, noise, steps, weights.modulations)

        self._denoise = jax.jit(run, donate_argnames="noise")

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(action_horizon, action_dim of the model)."""
        return self.model.action_horizon, self.model.action_dim

    def compile(self, batch: int, prompt_length: int) -> None:
        """Compile one shape ahead of time and run it once; `infer_rows` compiles what it still lacks."""
        if (batch, prompt_length) in self._compiled:
            return
        row = self._blank_row()
        inputs = collate([row] * batch, prompt_length)
        noise = np.zeros((batch, *self.noise_shape), np.float32)
        compiled = self._denoise.lower(self._weights, inputs=inputs, noise=noise).compile()
        jax.block_until_ready(compiled(self._weights, inputs=inputs, noise=noise))
        self._compiled[batch, prompt_length] = compiled

    def infer_rows(
        self,
        rows: Sequence[Row],
        noise: Float[np.ndarray, "batch action_horizon action_dim"],
        pad_to: int | None = None,
    ) -> Float[np.ndarray, "batch action_horizon action_dim"]:
        """Actions of prepared rows, in physical units, float64. Batches are padded to `pad_to` rows.

        A row of NaN or infinity is the caller's to refuse: it says nothing about the other rows.
        """
        count, batch = len(rows), pad_to or len(rows)
        padded = [*rows, *[rows[0]] * (batch - count)]
        length = self._padded_length(max(len(row.tokens) for row in rows))
        self.compile(batch, length)
        inputs: ModelInput = collate(padded, length)
        noise = np.concatenate([noise, np.repeat(noise[:1], batch - count, axis=0)])
        actions = np.asarray(self._compiled[batch, length](self._weights, inputs=inputs, noise=noise))[:count]
        return self._to_physical(rows, actions)

    def __call__(self, observation: Observation, noise_seed: int | None = None) -> ActionChunk:
        """The action chunk for one observation.

        Raises:
            InvalidObservation: the observation is not what the spec says.
            NonFiniteActions: the model produced NaN or infinity.
        """
        start = time.perf_counter()
        row = self.transform(observation)
        noise = noise_from_seed(noise_seed, self.noise_shape)[None]
        begun = time.perf_counter()
        actions = self.infer_rows([row], noise)[0]
        end = time.perf_counter()
        if not np.all(np.isfinite(actions)):
            raise NonFiniteActions()
        return ActionChunk(actions, {"infer_ms": (end - begun) * 1e3, "total_ms": (end - start) * 1e3})

    def _to_physical(self, rows: Sequence[Row], actions: np.ndarray) -> np.ndarray:
        return self.transform.actions.inverse(actions, np.stack([row.start_state for row in rows]))

    def _padded_length(self, tokens: int) -> int:
        return next(length for length in self.prompt_lengths if length >= tokens)

    def _blank_row(self) -> Row:
        side = self.model.vision.image_size
        slots = [camera.slot for camera in self.spec.observation.cameras]
        image = np.zeros((side, side, 3), np.uint8)
        state = np.zeros(self.model.action_dim, np.float32)
        return Row(dict.fromkeys(slots, image), dict.fromkeys(slots, True), [0], state, state)


def _prompt_lengths(assets: Assets, longest: int) -> tuple[int, ...]:
    return tuple(sorted({*trained_prompt_lengths(assets.spec, assets.tokenizer, longest), longest}))


def load_policy(
    checkpoint: str | os.PathLike[str],
    *,
    spec: PolicySpec | str | os.PathLike[str] | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
    attention: AttentionKernel = "plain",
) -> Policy:
    """Load a step directory as a policy in this process: `load_policy("runs/…/999")(observation).actions`.

    Args:
        checkpoint: the step directory.
        spec: stands in for `assets/policy_spec.json` (stock openpi checkpoints have none): a spec, its file, or the
            name of one of openpi's released policies, such as `pi05_libero`.
        tokenizer: path or URL of a sentencepiece model, for checkpoints without one.
        dtype: `bfloat16` or `float32` for weights and compute; None takes bfloat16 on an accelerator, as openpi serves,
            and float32 on a CPU, where it is faster.
        attention: how attention is computed, see `Policy`.

    Raises:
        CheckpointInvalid, ParamsMismatch, SpecInvalid, NormStatsInvalid: says what is wrong with which file.
    """
    step = find_step(checkpoint)
    assets = read_assets(step, spec=spec, tokenizer=tokenizer)
    compute = jax.numpy.dtype(dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    flat = _merged(read_params(step, compute), step, compute)
    policy, prompt = assets.spec.policy, assets.spec.observation.prompt
    model = config_of_params(flat, policy.action_horizon, prompt.max_tokens, compute)
    if model.family != policy.family:
        raise CheckpointInvalid(f"{step} holds {model.family} weights but its spec says {policy.family}.")
    check_params(flat, model, str(step / "params"))
    if assets.tokenizer.vocabulary > model.vocabulary:
        raise CheckpointInvalid(
            f"The tokenizer has {assets.tokenizer.vocabulary} pieces but the model embeds {model.vocabulary}: "
            "it is not the one that the model was trained with."
        )
    return Policy(model, unflatten(flat), assets, attention)


def _merged(flat: Mapping[str, np.ndarray], step: Path, dtype: np.dtype) -> Mapping[str, np.ndarray]:
    """Plain weights; LoRA's factors are added in float32, whatever is served."""
    if not any(map(is_lora, flat)):
        return flat
    return {path: np.asarray(leaf, dtype) for path, leaf in merge_lora(read_params(step, np.float32)).items()}
