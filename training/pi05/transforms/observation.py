"""From what arrives on the wire to what the model sees: one implementation for training and serving.

Order, as openpi has it: check, map cameras to slots, normalise the state, resize, tokenise (the state unpadded), pad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt8

from policy_protocol.errors import InvalidObservation, SpecInvalid, did_you_mean
from policy_protocol.messages import Observation
from policy_protocol.spec import CameraSpec, PolicySpec
from training.pi05.model.config import SLOTS, ModelConfig
from training.pi05.model.pi import ModelInput
from training.pi05.transforms.images import resize_with_pad
from training.pi05.transforms.normalization import NormStats, normalize
from training.pi05.transforms.tokenizer import Tokenizer

__all__ = ["ObservationTransform", "Row", "collate", "parse_image", "trained_prompt_lengths"]

_LARGEST_STATE = 1e30
"""Beyond it float32 overflows on the way to the model; no joint is there."""
_PROMPT_MULTIPLE = 16
"""Trained prompts are padded to a multiple of this many tokens, so that few shapes are compiled."""


@dataclass(frozen=True)
class Row:
    """One observation, ready to be put into a batch."""

    images: Mapping[str, UInt8[np.ndarray, "height width 3"]]
    """Slot -> image at the model's size; black where an optional camera is absent."""
    image_masks: Mapping[str, bool]
    tokens: Sequence[int]
    """Token ids of the prompt, unpadded."""
    state: Float[np.ndarray, "action_dim"]
    """Normalised, padded with zeros."""
    raw_state: Float[np.ndarray, "state_dim"]
    """As it arrived: what delta actions are relative to."""


@dataclass(frozen=True)
class ObservationTransform:
    """Turns an observation into a `Row` as the policy's spec says.

    Raises (on use):
        InvalidObservation: a key is missing, or a value is not what the spec says; names the key.
    """

    spec: PolicySpec
    model: ModelConfig
    norm_stats: Mapping[str, NormStats]
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        for camera in self.spec.observation.cameras:
            if camera.slot not in SLOTS:
                raise SpecInvalid(
                    f"The model has no view {camera.slot!r}.{did_you_mean(camera.slot, SLOTS)}",
                    field="observation.cameras.slot",
                )
        width = self.spec.observation.state.dimension
        if width > self.model.action_dim:
            raise InvalidObservation(
                f"The spec's state has {width} dimensions but the model holds {self.model.action_dim}.",
                field=self.spec.observation.state.key,
            )

    def __call__(self, observation: Observation) -> Row:
        images, masks = {}, {}
        for camera in self.spec.observation.cameras:
            images[camera.slot], masks[camera.slot] = self._image(observation, camera)
        state = self._state(observation)
        normalized = normalize(state, self.norm_stats["state"], self.spec.policy.normalization)
        tokens = self.tokenizer.encode(
            self._prompt(observation),
            normalized if self.spec.observation.prompt.includes_state else None,
            self.model.max_token_len,
        )
        padded = np.zeros(self.model.action_dim, np.float32)
        padded[: len(normalized)] = normalized
        return Row(images, masks, tokens, padded, state)

    def _image(self, observation: Observation, camera: CameraSpec) -> tuple[UInt8[np.ndarray, "height width 3"], bool]:
        side = self.model.vision.image_size
        if camera.key not in observation:
            if camera.required:
                raise self._missing(observation, camera.key, "an image (height, width, 3) uint8")
            return np.zeros((side, side, 3), np.uint8), False
        return resize_with_pad(parse_image(observation[camera.key], camera.key), side, side), True

    def _state(self, observation: Observation) -> Float[np.ndarray, "state_dim"]:
        spec = self.spec.observation.state
        if spec.key not in observation:
            raise self._missing(observation, spec.key, f"a float vector of {spec.dimension} numbers")
        state = _as_array(observation[spec.key], spec.key)
        if state.shape != (spec.dimension,) or state.dtype.kind not in "fiu":
            names = ", ".join(part.name for part in spec.fields)
            raise InvalidObservation(
                f"{spec.key} must be {spec.dimension} numbers ({names}), not shape {state.shape} of {state.dtype}.",
                field=spec.key,
            )
        if not np.all(np.abs(state) < _LARGEST_STATE):  # also refuses NaN
            raise InvalidObservation(f"{spec.key} holds NaN, infinity or a number beyond 1e30.", field=spec.key)
        return state if state.dtype.kind == "f" else state.astype(np.float64)

    def _prompt(self, observation: Observation) -> str:
        key = self.spec.observation.prompt.key
        if key not in observation:
            raise self._missing(observation, key, "the instruction as a string")
        prompt = observation[key]
        if isinstance(prompt, np.ndarray) and prompt.shape == ():
            prompt = prompt.item()
        if isinstance(prompt, bytes):
            prompt = prompt.decode("utf-8", errors="replace")
        if not isinstance(prompt, str):
            raise InvalidObservation(f"{key} must be a string, not {type(prompt).__name__}.", field=key)
        return prompt

    def _missing(self, observation: Observation, key: str, expected: str) -> InvalidObservation:
        got = ", ".join(sorted(map(str, observation))) or "nothing"
        return InvalidObservation(f"The observation lacks {key!r}: {expected}. It holds: {got}.", field=key)


