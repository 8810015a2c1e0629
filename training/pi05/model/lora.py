"""LoRA (Hu et al. 2022) as openpi has it: two thin matrices beside a weight, and merging them into it.

A projection's leaves are `w`, `lora_a` (…, in, rank) and `lora_b` (…, rank, out); the feed-forward's carry the weight's
name in front (`linear_lora_a`). openpi's variants have alpha = rank, so nothing is scaled. Two traps of its equations:
the attention's output projection sums the heads in each factor on its own, and its feed-forward never scales.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["is_lora", "lora_equations", "lora_shapes", "merge_lora"]

INIT_SCALE = 0.01
"""Standard deviation of fresh factors, both of them: openpi does not start from zero."""
_FACTORS = ("lora_a", "lora_b")


def is_lora(path: str) -> bool:
    """Whether a leaf is a LoRA factor."""
    return path.endswith(_FACTORS)


def lora_shapes(shape: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the two factors of a weight (…, in, out)."""
    return (*shape[:-1], rank), (*shape[:-2], rank, shape[-1])


def lora_equations(equation: str) -> tuple[str, str]:
    """The einsums through the factors of `x,w->y`: `x,a->z` and `z,b->y`. The letter L is the rank's."""
    operands, y = equation.split("->")
    x, w = operands.split(",")
    narrow = y.replace(w[-1], "L")
    return f"{x},{w.replace(w[-1], 'L')}->{narrow}", f"{narrow},{w.replace(w[-2], 'L')}->{y}"


def merge_lora(flat: Mapping[str, Array]) -> dict[str, Array]:
    """A flat parameter tree with every pair of factors added into its weight; a tree without any comes back equal.

    The sum is computed in the weight's type: pass float32 where it is at hand.
    """
    merged = {path: leaf for path, leaf in flat.items() if not is_lora(path)}
    for path in flat:
        if path.endswith("lora_a"):
            stem = path.removesuffix("lora_a")
            weight = f"{stem}w" if stem.endswith("/") else stem.removesuffix("_")
            merged[weight] = merged[weight] + _product(weight, flat[path], flat[f"{stem}lora_b"])
    return merged


def _product(weight: str, a: Array, b: Array) -> Array:
    if "attn_vec_einsum" in weight:  # the heads of b are summed before a's, not pairwise
        return jnp.einsum("...NHL,...LD->...NHD", a, b.sum(axis=-3))
    return jnp.matmul(a, b)
