"""Starting from base weights: which leaves are taken, which may be fresh, and what is said of all others."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from fnmatch import fnmatchcase

import fsspec
import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from training.experiment import Experiment, ExperimentInvalid, override
from training.init_report import report_lines, write_report
from training.initial_params import InitialParams
from training.pi05.checkpoint.pytorch import read_safetensors
from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.checkpoint.weights import as_saved, read_params
from training.pi05.model.lora import is_lora
from training.pi05.model.params import ParamsMismatch, config_of_params, flatten, param_shapes, unflatten

FROM_PALIGEMMA = ("PaliGemma/llm/*_1/*", "action_*", "time_mlp_*")
"""What a PaliGemma has not."""


@pytest.fixture(scope="module")
def starting(tiny_pi05):
    """An experiment of the tiny model that starts from `init`."""

    def make(init, *fresh, **changes):
        return Experiment(
            "tiny", dataclasses.replace(tiny_pi05.config, **changes), "none", init=str(init), init_fresh=fresh
        )

    return make


@pytest.fixture
def damaged(tmp_path, tiny_pi05):
    """Writes a step whose leaves are those of tiny_pi05 with changes; None takes a leaf away."""

    def write(**changes):
        flat = {**flatten(tiny_pi05.params), **changes}
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = as_saved(unflatten({path: leaf for path, leaf in flat.items() if leaf is not None}))
            checkpointer.save(tmp_path / "7" / "params", tree)
        return tmp_path / "7"

    return write


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory, tiny_pi05):
    """The image tower and the language model as big_vision writes them, the embedding in bfloat16."""
    path = tmp_path_factory.mktemp("paligemma") / "pt_224.npz"
    flat = flatten(tiny_pi05.params)
    own = {name: leaf for name, leaf in flat.items() if name.startswith(("PaliGemma/img/", "PaliGemma/llm/"))}
    own = {name: leaf for name, leaf in own.items() if not fnmatchcase(name, FROM_PALIGEMMA[0])}
    arrays = {name.replace("PaliGemma/", "params/", 1): leaf for name, leaf in own.items()}
    embedding = "params/llm/embedder/input_embedding"
    arrays[embedding] = arrays[embedding].astype(ml_dtypes.bfloat16)
    np.savez(path, **arrays)
    return path


def refusal(experiment, kind=ParamsMismatch):
    with pytest.raises(kind) as error:
        InitialParams.plan(experiment)
    return error.value.message


def made(experiment):
    return flatten(InitialParams.plan(experiment).make(jax.random.key(0)))


def assert_taken(params, expected):
    for path, leaf in expected.items():
        np.testing.assert_array_equal(params[path], leaf)
        assert isinstance(params[path], jax.Array)
        assert params[path].dtype == np.float32


@pytest.mark.parametrize("inside", ["", "params"])
def test_a_step_or_its_params_gives_every_leaf(starting, tiny_steps, inside):
    params = made(starting(tiny_steps["pi05"] / inside))
    assert_taken(params, read_params(tiny_steps["pi05"]))
    assert len(params) == 51


def test_a_url_is_downloaded_without_the_train_state(starting, tiny_steps, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHUNKWIRE_CACHE", str(tmp_path))
    files = fsspec.filesystem("memory")
    files.put(str(tiny_steps["pi05"]), "/base/100", recursive=True)
    files.pipe("/base/100/train_state/huge", b"not wanted")
    initial = InitialParams.plan(starting("memory://base/100"))
    files.rm("/base", recursive=True)
    assert_taken(flatten(initial.make(jax.random.key(0))), read_params(tiny_steps["pi05"]))
    assert not list(tmp_path.rglob("train_state"))
    assert capsys.readouterr().err.startswith("downloading memory://base/100: ")


def test_pytorch_weights_are_taken(openpi_data):
    folder = openpi_data.parent / "pytorch" / "lerobot_pi05"
    leaves = read_safetensors(folder, vision_heads=2)
    experiment = Experiment("tiny", config_of_params(leaves, 10, 7, "float32"), "none", init=str(folder))
    assert_taken(made(experiment), leaves)


def test_a_paligemma_gives_its_part_and_the_rest_is_fresh_when_that_is_asked_for(starting, paligemma, tiny_pi05):
    experiment = starting(paligemma, *FROM_PALIGEMMA)
    initial = InitialParams.plan(experiment)
    params = flatten(initial.make(jax.random.key(0)))
    expected = {path: leaf for path, leaf in flatten(tiny_pi05.params).items() if path in initial.taken}
    embedding = "PaliGemma/llm/embedder/input_embedding"
    expected[embedding] = expected[embedding].astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_taken(params, expected)
    assert (len(initial.taken), len(initial.fresh)) == (32, 19)
    assert params.keys() == param_shapes(experiment.model).keys()
    query = params["PaliGemma/llm/layers/attn/q_einsum_1/w"]
    assert np.std(query) == pytest.approx(query.shape[-2] ** -0.5, rel=0.1)


def test_a_paligemma_without_the_permission_says_which_flags_give_it(starting, paligemma):
    message = refusal(starting(paligemma))
    assert message.startswith(f"The parameters in {paligemma} are not those of this pi05 model. 19 missing: ")
    assert message.endswith(
        "A PaliGemma has no action expert: let it start fresh with --init-fresh 'PaliGemma/llm/*_1/*' "
        "--init-fresh 'action_*' --init-fresh 'time_mlp_*'."
    )


def test_lora_leaves_may_be_fresh_unasked(starting, tiny_steps, tiny_pi05):
    expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=2)
    experiment = starting(tiny_steps["pi05"], expert=expert)
    initial = InitialParams.plan(experiment)
    assert set(initial.fresh) == {path for path in param_shapes(experiment.model) if is_lora(path)}
    assert len(initial.fresh) == 10
    params, base = flatten(initial.make(jax.random.key(0))), read_params(tiny_steps["pi05"])
    frozen = initial.freezing.frozen  # the expert beside its factors: kept in bfloat16
    assert frozen
    for path in frozen:
        np.testing.assert_array_equal(params[path], base[path].astype(ml_dtypes.bfloat16))
    assert_taken(params, {path: leaf for path, leaf in base.items() if path not in frozen})
    assert params.keys() == param_shapes(experiment.model).keys()


@pytest.fixture
def of_rank(damaged, tiny_pi05):
    """Writes a base whose expert has LoRA leaves of a rank; gives it with the expert's configuration."""

    def write(rank):
        expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=rank)
        shapes = param_shapes(dataclasses.replace(tiny_pi05.config, expert=expert))
        return damaged(**{path: np.ones(leaf.shape, np.float32) for path, leaf in shapes.items() if is_lora(path)})

    return write


