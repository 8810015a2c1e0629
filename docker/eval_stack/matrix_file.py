"""A matrix as YAML.

checkpoints:                # name: step directory, relative to this file; or a list of directories
  first: runs/…/first/29999
  second: runs/…/second/29999
tasks: [StackCube-v1, PickCube-v1]
episodes: 50
seed: 0
sims: 2
out: results/first-against-second
sim_args: [--video, failures]
serve_args: [--batch-sizes, "1,4"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from eval_stack.checkpoint import Checkpoint
from eval_stack.errors import InvalidMatrix
from policy_protocol.errors import did_you_mean

__all__ = ["read_matrix_file"]


class _Loader(yaml.SafeLoader):
    """YAML forbids a key twice in one mapping; PyYAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_matrix_file(path: Path) -> dict[str, Any]:
    """What the file says, as keyword arguments of `Matrix`; keys that it leaves out are left out.

    Raises:
        InvalidMatrix: the file cannot be read, has an unknown key, or a value of the wrong kind.
    """
    content = _load(path)
    for key in content:
        if key not in _KEYS:
            raise _invalid(path, f"there is no key {key!r}.{did_you_mean(str(key), _KEYS)}")
    return {key: _KEYS[key](path, key, value) for key, value in content.items()}


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidMatrix(f"--matrix {path} cannot be read: {reason}.", field="--matrix") from error
    except yaml.YAMLError as error:
        raise InvalidMatrix(f"--matrix {path} is no YAML: {error}", field="--matrix") from error
    if not isinstance(content, dict):
        raise _invalid(path, f"a mapping was expected, with some of the keys {', '.join(_KEYS)}.")
    return content


def _checkpoints(path: Path, key: str, value: object) -> tuple[Checkpoint, ...]:
    if isinstance(value, dict):
        return tuple(Checkpoint(str(name), _beside(path, key, one)) for name, one in value.items())
    return tuple(Checkpoint.at(_beside(path, key, one)) for one in _list(path, key, value))


def _beside(path: Path, key: str, value: object) -> Path:
    """A path relative to the file's own folder, so that it means the same wherever the command is run."""
    if not isinstance(value, str) or not value:
        raise _invalid(path, f"{key} holds {value!r}, where the path of a folder was expected.")
    return (path.absolute().parent / Path(value).expanduser()).resolve()


def _list(path: Path, key: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _invalid(path, f"{key} is {value!r}, where a list was expected.")
    return value


def _texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    for one in (values := _list(path, key, value)):
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise _invalid(path, f"{key} holds {one!r}, where text was expected. Put it in quotes.")
    return tuple(str(one) for one in values)


def _number(path: Path, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(path, f"{key} is {value!r}, where a whole number was expected.")
    return value


def _invalid(path: Path, what: str) -> InvalidMatrix:
    return InvalidMatrix(f"--matrix {path}: {what}", field="--matrix")


_KEYS: Mapping[str, Callable[[Path, str, Any], object]] = {
    "checkpoints": _checkpoints,
    "tasks": _texts,
    "episodes": _number,
    "seed": _number,
    "sims": _number,
    "out": _beside,
    "sim_args": _texts,
    "serve_args": _texts,
}
