"""A policy: observations in, action chunks out, in physical units. What a server serves and a notebook calls."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from policy_protocol.errors import InternalError
from policy_protocol.messages import ActionChunk, Observation
from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.step_directory import Assets
from training.pi05.denoiser import Denoiser
from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig
from training.pi05.model.params import count_params
from training.pi05.placement import Shardings, whole_on
from training.pi05.transforms.observation import ObservationTransform, Row, collate, trained_prompt_lengths

__all__ = ["NonFiniteActions", "Policy", "noise_from_seed"]


def noise_from_seed(seed: int | None, shape: tuple[int, ...]) -> Float[np.ndarray, "action_horizon action_dim"]:
    """Initial noise of one request, float32; the same on every device. None draws fresh noise."""
    bits = np.random.Philox(key=secrets.randbits(63) if seed is None else seed)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


class NonFiniteActions(InternalError):
    """The model produced NaN or infinity for a row."""

    def __init__(self) -> None:
        super().__init__("The model produced NaN or infinite actions; the weights are probably damaged.")


class _Launched:
    """A batch on its way through the device."""

    def __init__(self, policy: Policy, rows: Sequence[Row], result: Array, checkpoint: str) -> None:
        self._policy, self._rows, self._result = policy, rows, result
        self.checkpoint = checkpoint
        """`experiment/run/step` of the weights that compute it."""

    def wait(self) -> None:
        """Until the device is done with it."""
        self._result.block_until_ready()

    def actions(self) -> Float[np.ndarray, "rows action_horizon action_dim"]:
        """Actions in physical units, float64; a row of NaN or infinity says nothing about the other rows."""
        actions = np.asarray(self._result)[: len(self._rows)]
        return self._policy.transform.actions.inverse(actions, np.stack([row.start_state for row in self._rows]))


class Policy:
    """Weights on their devices and the transforms around them.

    `transform` may be called from any thread, the rest from one thread for each replica.

    Args:
        model: sizes of the model.
        flat: its parameters by path, already in the type to compute with.
        assets: norm stats, spec and tokenizer.
        attention: `cudnn` is for NVIDIA GPUs and bfloat16; all give the same actions to rounding.
        placements: one for each copy of the weights.
        reading_placement: where another step's leaves are read to, for weights too large for the host or one device.
    """

    def __init__(
        self,
        model: ModelConfig,
        flat: Mapping[str, Array],
        assets: Assets,
        attention: AttentionKernel = "plain",
        placements: Sequence[Shardings] = (),
        reading_placement: Shardings | None = None,
    ) -> None:
        self.model = model
        self.spec = assets.spec
        self.transform = ObservationTransform(assets.spec, model, assets.norm_stats, assets.tokenizer)
        self.parameter_count = count_params(flat)
        """Number of parameters of the model."""
        self.prompt_lengths = _prompt_lengths(assets, model.max_token_len)
        """Prompt lengths in tokens, ascending, that requests are padded to: the trained prompts', and the longest."""
        self.reading_placement = reading_placement
        """Where a checkpoint's leaves are read to; None reads them to the host."""
        steps = assets.spec.policy.denoising_steps
        self._denoisers = [
            Denoiser(model, flat, steps, attention, placement, str(assets.spec.policy.checkpoint))
            for placement in placements or [whole_on(jax.devices()[0])]
        ]

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(action_horizon, action_dim of the model)."""
        return self.model.action_horizon, self.model.action_dim

    @property
    def replicas(self) -> int:
        """Copies of the weights, each computing on its own."""
        return len(self._denoisers)

    def compile(self, batch: int, prompt_length: int, replica: int = 0) -> None:
        """Compile one shape ahead of time and let it run once; `launch` compiles what it still lacks."""
        self._denoisers[replica].compile(collate([self._blank_row()] * batch, prompt_length))

    def finish_compiling(self) -> None:
        """Wait for the first runs of what was compiled; raises what went wrong."""
        for denoiser in self._denoisers:
            denoiser.finish_compiling()

    def launch(
        self,
        rows: Sequence[Row],
        noise: Float[np.ndarray, "rows action_horizon action_dim"],
        pad_to: int | None = None,
        replica: int = 0,
    ) -> _Launched:
        """Hand prepared rows to the device without waiting for it, as a batch padded to `pad_to` rows."""
        missing = (pad_to or len(rows)) - len(rows)
        inputs = collate([*rows, *[rows[0]] * missing], self._padded_length(max(len(row.tokens) for row in rows)))
        noise = np.concatenate([noise, np.repeat(noise[:1], missing, axis=0)])
        return _Launched(self, rows, *self._denoisers[replica](inputs, noise))

    def weights_on_devices(self) -> dict[jax.Device, int]:
        """Bytes of weights that each device holds."""
        held: dict[jax.Device, int] = {}
        for denoiser in self._denoisers:
            for shard in denoiser.shards():
                held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
        return held

    def replace_weights(self, flat: Mapping[str, Array], spec: PolicySpec) -> None:
        """Take the weights of another step of the same run in place; the spec names it from here on.

        Both sets are on the devices for a moment; when that does not fit, nothing is replaced.
        """
        prepared = [denoiser.prepared(flat) for denoiser in self._denoisers]
        for denoiser, weights in zip(self._denoisers, prepared, strict=True):
            denoiser.replace(weights, str(spec.policy.checkpoint))
        self.spec = spec

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
        actions = self.launch([row], noise).actions()[0]
        end = time.perf_counter()
        if not np.all(np.isfinite(actions)):
            raise NonFiniteActions()
        return ActionChunk(actions, {"infer_ms": (end - begun) * 1e3, "total_ms": (end - start) * 1e3})

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
