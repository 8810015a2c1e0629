"""LeRobot's and openpi's PyTorch names of every leaf.

Source: openpi's conversion (examples/convert_jax_model_to_pytorch.py) and LeRobot's `PI0Policy` and `PI05Policy`, which
keep its names. Both hold transformers' PaliGemma and Gemma: one tensor a layer, Linear weights as (out, in).
"""

from __future__ import annotations

from collections.abc import Iterable

from policy_protocol.spec import Family
from training.pi05.checkpoint.pytorch_layout import Leaf

__all__ = ["UNUSED", "canonical", "family_of", "leaves"]

_PALIGEMMA = "paligemma_with_expert.paligemma"
_EXPERT = "paligemma_with_expert.gemma_expert"
_VISION = f"{_PALIGEMMA}.model.vision_tower.vision_model"
_EMBEDDING = f"{_PALIGEMMA}.model.language_model.embed_tokens.weight"
_TEXT_HEAD = f"{_PALIGEMMA}.lm_head.weight"

UNUSED = {
    _TEXT_HEAD: "the output layer for text: actions never pass it",
    f"{_EXPERT}.lm_head.weight": "the expert's output layer for text, which transformers adds and nobody calls",
}
"""Tensors that belong to no leaf, and why."""


def family_of(names: Iterable[str]) -> Family:
    """Pi0.5's expert has adaRMS, which no other model has."""
    return "pi05" if any(name.startswith(_EXPERT) and ".dense." in name for name in names) else "pi0"


def canonical(names: Iterable[str]) -> dict[str, str]:
    """The table's name of each tensor -> its name in the file.

    LeRobot saves its policy's names (`model.` before each), torch.compile adds `_orig_mod.`. Where input and output
    embedding are tied, safetensors keeps one of the two names: the output's. Where they are not (LeRobot since
    transformers 5), the input's is the one that the model computes with. LeRobot also takes each family's time MLP
    under the other's name.
    """
    found = {name.replace("_orig_mod.", "").removeprefix("model."): name for name in names}
    if _EMBEDDING not in found and _TEXT_HEAD in found:
        found[_EMBEDDING] = found.pop(_TEXT_HEAD)
    own, other = ("time_mlp_", "action_time_mlp_")
    if family_of(found) == "pi0":
        own, other = other, own
    if not any(name.startswith(own) for name in found):
        found = {own + name.removeprefix(other) if name.startswith(other) else name: found[name] for name in found}
    return found


def leaves(family: Family) -> tuple[Leaf, ...]:
    """Every leaf of a model of that family."""
    language, expert = f"{_PALIGEMMA}.model.language_model", f"{_EXPERT}.model"
    return (
        *_vision(),
        Leaf("PaliGemma/llm/embedder/input_embedding", (_EMBEDDING,), "V D -> V D"),
        *_gemma(language, "", "D", "F"),
        *_gemma(expert, "_1", "E", "G"),
        *_norms(language, "", "D", adaptive=False),
        *_norms(expert, "_1", "E", adaptive=family == "pi05"),
        *_projections(family),
    )


def _linear(path: str, name: str, kernel: str, bias: str, weight: str = "kernel") -> tuple[Leaf, Leaf]:
    return Leaf(f"{path}/{weight}", (f"{name}.weight",), kernel), Leaf(f"{path}/bias", (f"{name}.bias",), bias)


