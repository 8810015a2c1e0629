"""PyTorch weights give LeRobot's numbers, and whatever is none of a Pi0 model gives an error that names the tensors."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from training.pi05.checkpoint.base_weights import open_base_weights
from training.pi05.checkpoint.pytorch import is_safetensors, read_safetensors
from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.model.config import preset
from training.pi05.model.flow import denoise
from training.pi05.model.params import check_params, config_of_params, flatten, param_shapes, unflatten
from training.pi05.model.pi import ModelInput, PiModel

_LEROBOT = Path(__file__).parents[3] / "data" / "pytorch"
_SLOTS = ("base_0_rgb", "left_wrist_0_rgb")
EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
TEXT_HEAD = "model.paligemma_with_expert.paligemma.lm_head.weight"
Q_PROJ = "model.paligemma_with_expert.paligemma.model.language_model.layers.1.self_attn.q_proj.weight"


class LeRobot:
    """A tiny policy of LeRobot's: its weights read by us, its inputs and what it computed."""

    def __init__(self, family):
        self.file = _LEROBOT / f"lerobot_{family}" / "model.safetensors"
        self.flat = read_safetensors(self.file)
        self.config = config_of_params(self.flat, 6, 7, "float32")
        self.model, self.variables = PiModel(self.config), {"params": unflatten(self.flat)}
        with np.load(self.file.with_name("recorded.npz")) as recorded:
            self.recorded = at = dict(recorded)
        self.inputs = ModelInput(
            images={slot: at[f"image/{slot}"] for slot in _SLOTS},
            image_masks={slot: np.ones(2, bool) for slot in _SLOTS},
            tokens=at["tokens"].astype(np.int32),
            token_mask=at["token_mask"],
            state=at["state"],
        )


@pytest.fixture(scope="module", params=["pi05", "pi0"])
def lerobot(request):
    return LeRobot(request.param)


@pytest.fixture(scope="module")
def tensors():
    """The tensors of LeRobot's tiny Pi0.5, under the names of its file."""
    return load_file(_LEROBOT / "lerobot_pi05" / "model.safetensors")