def test_lora_leaves_that_the_base_has_are_taken(starting, of_rank, tiny_pi05):
    expert = dataclasses.replace(tiny_pi05.config.expert, lora_rank=2)
    initial = InitialParams.plan(starting(of_rank(2), expert=expert))
    assert initial.fresh == ()
    assert sum(map(is_lora, initial.taken)) == 10


def test_lora_leaves_of_another_rank_are_not_dropped_unasked(starting, of_rank, tiny_pi05):
    expert, base = dataclasses.replace(tiny_pi05.config.expert, lora_rank=4), of_rank(2)
    message = refusal(starting(base, expert=expert))
    assert message.startswith(
        f"The parameters in {base} are not those of this pi05 model. 10 of the wrong shape: "
        "PaliGemma/llm/layers/attn/attn_vec_einsum_1/lora_a is (3, 4, 16, 2), expected (3, 4, 16, 4), "
    )
    assert message.endswith(" and 2 more. Leaves that may start fresh are named by --init-fresh PATTERN.")
    assert len(InitialParams.plan(starting(base, "*lora_?", expert=expert)).fresh) == 10


def test_leaves_of_another_width_start_fresh_where_a_pattern_permits(starting, tiny_steps):
    experiment = starting(tiny_steps["pi05"], "action_*", action_dim=8)
    initial = InitialParams.plan(experiment)
    assert initial.fresh == ("action_in_proj/kernel", "action_out_proj/bias", "action_out_proj/kernel")
    assert "action_in_proj/bias" in initial.taken  # a pattern permits; what fits is taken all the same


