"""`serve describe`: everything about a checkpoint that its metadata tells."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from policy_protocol import PolicySpec
from policy_server.description.checkpoint import describe
from training.pi05.checkpoint.weights import read_params

from .conftest import CHECKPOINT, LIBERO, OPENPI, SERVE, TOKENIZER


def run_describe(environment, *arguments):
    command = [SERVE, "describe", *map(str, arguments)]
    wide = {**environment, "COLUMNS": "200"}
    return subprocess.run(command, env=wide, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def described(environment, spec_file):
    """The tables of the tiny checkpoint."""
    done = run_describe(environment, CHECKPOINT, "--spec", spec_file, "--tokenizer", TOKENIZER)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "pi05_libero/tiny/100",
        "244,160 parameters, float32 100%, no LoRA; orbax,",
        "20 steps, asked again after 10",
        "observation/wrist_image",
        "left_wrist_0_rgb",
        "224x224",
        "state, 8 numbers under observation/state",
        "at most 64, padded to: 48, 64",
        "pick up the red cube",
        "action, 7 numbers",
        "gripper",
    ],
)
def test_the_tables_show(described, text):
    assert text in described


def test_json_holds_the_whole_spec_and_the_weights(environment, spec_file):
    done = run_describe(environment, CHECKPOINT, "--spec", spec_file, "--tokenizer", TOKENIZER, "--json")
    facts = json.loads(done.stdout)
    assert PolicySpec.from_wire(facts["spec"]) == LIBERO
    assert facts["weights"]["parameters"] == 244_160
    assert facts["weights"]["dtypes"] == {"float32": 244_160}
    assert facts["problems"] == []


def test_a_stock_checkpoint_is_described_by_the_name_of_its_policy_without_a_tokenizer():
    description = describe(CHECKPOINT, "pi05_libero")
    assert str(description.spec.policy.checkpoint) == "pi05_libero/openpi/0"
    assert description.prompt_buckets == (32, 64, 128, 200)


def test_prompts_are_not_counted_without_a_tokenizer(spec_file):
    assert describe(CHECKPOINT, str(spec_file)).prompt_buckets is None


def test_weights_that_are_not_the_specs_end_with_1_and_the_reason(environment, spec_file):
    other = OPENPI / "checkpoints/tiny_pi0/200"
    done = run_describe(environment, other, "--spec", spec_file)
    assert done.returncode == 1
    assert "serve would refuse it: It holds pi0 weights but its spec says pi05." in done.stdout


def test_norm_stats_that_are_not_those_of_the_training_are_pointed_out(environment, tmp_path):
    policy = dataclasses.replace(LIBERO.policy, norm_stats_hash="0123456789abcdef")
    path = tmp_path / "spec.json"
    path.write_text(dataclasses.replace(LIBERO, policy=policy).to_json())
    done = run_describe(environment, CHECKPOINT, "--spec", path)
    assert ", not the 0123456789abcdef that it was trained with" in done.stdout


def test_lora_factors_are_told(spec_file, monkeypatch):
    import training.pi05.checkpoint.weights as weights
    from policy_server.description import stored_weights

    shapes = weights.stored_shapes(CHECKPOINT / "params")
    factor = "PaliGemma/llm/layers/attn/attn_vec_einsum/lora_a"
    more = {**shapes, factor: np.zeros((2, 2, 4, 1), np.float32)}
    monkeypatch.setattr(stored_weights, "stored_shapes", lambda directory: more)
    assert describe(CHECKPOINT, str(spec_file)).weights.lora


def test_pytorch_weights_are_described_from_their_header(spec_file, tmp_path):
    step = tmp_path / "200"
    shutil.copytree(CHECKPOINT / "assets", step / "assets")
    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(8, np.float32)}, step / "model.safetensors")
    weights = describe(step, str(spec_file)).weights
    assert (weights.format, weights.parameters, weights.dtypes) == ("safetensors", 20, {"float16": 12, "float32": 8})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "serve: There is no checkpoint at nowhere"),
        ([CHECKPOINT.parent], f"is a run, not a step. Pass one of its steps: {CHECKPOINT}"),
        ([CHECKPOINT], "has no assets/policy_spec.json"),
        ([CHECKPOINT, "--spec", "pi05_libro"], "Did you mean 'pi05_libero'?"),
    ],
)
def test_what_is_no_checkpoint_is_said_so(environment, arguments, message):
    done = run_describe(environment, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_the_weights_that_describe_counts_are_those_that_serve_reads(spec_file):
    numbers = sum(leaf.size for leaf in read_params(CHECKPOINT).values())
    assert describe(CHECKPOINT, str(spec_file)).weights.parameters == numbers