def save(directory, tensors, name="model.safetensors"):
    save_file({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, directory / name)
    return directory / name


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def message_of(path):
    with pytest.raises(CheckpointInvalid) as error:
        read_safetensors(path)
    return error.value.message


NOT_OURS = "The tensors in {} are not those of a Pi0 or Pi0.5 model as LeRobot or openpi saves it. "


def test_lerobots_weights_give_its_velocity(lerobot):
    at = lerobot.recorded
    t = at["time"][:, None, None]
    x_t = t * at["noise"] + (1 - t) * at["actions"]
    velocity = jax.jit(lerobot.model.apply)(lerobot.variables, lerobot.inputs, x_t, at["time"])
    np.testing.assert_allclose(velocity, at["velocity"], atol=1e-4)


def test_lerobots_weights_give_its_image_and_prompt_embeddings(lerobot):
    tokens, _ = lerobot.model.apply(lerobot.variables, lerobot.inputs, method=lerobot.model.embed_prefix)
    images = 2 * lerobot.config.vision.tokens
    recorded = lerobot.recorded["prefix"]  # with the absent camera's tokens, which we leave out
    np.testing.assert_allclose(tokens[:, :images], recorded[:, :images], atol=1e-5)
    np.testing.assert_allclose(tokens[:, images:], recorded[:, -7:], atol=1e-5)


def test_lerobots_weights_give_its_action_chunk(lerobot):
    params, noise = lerobot.variables["params"], lerobot.recorded["noise"]
    chunk = jax.jit(lambda params: denoise(lerobot.model, params, lerobot.inputs, noise, 10))(params)
    # Ten steps carry the rounding on: LeRobot computes the time embedding in float64.
    np.testing.assert_allclose(chunk, lerobot.recorded["action_chunk"], atol=2e-4)


def test_lerobots_tree_is_the_models(lerobot):
    check_params(lerobot.flat, lerobot.config, "LeRobot's")
    assert lerobot.config.family in lerobot.file.parent.name


VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model"
LANGUAGE = "paligemma_with_expert.paligemma.model.language_model"
EXPERT = "paligemma_with_expert.gemma_expert.model"


def openpis_vision(flat):
    """The inverse of our reading, written from openpi's conversion and not from our table."""
    img = {path.removeprefix("PaliGemma/img/"): leaf for path, leaf in flat.items() if "/img/" in path}
    width = img["embedding/bias"].shape[0]
    yield f"{VISION}.embeddings.patch_embedding.weight", img["embedding/kernel"].transpose(3, 2, 0, 1)
    yield f"{VISION}.embeddings.patch_embedding.bias", img["embedding/bias"]
    yield f"{VISION}.embeddings.position_embedding.weight", img["pos_embedding"].reshape(-1, width)
    yield f"{VISION}.post_layernorm.weight", img["Transformer/encoder_norm/scale"]
    yield f"{VISION}.post_layernorm.bias", img["Transformer/encoder_norm/bias"]
    yield "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight", img["head/kernel"].T
    yield "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.bias", img["head/bias"]
    block = {path.removeprefix("Transformer/encoderblock/"): leaf for path, leaf in img.items() if "block/" in path}
    attention = "MultiHeadDotProductAttention_0"
    for i in range(len(block["LayerNorm_0/scale"])):
        layer = f"{VISION}.encoder.layers.{i}"
        for ours, theirs in (("LayerNorm_0", "layer_norm1"), ("LayerNorm_1", "layer_norm2")):
            yield f"{layer}.{theirs}.weight", block[f"{ours}/scale"][i]
            yield f"{layer}.{theirs}.bias", block[f"{ours}/bias"][i]
        for ours, theirs in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            yield f"{layer}.mlp.{theirs}.weight", block[f"MlpBlock_0/{ours}/kernel"][i].T
            yield f"{layer}.mlp.{theirs}.bias", block[f"MlpBlock_0/{ours}/bias"][i]
        for ours in ("query", "key", "value"):
            theirs = f"{layer}.self_attn.{ours[0]}_proj"
            yield f"{theirs}.weight", block[f"{attention}/{ours}/kernel"][i].reshape(width, width).T
            yield f"{theirs}.bias", block[f"{attention}/{ours}/bias"][i].reshape(width)
        yield f"{layer}.self_attn.out_proj.weight", block[f"{attention}/out/kernel"][i].reshape(width, width).T
        yield f"{layer}.self_attn.out_proj.bias", block[f"{attention}/out/bias"][i]


def openpis_gemma(flat, module, suffix):
    llm = {path.removeprefix("PaliGemma/llm/"): leaf for path, leaf in flat.items() if "/llm/" in path}
    q, kv = llm[f"layers/attn/q_einsum{suffix}/w"], llm[f"layers/attn/kv_einsum{suffix}/w"]
    out, gating = llm[f"layers/attn/attn_vec_einsum{suffix}/w"], llm[f"layers/mlp{suffix}/gating_einsum"]
    depth, heads, width, head_dim = q.shape
    norms = {"pre_attention_norm": "input_layernorm", "pre_ffw_norm": "post_attention_layernorm"}
    for i in range(depth):
        attention, mlp = f"{module}.layers.{i}.self_attn", f"{module}.layers.{i}.mlp"
        yield f"{attention}.q_proj.weight", q[i].transpose(0, 2, 1).reshape(heads * head_dim, width)
        yield f"{attention}.k_proj.weight", kv[i, 0, 0].T
        yield f"{attention}.v_proj.weight", kv[i, 1, 0].T
        yield f"{attention}.o_proj.weight", out[i].reshape(heads * head_dim, width).T
        yield f"{mlp}.gate_proj.weight", gating[i, 0].T
        yield f"{mlp}.up_proj.weight", gating[i, 1].T
        yield f"{mlp}.down_proj.weight", llm[f"layers/mlp{suffix}/linear"][i].T
        for ours, theirs in norms.items():
            of_layer = {p: leaf[i] for p, leaf in llm.items() if p.startswith(f"layers/{ours}{suffix}/")}
            yield from openpis_norm(of_layer, f"{module}.layers.{i}.{theirs}")
    yield from openpis_norm({p: x for p, x in llm.items() if p.startswith(f"final_norm{suffix}/")}, f"{module}.norm")


def openpis_norm(leaves, module):
    for path, leaf in leaves.items():
        name = {"scale": "weight", "kernel": "dense.weight", "bias": "dense.bias"}[path.rsplit("/", 1)[1]]
        yield f"{module}.{name}", leaf.T


def openpis(flat):
    """The tensors that openpi's conversion saves: tied embeddings stay under the output layer's name."""
    tensors = dict(openpis_vision(flat))
    tensors |= dict(openpis_gemma(flat, LANGUAGE, "")) | dict(openpis_gemma(flat, EXPERT, "_1"))
    tensors["paligemma_with_expert.paligemma.lm_head.weight"] = flat["PaliGemma/llm/embedder/input_embedding"]
    expert = flat["action_in_proj/bias"].shape[0]
    vocabulary = tensors["paligemma_with_expert.paligemma.lm_head.weight"].shape[0]
    unused = np.broadcast_to(np.float32(0), (vocabulary, expert))
    tensors["paligemma_with_expert.gemma_expert.lm_head.weight"] = unused
    for path, leaf in flat.items():
        if not path.startswith("PaliGemma/"):
            module, kind = path.split("/")
            tensors[f"{module}.{'weight' if kind == 'kernel' else 'bias'}"] = leaf.T
    return tensors


def test_openpis_names_give_every_leaf_back(tiny, tmp_path):
    flat = {path: np.asarray(leaf) for path, leaf in flatten(tiny.params).items()}
    save(tmp_path, openpis(flat))
    assert_same(read_safetensors(tmp_path, vision_heads=2), flat)


def sparse_file(path, shapes):
    """A file of zeros that takes no room: only its header is written."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(8 + len(encoded) + end)


@pytest.mark.parametrize(("name", "count"), [("pi05", 812), ("pi0", 777)])
def test_the_full_models_tensors_are_all_known(name, count, tmp_path):
    shapes = param_shapes(preset(name))
    zeros = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in shapes.items()}
    full = {tensor: zero.shape for tensor, zero in openpis(zeros).items()}
    assert len(full) == count  # 777 is also what LeRobot logs when it loads the released Pi0
    sparse_file(tmp_path / "model.safetensors", full | {"surprise": (1,)})
    # The names and shapes of all the others pass.
    assert message_of(tmp_path) == NOT_OURS.format(tmp_path) + "1 unexpected: surprise."


@pytest.mark.parametrize("name", ["pi05", "pi0"])
def test_the_full_models_shapes_are_told_without_reading_it(name, tmp_path):
    shapes = param_shapes(preset(name))
    zeros = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in shapes.items()}
    sparse_file(tmp_path / "model.safetensors", {tensor: zero.shape for tensor, zero in openpis(zeros).items()})
    tracemalloc.start()
    base = open_base_weights(str(tmp_path), vision_heads=16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {path: leaf.shape for path, leaf in base.shapes.items()} == {p: leaf.shape for p, leaf in shapes.items()}
    assert {leaf.dtype for leaf in base.shapes.values()} == {np.dtype(np.float32)}
    assert peak < 2**24


def test_base_weights_can_be_read_more_than_once(lerobot):
    base = open_base_weights(str(lerobot.file), vision_heads=16)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    chosen = {path for path in lerobot.flat if path.startswith("action_")}
    for _ in range(2):
        found = base.read(chosen, np.float32, lambda path, shape: device)
        assert_same(found, {path: lerobot.flat[path] for path in chosen})


def test_a_wrong_shape_in_the_full_model_is_the_only_complaint(tmp_path):
    shapes = param_shapes(preset("pi05"))
    zeros = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in shapes.items()}
    full = {tensor: zero.shape for tensor, zero in openpis(zeros).items()}
    full[f"{EXPERT}.layers.7.self_attn.o_proj.weight"] = (2048, 1024)
    sparse_file(tmp_path / "model.safetensors", full)
    assert message_of(tmp_path) == NOT_OURS.format(tmp_path) + (
        f"1 of the wrong shape: {EXPERT}.layers.7.self_attn.o_proj.weight is (2048, 1024), expected (1024, 2048)."
    )


def test_of_tied_embeddings_the_output_layers_name_is_enough(tensors, tmp_path):
    tied = {name: tensor for name, tensor in tensors.items() if name != EMBEDDING}
    flat = read_safetensors(save(tmp_path, tied))
    np.testing.assert_array_equal(flat["PaliGemma/llm/embedder/input_embedding"], tensors[TEXT_HEAD])


def test_of_two_embeddings_the_inputs_is_the_models(tensors):
    flat = read_safetensors(_LEROBOT / "lerobot_pi05")
    np.testing.assert_array_equal(flat["PaliGemma/llm/embedder/input_embedding"], tensors[EMBEDDING])
    assert not np.array_equal(tensors[EMBEDDING], tensors[TEXT_HEAD])


@pytest.mark.parametrize(
    ("before", "after"), [("model.", ""), ("model.", "model._orig_mod."), ("model.time_mlp_", "model.action_time_mlp_")]
)
def test_the_names_that_lerobot_also_loads_are_read(before, after, tensors, tmp_path):
    renamed = {name.replace(before, after, 1): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    assert_same(read_safetensors(save(tmp_path, renamed)), read_safetensors(_LEROBOT / "lerobot_pi05"))


def test_shards_are_read_as_one(tensors, tmp_path):
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, half in halves.items():
        save(tmp_path, {name: tensors[name] for name in half}, file)
    weight_map = {name: file for file, half in halves.items() for name in half}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert is_safetensors(tmp_path)
    assert_same(read_safetensors(tmp_path), read_safetensors(_LEROBOT / "lerobot_pi05"))
    (tmp_path / "model-2.safetensors").unlink()
    assert message_of(tmp_path) == (
        f"{tmp_path / 'model.safetensors.index.json'} lists shards that are not there: model-2.safetensors. "
        "Copy them beside it."
    )


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_is_kept_or_cast(dtype, tensors, tmp_path):
    path = save(tmp_path, {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    kept, cast = read_safetensors(path), read_safetensors(path, np.float32)
    assert {leaf.dtype for leaf in kept.values()} == {np.dtype(dtype)}
    assert {leaf.dtype for leaf in cast.values()} == {np.dtype(np.float32)}
    assert_same({name: leaf.astype(np.float32) for name, leaf in kept.items()}, cast)


def test_full_precision_is_cast_on_load():
    flat = read_safetensors(_LEROBOT / "lerobot_pi0")
    cast = read_safetensors(_LEROBOT / "lerobot_pi0", ml_dtypes.bfloat16)
    assert_same(cast, {path: leaf.astype(ml_dtypes.bfloat16) for path, leaf in flat.items()})


def test_a_leaf_of_mixed_precision_takes_the_wider(tensors, tmp_path):
    mixed = {**tensors, Q_PROJ: tensors[Q_PROJ].astype(ml_dtypes.bfloat16)}
    assert read_safetensors(save(tmp_path, mixed))["PaliGemma/llm/layers/attn/q_einsum/w"].dtype == np.float32


def test_a_missing_tensor_is_named(tensors, tmp_path):
    path = save(tmp_path, {name: tensor for name, tensor in tensors.items() if name != Q_PROJ})
    assert message_of(path) == NOT_OURS.format(path) + f"1 missing: {Q_PROJ.removeprefix('model.')}."


def test_an_unexpected_tensor_is_named(tensors, tmp_path):
    path = save(tmp_path, {**tensors, "model.value_head.weight": np.zeros(1, np.float32)})
    assert message_of(path) == NOT_OURS.format(path) + "1 unexpected: model.value_head.weight."


@pytest.mark.parametrize(
    ("shape", "expected"), [((48, 25), "(48, 25), expected (48, 24)"), ((48, 24, 1), "(48, 24, 1), expected 2 axes")]
)
def test_a_misshapen_tensor_is_named(shape, expected, tensors, tmp_path):
    path = save(tmp_path, {**tensors, Q_PROJ: np.zeros(shape, np.float32)})
    assert message_of(path) == NOT_OURS.format(path) + (
        f"1 of the wrong shape: {Q_PROJ.removeprefix('model.')} is {expected}."
    )


def test_lora_adapters_are_named_with_what_to_do(tensors, tmp_path):
    adapter = Q_PROJ.replace("weight", "lora_A.weight")
    path = save(tmp_path, {**tensors, adapter: np.zeros((2, 24), np.float32)})
    assert message_of(path) == NOT_OURS.format(path) + (
        f"1 unexpected: {adapter}. Merge LoRA adapters into the weights first (peft's merge_and_unload)."
    )


def test_pi0s_state_in_a_pi05_model_is_not_dropped(tensors, tmp_path):
    path = save(tmp_path, {**tensors, "model.state_proj.bias": np.zeros(20, np.float32)})
    assert message_of(path) == NOT_OURS.format(path) + "1 unexpected: model.state_proj.bias."


def test_quantised_weights_are_refused(tensors, tmp_path):
    path = save(tmp_path, {**tensors, Q_PROJ: np.zeros((48, 24), np.int8)})
    assert message_of(path) == NOT_OURS.format(path) + (
        f"1 of a type that is no float: {Q_PROJ.removeprefix('model.')} is I8."
    )


def test_one_tensor_under_two_names_is_refused(tensors, tmp_path):
    path = save(tmp_path, {**tensors, Q_PROJ.removeprefix("model."): tensors[Q_PROJ]})
    assert message_of(path) == NOT_OURS.format(path) + "1 of its names differ only in a wrapper's prefix."


def test_another_models_weights_list_some_names_and_count_the_rest(tmp_path):
    path = save(tmp_path, {"layer1.conv.weight": np.zeros((3, 3), np.float32)})
    message = message_of(path)
    assert message.startswith(NOT_OURS.format(path) + "54 missing: action_in_proj.bias, action_in_proj.weight, ")
    assert message.endswith(" and 46 more. 1 unexpected: layer1.conv.weight.")


def test_a_truncated_file_is_told(tensors, tmp_path):
    path = save(tmp_path, tensors)
    path.write_bytes(path.read_bytes()[:-5])
    message = message_of(path)
    assert message.startswith(f"The weights in {path} cannot be read; the file is damaged or incomplete (")
    assert message.endswith("). Copy it again.")


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_is_told(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    message = message_of(tmp_path)
    assert message.startswith(f"{tmp_path / 'model.safetensors.index.json'} is no index of weights (")
    assert message.endswith("). Copy the checkpoint again.")


def test_a_directory_without_weights_tells_which_directory_is_meant(tmp_path):
    assert message_of(tmp_path) == (
        f"{tmp_path} holds no model.safetensors. Pass the file, or the directory that LeRobot or openpi saved it in "
        "(LeRobot's training calls it pretrained_model)."
    )


def test_what_counts_as_pytorch_weights(tiny_steps, tmp_path):
    assert is_safetensors(_LEROBOT / "lerobot_pi0")
    assert is_safetensors(_LEROBOT / "lerobot_pi0" / "model.safetensors")
    assert not is_safetensors(_LEROBOT / "lerobot_pi0" / "recorded.npz")
    assert not is_safetensors(tiny_steps["pi05"])
    assert not is_safetensors(tmp_path / "nothing.safetensors")