def _as_array(value: object, key: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InvalidObservation(f"{key} is no array: {error}.", field=key) from error


def parse_image(value: object, key: str) -> UInt8[np.ndarray, "height width 3"]:
    """An image as uint8, channels last. Also takes channels first, and floats from 0 to 1 as LeRobot yields them.

    Raises:
        InvalidObservation: wrong rank, channels, dtype or range; names the key.
    """
    image = _as_array(value, key)
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]) or 0 in image.shape:
        raise InvalidObservation(f"{key} must be an image (height, width, 3), not shape {image.shape}.", field=key)
    if image.shape[-1] != 3:
        image = np.moveaxis(image, 0, -1)
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise InvalidObservation(f"{key} must be uint8 (or float from 0 to 1), not {image.dtype}.", field=key)
    return _float_image(image, key)


def _float_image(image: Num[np.ndarray, "height width 3"], key: str) -> UInt8[np.ndarray, "height width 3"]:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # also refuses NaN
        raise InvalidObservation(
            f"{key} is a float image with values from {low:g} to {high:g}; floats must lie in 0..1. Send uint8.",
            field=key,
        )
    return (255 * image).astype(np.uint8)


def collate(rows: Sequence[Row], prompt_length: int) -> ModelInput:
    """Stack rows into one batch, prompts padded with zeros to `prompt_length`."""
    tokens: Int[np.ndarray, "batch prompt"] = np.zeros((len(rows), prompt_length), np.int32)
    mask: Bool[np.ndarray, "batch prompt"] = np.zeros((len(rows), prompt_length), bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        mask[index, : len(row.tokens)] = True
    slots = rows[0].images.keys()
    return ModelInput(
        images={slot: np.stack([row.images[slot] for row in rows]) for slot in slots},
        image_masks={slot: np.array([row.image_masks[slot] for row in rows]) for slot in slots},
        tokens=tokens,
        token_mask=mask,
        state=np.stack([row.state for row in rows]),
    )


def trained_prompt_lengths(spec: PolicySpec, tokenizer: Tokenizer, longest: int) -> tuple[int, ...]:
    """Token counts that the trained prompts are padded to, ascending; `(longest,)` when the spec names none.

    Args:
        longest: what the model takes (max_token_len).
    """
    observation = spec.observation
    # Below-range and three-digit bins take the most tokens; the multiple leaves room for other mixtures.
    states = [np.full(observation.state.dimension, value) for value in (-2.0, 0.0)]
    if not observation.prompt.includes_state:
        states = [None]
    lengths = set()
    for prompt in observation.prompt.trained:
        tokens = max(len(tokenizer.encode(prompt, state, longest)) for state in states)
        lengths.add(min(-(-tokens // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE, longest))
    return tuple(sorted(lengths)) or (longest,)