def test_leaves_of_another_width_are_refused_unasked(starting, tiny_steps):
    assert refusal(starting(tiny_steps["pi05"], action_dim=8)) == (
        f"The parameters in {tiny_steps['pi05']} are not those of this pi05 model. 3 of the wrong shape: "
        "action_in_proj/kernel is (32, 32), expected (8, 32), action_out_proj/bias is (32,), expected (8,), "
        "action_out_proj/kernel is (32, 32), expected (32, 8). "
        "Leaves that may start fresh are named by --init-fresh PATTERN."
    )


def test_a_missing_leaf_is_named(starting, damaged):
    step = damaged(**{"time_mlp_in/bias": None})
    assert refusal(starting(step)) == (
        f"The parameters in {step} are not those of this pi05 model. 1 missing: time_mlp_in/bias. "
        "Leaves that may start fresh are named by --init-fresh PATTERN."
    )


def test_a_leaf_too_many_is_named_and_no_pattern_permits_it(starting, damaged):
    step = damaged(**{"time_mlp_more/bias": np.zeros(1)})
    assert refusal(starting(step, "*")) == (
        f"The parameters in {step} are not those of this pi05 model. 1 unexpected: time_mlp_more/bias."
    )


def test_pi0_weights_in_a_pi05_model_are_told_as_such(starting, tiny_steps):
    assert refusal(starting(tiny_steps["pi0"])).startswith(
        f"The parameters in {tiny_steps['pi0']} are not those of this pi05 model. "
        "It holds pi0 weights (state_proj, action_time_mlp_in, action_time_mlp_out). "
    )


def test_lora_weights_in_a_plain_model_are_to_be_merged(starting, damaged):
    step = damaged(**{"PaliGemma/llm/layers/attn/q_einsum/lora_a": np.zeros(1)})
    assert "It holds LoRA leaves: merge them first with `train merge CHECKPOINT OUT`. " in refusal(starting(step))


def test_a_pattern_that_matches_nothing_is_a_slip(starting, tiny_steps):
    assert refusal(starting(tiny_steps["pi05"], "acton_*"), ExperimentInvalid) == (
        "--init-fresh 'acton_*' matches no leaf of the model, such as PaliGemma/img/Transformer/encoder_norm/bias. "
        "A star stands for any letters, slashes too."
    )


def test_a_pattern_without_a_base_is_refused(starting):
    with pytest.raises(ExperimentInvalid) as error:
        override(starting(""), ['init_fresh=["action_*"]'])
    assert "init_fresh (--init-fresh) says what init (--init) may lack, but there is no init." in error.value.message


def test_nan_is_found_before_training_and_its_leaf_named(starting, damaged):
    bias = np.zeros(32, np.float32)
    bias[3] = np.nan
    step = damaged(**{"time_mlp_in/bias": bias, "action_in_proj/bias": np.full(32, np.inf, np.float32)})
    initial = InitialParams.plan(starting(step))
    with pytest.raises(CheckpointInvalid) as error:
        initial.make(jax.random.key(0))
    assert error.value.message == (
        f"The weights of {step} hold NaN or infinity in action_in_proj/bias, time_mlp_in/bias. "
        "Start from another checkpoint."
    )


FORMS = (
    "--init takes a step directory, its params/, a model.safetensors or the folder that holds one, "
    "a PaliGemma .npz, or the URL of any of these."
)


def test_a_path_without_anything_is_refused(starting, tmp_path):
    assert refusal(starting(tmp_path / "no"), CheckpointInvalid) == f"There are no weights at {tmp_path}/no. {FORMS}"


def test_an_empty_folder_is_refused(starting, tmp_path):
    assert refusal(starting(tmp_path), CheckpointInvalid) == f"{tmp_path} holds no weights. {FORMS}"


