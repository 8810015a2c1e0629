"""How one leaf of our tree is laid out in PyTorch's tensors: which of them, and their axes on both sides.

Axes are words, each with a size that the tensors tell: W, M, A, a are the vision tower's width, MLP width, heads and
head dimension; C, P, Q, T an image's channels, a patch's height and width, and its tokens; V, D, F the vocabulary and
the language model's width and MLP width; E, G the same of the expert; N, H the heads and head dimension of both; X the
width of states and actions. A prime is a second axis of the same size. Brackets join axes, the first one slowest.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

__all__ = ["Leaf", "size_of", "sizes_of"]


@dataclass(frozen=True)
class Leaf:
    """One leaf of our tree and the tensors that it is made of."""

    path: str
    """`PaliGemma/llm/layers/attn/q_einsum/w`."""
    tensors: tuple[str, ...]
    """Their names, `*` for the layer. Layers are stacked first, then several tensors of a layer."""
    axes: str
    """One tensor's axes on their side, an arrow, and on ours: `(N H) D -> N D H`."""

    def names(self, depth: int) -> list[str]:
        """Names of all tensors, in the order of the stack."""
        if not self.layers:
            return list(self.tensors)
        return [name.replace("*", str(layer)) for layer in range(depth) for name in self.tensors]

    @property
    def layers(self) -> str | None:
        """What the names of its layers start with; None when it has no layers."""
        start, star, _ = self.tensors[0].partition("*")
        return start if star else None

    def stack(self, tensors: int) -> tuple[int, ...]:
        """Leading axes of a leaf made of that many tensors: layers, then tensors of a layer."""
        own = len(self.tensors)
        return (*((tensors // own,) if self.layers else ()), *((own,) if own > 1 else ()))

    @property
    def theirs(self) -> list[tuple[str, ...]]:
        """Each axis of one tensor on their side, as the words that it joins."""
        return _axes(self.axes.split("->")[0])

    @property
    def ours(self) -> list[tuple[str, ...]]:
        """The same on our side."""
        return _axes(self.axes.split("->")[1])

    def convert(self, tensor: Shaped[np.ndarray, "..."], sizes: Mapping[str, int]) -> Shaped[np.ndarray, "..."]:
        """One tensor with our axes: a view where that is possible."""
        split = [word for axis in self.theirs for word in axis]
        order = [split.index(word) for axis in self.ours for word in axis if word in split]
        apart = tensor.reshape([size_of((word,), sizes) for word in split])
        return apart.transpose(order).reshape([size_of(axis, sizes) for axis in self.ours])


def _axes(side: str) -> list[tuple[str, ...]]:
    return [tuple(axis.strip("()").split()) for axis in re.findall(r"\([^)]*\)|\S+", side)]


def size_of(axis: Iterable[str], sizes: Mapping[str, int]) -> int:
    """The size of an axis that joins these words."""
    product = 1
    for word in axis:
        product *= int(word) if word.isdigit() else sizes[word.rstrip("'")]
    return product


def sizes_of(found: Iterable[tuple[Leaf, tuple[int, ...]]], vision_heads: int) -> dict[str, int]:
    """The size of every axis, as most tensors have it: so that one misshapen tensor is not taken at its word."""
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    pairs = [pair for leaf, shape in found for pair in zip(leaf.theirs, shape, strict=True)]
    for axis, size in pairs:
        if len(axis) == 1:
            votes[axis[0].rstrip("'")][size] += 1
    sizes = {word: counter.most_common(1)[0][0] for word, counter in votes.items()} | {"A": vision_heads}
    for known, unknown in (("H", "N"), ("A", "a")):
        joined = [size for axis, size in pairs if set(axis) == {known, unknown}]
        if joined and known in sizes:
            sizes[unknown] = Counter(joined).most_common(1)[0][0] // max(sizes[known], 1)
    return sizes
