"""From what arrives on the wire to what the model sees: one implementation for training and serving.

Order, as openpi has it: check, map cameras to slots, convert and normalise the state, resize, tokenise (the state
unpadded), pad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from policy_protocol.errors import InvalidObservation, SpecInvalid, did_you_mean
from policy_protocol.messages import Observation
from policy_protocol.spec import CameraSpec, PolicySpec
from training.pi05.model.config import SLOTS, ModelConfig
from training.pi05.model.pi import ModelInput
from training.pi05.transforms.chain import Chain
from training.pi05.transforms.images import parse_image, resize_with_pad
from training.pi05.transforms.normalization import NormStats
from training.pi05.transforms.pipeline import action_chain, state_chain
from training.pi05.transforms.tokenizer import Tokenizer
from training.pi05.transforms.wire import array_of, missing, value_at

__all__ = ["ObservationTransform", "Row", "collate", "trained_prompt_lengths"]

_LARGEST_STATE = 1e30
"""Beyond it float32 overflows on the way to the model; no joint is there."""
_LONGEST_PROMPT = 100_000
"""Characters: far beyond what any model reads, and tokenised in a moment. Megabytes of text would take seconds."""
_PROMPT_MULTIPLE = 16
"""Trained prompts are padded to a multiple of this many tokens, so that few shapes are compiled."""
_UNKNOWN_PROMPTS = (32, 64, 128)
"""Lengths where no trained prompt is known. Each is compiled for every batch size, so there are few: about 20 tokens of
text and four of each state dimension make a long prompt."""


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
    start_state: Float[np.ndarray, "state_dim"]
    """In the model's units, before normalisation: what delta actions are relative to."""


@dataclass(frozen=True)
class ObservationTransform:
    """Turns an observation into a `Row` as the policy's spec says; `actions` is the way of its actions.

    Raises:
        SpecInvalid: the spec does not fit the model.
        InvalidObservation (on use): a key is missing, or a value is not what the spec says; names the key.
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
        _ = self.state, self.actions  # the spec must fit before the first request comes

    @cached_property
    def state(self) -> Chain:
        """From the state as it arrives to the model's."""
        return state_chain(self.spec, self.norm_stats, self.model.action_dim)

    @cached_property
    def actions(self) -> Chain:
        """From actions in physical units to the model's; its inverse is the way back."""
        return action_chain(self.spec, self.norm_stats, self.model.action_dim)

    def __call__(self, observation: Observation) -> Row:
        images, masks = {}, {}
        for camera in self.spec.observation.cameras:
            images[camera.slot], masks[camera.slot] = self._image(observation, camera)
        converted, normalized, padded = self.state.stages(self._state(observation))
        tokens = self.tokenizer.encode(
            self._prompt(observation),
            normalized if self.spec.observation.prompt.includes_state else None,
            self.model.max_token_len,
        )
        return Row(images, masks, tokens, padded.astype(np.float32), converted)

    def _image(self, observation: Observation, camera: CameraSpec) -> tuple[UInt8[np.ndarray, "height width 3"], bool]:
        side = self.model.vision.image_size
        image = value_at(observation, camera.key)
        if image is not None:
            return resize_with_pad(parse_image(image, camera.key), side, side), True
        if camera.required:
            raise missing(observation, camera.key, "an image (height, width, 3) uint8")
        return np.zeros((side, side, 3), np.uint8), False

    def _state(self, observation: Observation) -> Float[np.ndarray, "state_dim"]:
        spec = self.spec.observation.state
        names = [", ".join(part.name for part in spec.fields)] if spec.key else [part.name for part in spec.fields]
        vectors = [
            _vector(observation, key, width, name) for (key, width), name in zip(spec.vectors, names, strict=True)
        ]
        return np.concatenate(vectors)

    def _prompt(self, observation: Observation) -> str:
        spec = self.spec.observation.prompt
        prompt = value_at(observation, spec.key)
        if prompt is None and spec.default:
            return spec.default
        if prompt is None:
            raise missing(observation, spec.key, "the instruction as a string")
        if isinstance(prompt, np.ndarray) and prompt.shape == ():
            prompt = prompt.item()
        if isinstance(prompt, bytes):
            prompt = prompt.decode("utf-8", errors="replace")
        if not isinstance(prompt, str):
            raise InvalidObservation(f"{spec.key} must be a string, not {type(prompt).__name__}.", field=spec.key)
        if len(prompt) > _LONGEST_PROMPT:
            raise InvalidObservation(
                f"{spec.key} has {len(prompt):,} characters; an instruction has at most {_LONGEST_PROMPT:,}. "
                "Send one sentence.",
                field=spec.key,
            )
        return prompt


def _vector(observation: Observation, key: str, width: int, names: str) -> Float[np.ndarray, "width"]:
    value = value_at(observation, key)
    if value is None:
        raise missing(observation, key, f"a float vector of {width} numbers")
    vector = array_of(value, key)
    if width == 1 and vector.shape == ():  # DROID's clients send the gripper so, and openpi takes it
        vector = vector[None]
    if vector.shape != (width,) or vector.dtype.kind not in "fiu":
        raise InvalidObservation(
            f"{key} must be {width} numbers ({names}), not shape {vector.shape} of {vector.dtype}.", field=key
        )
    if not np.all(np.abs(vector) < _LARGEST_STATE):  # also refuses NaN
        raise InvalidObservation(f"{key} holds NaN, infinity or a number beyond 1e30.", field=key)
    return vector if vector.dtype.kind == "f" else vector.astype(np.float64)


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
    """Token counts that the trained prompts are padded to, ascending.

    A spec that names no prompt, as openpi's released ones, gets a few lengths up to the longest.

    Args:
        longest: what the model takes (max_token_len).
    """
    observation = spec.observation
    if not observation.prompt.trained:
        return (*(length for length in _UNKNOWN_PROMPTS if length < longest), longest)
    # Below-range and three-digit bins take the most tokens; the multiple leaves room for other mixtures.
    states = [np.full(observation.state.dimension, value) for value in (-2.0, 0.0)]
    if not observation.prompt.includes_state:
        states = [None]
    lengths = set()
    for prompt in observation.prompt.trained:
        tokens = max(len(tokenizer.encode(prompt, state, longest)) for state in states)
        lengths.add(min(-(-tokens // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE, longest))
    return tuple(sorted(lengths))