def test_a_run_offers_its_steps(starting, tmp_path, tiny_steps):
    shutil.copytree(tiny_steps["pi05"], tmp_path / "run" / "100")
    assert refusal(starting(tmp_path / "run"), CheckpointInvalid) == (
        f"{tmp_path}/run is a run, not a step. Pass one of its steps: {tmp_path}/run/100."
    )


def test_a_file_that_is_no_archive_is_refused(starting, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    assert refusal(starting(tmp_path / "a.npz"), CheckpointInvalid) == (
        f"{tmp_path}/a.npz cannot be read as an .npz file (File is not a zip file). Download it again."
    )


ARRAY = "params/llm/embedder/input_embedding"


def test_an_archive_of_python_objects_is_refused(starting, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{ARRAY: np.array([None])})
    assert refusal(starting(path), CheckpointInvalid) == (
        f"{path} cannot be read as an .npz file ({ARRAY}.npy holds Python objects instead of numbers). "
        "Download it again."
    )


def test_an_array_of_a_later_format_is_refused(starting, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{ARRAY}.npy", b"\x93NUMPY\x09\x00 and what nobody knows")
    assert refusal(starting(path), CheckpointInvalid) == (
        f"{path} cannot be read as an .npz file ({ARRAY}.npy is of numpy's format 9.0, which is not known). "
        "Download it again."
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_that_is_damaged_behind_its_headers_is_refused_when_it_is_read(starting, paligemma, tmp_path, save):
    path = tmp_path / "a.npz"
    with np.load(paligemma) as arrays:
        save(path, **dict(arrays))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2  # in the largest array
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    initial = InitialParams.plan(starting(path, *FROM_PALIGEMMA))
    with pytest.raises(CheckpointInvalid) as error:
        initial.make(jax.random.key(0))
    assert error.value.message.startswith(f"{path} cannot be read as an .npz file (")


def test_an_archive_of_something_else_is_refused(starting, tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros(1))
    assert refusal(starting(tmp_path / "a.npz"), CheckpointInvalid) == (
        f"{tmp_path}/a.npz is no PaliGemma of big_vision, whose arrays are named params/llm/… and params/img/…: "
        "it holds weights."
    )


def test_the_report_gives_totals_for_each_part_and_every_fresh_leaf(starting, tiny_steps, tmp_path):
    initial = InitialParams.plan(starting(tiny_steps["pi05"], "action_*", action_dim=8))
    source = tiny_steps["pi05"]
    assert report_lines(initial) == [
        f"init: image tower: 23 leaves (46,304 parameters) from {source}, 0 leaves (0 parameters) fresh",
        f"init: language model: 9 leaves (137,664 parameters) from {source}, 0 leaves (0 parameters) fresh",
        f"init: action expert: 11 leaves (55,968 parameters) from {source}, 0 leaves (0 parameters) fresh",
        f"init: projections: 5 leaves (2,144 parameters) from {source}, 3 leaves (520 parameters) fresh",
        "init: fresh action_in_proj/kernel (8, 32)",
        "init: fresh action_out_proj/bias (8,)",
        "init: fresh action_out_proj/kernel (32, 8)",
    ]
    write_report(initial, tmp_path)
    record = json.loads((tmp_path / "init.json").read_text())
    assert (record["source"], record["path"], record["kind"]) == (str(source), f"{source}/params", "checkpoint")
    assert record["groups"]["projections"] == {
        "taken": {"leaves": 5, "parameters": 2144},
        "fresh": {"leaves": 3, "parameters": 520},
    }
    assert record["leaves"]["action_out_proj/bias"] == {"from": "fresh", "shape": [8]}
    assert record["leaves"]["time_mlp_in/bias"] == {"from": str(source), "shape": [32]}
    assert record["leaves"].keys() == param_shapes(initial.model).keys()


def test_a_run_from_scratch_reports_nothing(starting, tmp_path):
    initial = InitialParams.plan(starting(""))
    assert report_lines(initial) == []
    write_report(initial, tmp_path)
    assert list(tmp_path.iterdir()) == []
