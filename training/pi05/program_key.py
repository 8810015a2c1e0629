"""What a traced program depends on, as one name: another version, machine, model or shape never meets it."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding

__all__ = ["code_fingerprint", "executable_key", "is_code_as_imported", "program_facts", "program_key"]

_CODE = Path(__file__).parent
_MADE_BY = ("jax", "jaxlib", "flax", "numpy")
_CPU_LINES = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features")
_WITHOUT_EFFECT = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_",
    "jax_raise_persistent_cache_errors",
    "jax_explain_cache_misses",
    "jax_log_compiles",
    "jax_logging_level",
)
"""Settings of jax, by their first letters, that only say where and how programs are kept, and what is logged."""


def program_key(facts: Mapping[str, Any]) -> str:
    """The name of a program, 32 letters: another one as soon as any of its facts is another."""
    text = json.dumps(facts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def executable_key(facts: Mapping[str, Any]) -> str:
    """The same for its executable, whatever code it was traced from.

    jax tells executables apart by what was traced: an update that changes none of it compiles nothing anew.
    """
    return program_key({name: fact for name, fact in facts.items() if name not in ("code", "versions")})


def program_facts(function: Mapping[str, Any], arguments: Any) -> dict[str, Any]:
    """All that a program depends on.

    Args:
        function: what the function has beside its arguments, such as the model's sizes.
        arguments: what it is called with; shapes, types and placement count, values do not.
    """
    leaves, structure = jax.tree.flatten(arguments)
    device = _device_of(leaves)
    return {
        "function": dict(function),
        "arguments": str(structure),
        "leaves": [[list(leaf.shape), str(leaf.dtype), _placement(leaf)] for leaf in leaves],
        "code": _IMPORTED,
        "versions": _versions(),
        "device": [device.platform, device.device_kind, device.client.platform_version],
        "processor": _processor(),
        "settings": _settings(),
    }


def code_fingerprint(folder: Path) -> str:
    """Of every Python file of a package: what a program is made of is not worth guessing."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


_IMPORTED = code_fingerprint(_CODE)
"""Of what this process runs. An update may change the disk below a process: that is the code of the next one."""


def is_code_as_imported() -> bool:
    """Whether the code on the disk still is what this process runs; otherwise no program has a name to trust.

    Modules that are imported late, after an update, are other code than the name says.
    """
    try:
        return code_fingerprint(_CODE) == _IMPORTED
    except OSError:  # a file goes while an update is under way
        return False


def _versions() -> dict[str, str]:
    """As they were imported, whatever is installed by now."""
    return {package: sys.modules[package].__version__ for package in _MADE_BY if package in sys.modules}


def _device_of(leaves: list[Any]) -> jax.Device:
    """Any of those that hold the arguments: replicas share programs."""
    devices = {device for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.sharding.device_set}
    return min(devices or jax.devices()[:1], key=lambda device: device.id)


def _placement(leaf: Any) -> str:
    """How a leaf is cut, without the numbers of its devices."""
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding):
        return f"{dict(sharding.mesh.shape)} {sharding.spec} {sharding.memory_kind}"
    return "whole"


def _settings() -> dict[str, str]:
    values = jax.config.values
    return {name: repr(values[name]) for name in sorted(values) if not name.startswith(_WITHOUT_EFFECT)}


@functools.cache
def _processor() -> list[str]:
    """Executables for a CPU use all that it can do: they crash on an older one."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in first.splitlines() if line.split("\t")[0].strip() in _CPU_LINES)]