def _vision() -> list[Leaf]:
    img, block, layer = "PaliGemma/img", "PaliGemma/img/Transformer/encoderblock", f"{_VISION}.encoder.layers.*"
    heads = ("(A a) W -> W A a", "(A a) -> A a")
    attention = f"{block}/MultiHeadDotProductAttention_0"
    position = f"{_VISION}.embeddings.position_embedding.weight"
    return [
        *_linear(f"{img}/embedding", f"{_VISION}.embeddings.patch_embedding", "W C P Q -> P Q C W", "W -> W"),
        Leaf(f"{img}/pos_embedding", (position,), "T W -> 1 T W"),
        *_linear(f"{block}/LayerNorm_0", f"{layer}.layer_norm1", "W -> W", "W -> W", weight="scale"),
        *_linear(f"{block}/LayerNorm_1", f"{layer}.layer_norm2", "W -> W", "W -> W", weight="scale"),
        *_linear(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.fc1", "M W -> W M", "M -> M"),
        *_linear(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.fc2", "W M -> M W", "W -> W"),
        *_linear(f"{attention}/query", f"{layer}.self_attn.q_proj", *heads),
        *_linear(f"{attention}/key", f"{layer}.self_attn.k_proj", *heads),
        *_linear(f"{attention}/value", f"{layer}.self_attn.v_proj", *heads),
        *_linear(f"{attention}/out", f"{layer}.self_attn.out_proj", "W (A a) -> A a W", "W -> W"),
        *_linear(f"{img}/Transformer/encoder_norm", f"{_VISION}.post_layernorm", "W -> W", "W -> W", weight="scale"),
        *_linear(f"{img}/head", f"{_PALIGEMMA}.model.multi_modal_projector.linear", "D W -> W D", "D -> D"),
    ]


def _gemma(module: str, suffix: str, width: str, mlp: str) -> list[Leaf]:
    """One transformer. Both have a single key-value head, so its axis is in no tensor."""
    attention, feed_forward = f"{module}.layers.*.self_attn", f"{module}.layers.*.mlp"
    keys_and_values = (f"{attention}.k_proj.weight", f"{attention}.v_proj.weight")
    gate_and_up = (f"{feed_forward}.gate_proj.weight", f"{feed_forward}.up_proj.weight")
    attn, mlp_path = "PaliGemma/llm/layers/attn", f"PaliGemma/llm/layers/mlp{suffix}"
    return [
        Leaf(f"{attn}/q_einsum{suffix}/w", (f"{attention}.q_proj.weight",), f"(N H) {width} -> N {width} H"),
        Leaf(f"{attn}/kv_einsum{suffix}/w", keys_and_values, f"H {width} -> 1 {width} H"),
        Leaf(f"{attn}/attn_vec_einsum{suffix}/w", (f"{attention}.o_proj.weight",), f"{width} (N H) -> N H {width}"),
        Leaf(f"{mlp_path}/gating_einsum", gate_and_up, f"{mlp} {width} -> {width} {mlp}"),
        Leaf(f"{mlp_path}/linear", (f"{feed_forward}.down_proj.weight",), f"{width} {mlp} -> {mlp} {width}"),
    ]


def _norms(module: str, suffix: str, width: str, *, adaptive: bool) -> list[Leaf]:
    """RMSNorm's weight is our scale (both multiply by one plus it); adaRMS has a Dense to scale, shift and gate."""
    norms = {
        f"layers/pre_attention_norm{suffix}": f"{module}.layers.*.input_layernorm",
        f"layers/pre_ffw_norm{suffix}": f"{module}.layers.*.post_attention_layernorm",
        f"final_norm{suffix}": f"{module}.norm",
    }
    found = []
    for path, name in norms.items():
        if adaptive:
            kernel, bias = f"(3 {width}') {width} -> {width} (3 {width}')", f"(3 {width}) -> (3 {width})"
            found.extend(_linear(f"PaliGemma/llm/{path}/Dense_0", f"{name}.dense", kernel, bias))
        else:
            found.append(Leaf(f"PaliGemma/llm/{path}/scale", (f"{name}.weight",), f"{width} -> {width}"))
    return found


def _projections(family: Family) -> list[Leaf]:
    axes = {"action_in_proj": ("E X -> X E", "E -> E"), "action_out_proj": ("X E -> E X", "X -> X")}
    square = ("E' E -> E E'", "E -> E")
    if family == "pi05":
        axes |= {"time_mlp_in": square, "time_mlp_out": square}
    else:
        axes |= {"state_proj": ("E X -> X E", "E -> E"), "action_time_mlp_out": square}
        axes |= {"action_time_mlp_in": ("E' (2 E) -> (2 E) E'", "E -> E")}
    return [leaf for name, (kernel, bias) in axes.items() for leaf in _linear(name, name, kernel, bias)]
