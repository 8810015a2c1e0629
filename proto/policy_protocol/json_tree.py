"""Frozen dataclass trees to and from JSON, with errors that name the field's path."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from policy_protocol.errors import SpecInvalid, did_you_mean

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


def to_json(value: object) -> Any:
    """Plain maps, lists and scalars of a dataclass tree, as `json.dumps` takes them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: object, path: str = "") -> T:
    """Build the dataclass `kind` from parsed JSON.

    Raises:
        SpecInvalid: a field is missing, unknown, of the wrong type or refused by the dataclass; names its path.
    """
    if not isinstance(value, Mapping):
        raise _wrong(path, "an object", value)
    hints = _hints(kind)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise SpecInvalid(f"Unknown field {_join(path, str(name))!r}.{did_you_mean(str(name), fields)}", field=path)
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _read(hints[name], value[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SpecInvalid(f"The field {_join(path, name)!r} is missing.", field=_join(path, name))
    try:
        return kind(**arguments)
    except ValueError as error:
        raise SpecInvalid(f"{path or 'The record'} is not valid: {error}", field=path) from error


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Resolving a dataclass's annotations compiles them, which takes longer than reading a record."""
    return typing.get_type_hints(kind)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong(path: str, expected: str, value: object) -> SpecInvalid:
    return SpecInvalid(f"The field {path!r} must be {expected}, not {str(value)[:60]!r}.", field=path)


def _read(hint: Any, value: object, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(inner, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(path, f"one of {', '.join(map(repr, arguments))}", value)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(path, "a list", value)
        return tuple(_read(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(path, "an object", value)
        return {str(key): _read(arguments[1], item, _join(path, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type[Any], hint), value, path)
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: object, path: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    raise _wrong(path, names[hint], value)
