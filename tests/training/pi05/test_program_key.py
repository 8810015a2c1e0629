"""The name of a kept program: all that could make another program of it is in it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import training.pi05
from training.pi05.denoiser import Denoiser
from training.pi05.model.params import flatten
from training.pi05.placement import whole_on
from training.pi05.program_key import code_fingerprint, executable_key, is_code_as_imported, program_facts, program_key

PACKAGE = Path(training.pi05.__file__).parent
ARGUMENTS = ({"kernel": jnp.ones((2, 3))}, np.zeros((1, 4), np.float32))


def facts_of(arguments=ARGUMENTS, **function):
    return program_facts(function, arguments)


def key_of(arguments=ARGUMENTS, **function):
    return program_key(facts_of(arguments, **function))


@pytest.mark.parametrize("fact", sorted(facts_of()))
def test_an_executable_keeps_its_name_when_only_the_code_is_another(fact):
    """What was traced from that code tells jax whether it is another executable."""
    same = executable_key({**facts_of(), fact: "another"}) == executable_key(facts_of())
    assert same == (fact in ("code", "versions"))


def test_the_same_program_has_the_same_name_at_every_start():
    other_values = ({"kernel": jnp.zeros((2, 3))}, np.ones((1, 4), np.float32))
    assert key_of(steps=10) == key_of(other_values, steps=10)
    assert len(key_of()) == 32


@pytest.mark.parametrize("fact", sorted(facts_of()))
def test_every_fact_is_in_the_name(fact):
    assert program_key({**facts_of(), fact: "another"}) != key_of()


@pytest.mark.parametrize(
    "arguments",
    [
        ({"kernel": jnp.ones((2, 4))}, ARGUMENTS[1]),
        ({"kernel": jnp.ones((2, 3), jnp.bfloat16)}, ARGUMENTS[1]),
        ({"weight": jnp.ones((2, 3))}, ARGUMENTS[1]),
        (ARGUMENTS[0], np.zeros((2, 4), np.float32)),
        (ARGUMENTS[0],),
    ],
    ids=["shape", "type", "name", "batch", "number"],
)
def test_other_arguments_are_another_program(arguments):
    assert key_of(arguments) != key_of()


def test_weights_that_are_cut_are_another_program():
    mesh = Mesh(np.array(jax.devices()[:1]), ("model",))
    shardings = [SingleDeviceSharding(jax.devices()[0])]
    shardings += [NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("model"))]
    keys = {key_of((jax.device_put(np.ones(4), sharding),)) for sharding in shardings}
    assert len(keys) == 3


def test_the_versions_of_whatever_traces_are_in_the_name():
    assert facts_of()["versions"] == {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}


def test_the_device_and_what_the_processor_can_do_are_in_the_name():
    facts, device = facts_of(), jax.devices()[0]
    assert facts["device"] == [device.platform, device.device_kind, device.client.platform_version]
    flags = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))]
    assert flags[0] in facts["processor"]
    assert not any("MHz" in line for line in facts["processor"])


@pytest.mark.parametrize(
    ("name", "value"), [("jax_default_matmul_precision", "highest"), ("jax_numpy_dtype_promotion", "strict")]
)
def test_settings_that_change_what_is_traced_are_in_the_name(name, value):
    before, key = jax.config.values[name], key_of()
    jax.config.update(name, value)
    try:
        assert key_of() != key
    finally:
        jax.config.update(name, before)


def test_where_programs_are_kept_is_not_in_the_name():
    assert not {"jax_compilation_cache_dir", "jax_raise_persistent_cache_errors"} & set(facts_of()["settings"])


def test_every_file_of_the_code_is_in_the_name(tmp_path):
    assert facts_of()["code"] == code_fingerprint(PACKAGE)
    fingerprints = set()
    for changed in ("model/pi.py", "model/flow.py", "denoiser.py"):
        copy = shutil.copytree(PACKAGE, tmp_path / changed.replace("/", "_"))
        assert code_fingerprint(copy) == code_fingerprint(PACKAGE)
        with (copy / changed).open("a") as file:
            file.write("\n")
        fingerprints.add(code_fingerprint(copy))
    assert len({code_fingerprint(PACKAGE), *fingerprints}) == 4


_UPDATED = """
import sys
from pathlib import Path
from importlib import metadata
import flax
from training.pi05 import program_key

before = program_key.program_facts({}, ())
with Path(program_key.__file__).with_name("denoiser.py").open("a") as file:
    file.write("# an update")
metadata.version = lambda package: "an update"
assert program_key.program_facts({}, ()) == before
assert not program_key.is_code_as_imported()
Path(program_key.__file__).with_name("denoiser.py").unlink()
assert not program_key.is_code_as_imported()
"""


def test_an_update_below_a_running_process_changes_no_name_and_is_noticed(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "training/pi05")
    (tmp_path / "training/__init__.py").touch()
    command = [sys.executable, "-c", _UPDATED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert is_code_as_imported()


def test_no_other_package_of_ours_is_in_what_is_traced():
    """The code's fingerprint covers one folder: the model computes with nothing beside it."""
    allowed = ("from training.pi05.", "from policy_protocol.errors import", "from policy_protocol.spec import Family\n")
    for path in (PACKAGE / "model").glob("*.py"):
        for line in path.read_text().splitlines(keepends=True):
            if line.startswith(("from training", "import training", "from policy_", "import policy_")):
                assert line.startswith(allowed), path


def test_another_model_schedule_kernel_type_or_shape_is_another_program(tiny_pi05):
    flat, config = flatten(tiny_pi05.params), tiny_pi05.config

    def name(model=config, steps=2, attention="plain", prompt=None, cameras=("base_0_rgb",)):
        cast = {path: leaf.astype(model.dtype) for path, leaf in flat.items()}
        denoiser = Denoiser(model, cast, steps, attention, whole_on(jax.devices()[0]), "experiment/run/1")
        return program_key(denoiser.facts(tiny_pi05.inputs_of(*cameras, prompt=prompt)))

    names = {
        name(),
        name(steps=3),
        name(attention="xla"),
        name(dataclasses.replace(config, dtype="bfloat16")),
        name(dataclasses.replace(config, action_horizon=10)),
        name(prompt=32),
        name(cameras=("left_wrist_0_rgb",)),
    }
    assert len(names) == 7
