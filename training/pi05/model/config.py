"""Sizes of a Pi0 or Pi0.5 model, and the presets by name.

The full model is SigLIP So400m/14, Gemma 2B for the prefix and a 300M expert for the actions. The small presets have
every part of its structure at widths that two CPU cores can train.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias, get_args

from policy_protocol.errors import ChunkwireError, did_you_mean
from policy_protocol.spec import Family

__all__ = ["SLOTS", "GemmaConfig", "ModelConfig", "SigLIPConfig", "UnknownPreset", "preset", "without_lora"]

_Dtype: TypeAlias = Literal["bfloat16", "float32"]
_RematPolicy: TypeAlias = Literal["nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"]

SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""openpi's names of the camera views, in the order in which their tokens enter the prefix.

The order is the alphabet's, and must be: jax sorts the keys of a map that enters a compiled function.
"""
assert list(SLOTS) == sorted(SLOTS)


class UnknownPreset(ChunkwireError):
    """A model preset that does not exist."""

    code = "unknown_preset"


def _check_positive(config: SigLIPConfig | GemmaConfig | ModelConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int) and value < 1 and not isinstance(value, bool) and field.name != "lora_rank":
            raise ValueError(f"{field.name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class SigLIPConfig:
    """The vision tower: a ViT over square patches, no pooling."""

    image_size: int
    """Pixels of a side; images are resized to a square of it."""
    patch_size: int
    width: int
    depth: int
    mlp_width: int
    heads: int

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}.")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}.")

    @property
    def tokens(self) -> int:
        """Image tokens of one camera."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class GemmaConfig:
    """One of the two transformers that share their attention."""

    width: int
    mlp_width: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    lora_rank: int = 0
    """Rank of the LoRA factors beside every weight of attention and feed-forward; 0 for none. alpha = rank."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must not be negative: {self.lora_rank}.")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}.")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: rotary embedding turns halves.")


@dataclass(frozen=True)
class ModelConfig:
    """A whole model."""

    family: Family
    vision: SigLIPConfig
    language: GemmaConfig
    expert: GemmaConfig
    vocabulary: int
    action_dim: int = 32
    """Width that states and actions are padded to."""
    action_horizon: int = 50
    """Steps in one action chunk."""
    max_token_len: int = 200
    """Longest prompt in tokens."""
    dtype: _Dtype = "bfloat16"
    """Compute type of both towers; the projections of actions, time and state follow their inputs."""
    remat: bool = True
    """Recompute each block's activations in the backward pass: a third more arithmetic, a fraction of the memory."""
    remat_policy: _RematPolicy = "nothing_saveable"
    """What a recomputed block keeps nevertheless, by jax's name: nothing, as openpi; its products with weights; or all
    of its products, those of attention too."""

    def __post_init__(self) -> None:
        _check_positive(self)
        shared = ("depth", "heads", "kv_heads", "head_dim")
        different = [name for name in shared if getattr(self.language, name) != getattr(self.expert, name)]
        if different:
            raise ValueError(f"the language model and the expert must share {', '.join(different)}.")
        if self.dtype not in get_args(_Dtype):
            raise ValueError(f"dtype must be {' or '.join(get_args(_Dtype))}, not {self.dtype}.")
        if self.remat_policy not in get_args(_RematPolicy):
            raise ValueError(
                f"remat_policy must be one of {', '.join(get_args(_RematPolicy))}, not {self.remat_policy}."
            )

    @property
    def saved_in_blocks(self) -> str | None:
        """Name of the policy by which blocks are recomputed; None where they are not."""
        return self.remat_policy if self.remat else None

    @property
    def pi05(self) -> bool:
        """Whether time enters by adaRMS and the state by the prompt (Pi0.5) rather than as tokens (Pi0)."""
        return self.family == "pi05"


_SO400M_14 = SigLIPConfig(image_size=224, patch_size=14, width=1152, depth=27, mlp_width=4304, heads=16)
_GEMMA_2B = GemmaConfig(width=2048, mlp_width=16384, depth=18, heads=8, kv_heads=1, head_dim=256)
_GEMMA_300M = GemmaConfig(width=1024, mlp_width=4096, depth=18, heads=8, kv_heads=1, head_dim=256)
_GEMMA_2B_LORA = replace(_GEMMA_2B, lora_rank=16)
_GEMMA_300M_LORA = replace(_GEMMA_300M, lora_rank=32)
_VOCABULARY = 257_152

# 2.5M parameters. 16 tokens a camera: with patches of 8 pixels a step takes twice as long on two CPU cores.
_PI05_SMALL = ModelConfig(
    "pi05",
    SigLIPConfig(image_size=64, patch_size=16, width=96, depth=3, mlp_width=384, heads=3),
    GemmaConfig(width=128, mlp_width=384, depth=4, heads=4, kv_heads=1, head_dim=32),
    GemmaConfig(width=128, mlp_width=384, depth=4, heads=4, kv_heads=1, head_dim=32),
    vocabulary=768,
    action_dim=16,
    action_horizon=16,
    max_token_len=64,
    dtype="float32",
    remat=False,
)

_PRESETS = {
    "pi05": ModelConfig("pi05", _SO400M_14, _GEMMA_2B, _GEMMA_300M, _VOCABULARY, max_token_len=200),
    "pi0": ModelConfig("pi0", _SO400M_14, _GEMMA_2B, _GEMMA_300M, _VOCABULARY, max_token_len=48),
    "pi05_lora": ModelConfig("pi05", _SO400M_14, _GEMMA_2B_LORA, _GEMMA_300M_LORA, _VOCABULARY, max_token_len=200),
    "pi0_lora": ModelConfig("pi0", _SO400M_14, _GEMMA_2B_LORA, _GEMMA_300M_LORA, _VOCABULARY, max_token_len=48),
    "pi05_small": _PI05_SMALL,
    "pi0_small": replace(_PI05_SMALL, family="pi0"),
}


def without_lora(config: ModelConfig) -> ModelConfig:
    """The model once its LoRA factors are merged into the weights."""
    language, expert = (replace(part, lora_rank=0) for part in (config.language, config.expert))
    return replace(config, language=language, expert=expert)


def preset(name: str) -> ModelConfig:
    """The model of that name: `pi05`, `pi0` (full size), both with `_lora` or `_small`.

    Raises:
        UnknownPreset: no such preset; the message offers the closest.
    """
    if name not in _PRESETS:
        raise UnknownPreset(f"Unknown model preset {name!r}.{did_you_mean(name, _PRESETS)}")
    return _PRESETS[name]
