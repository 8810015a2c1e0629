"""msgpack with numpy arrays, in both encodings that robot policies use, and nothing unsafe.

openpi's encoding (`openpi_client.msgpack_numpy`) marks an array with the byte keys `__ndarray__`, `data`, `dtype`,
`shape`; the PyPI package `msgpack-numpy` with `nd`, `type`, `kind`, `shape`, `data`. Both are read, and an answer is
written in the encoding that the request used. Decoding never unpickles: object, void and complex dtypes, negative or
oversized shapes, elements of no size and byte counts that disagree with shape x dtype are refused. A JPEG is a map of
`__jpeg__` and `data`, and stays one: whoever needs its pixels decodes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgpack
import numpy as np

from policy_protocol.errors import CodecError
from policy_protocol.jpeg import JpegImage

__all__ = ["MAX_ITEMS", "ArrayEncoding", "Decoded", "pack", "read_array", "unpack"]

_SAFE_KINDS = frozenset("biufSU")
"""numpy dtype kinds that travel: bool, signed, unsigned, float, bytes and text."""
_MAX_DIMENSIONS = 32
MAX_ITEMS = 1_000_000
"""Most list items and map entries in one message. Arrays travel as bytes, so a real request has a few dozen; without
a bound, 4 MB of empty maps keep a processor busy for seconds."""

_LIST_COSTS, _MAP_COSTS = 10, 50
"""A container counts as so many items beside its own, and a map that is an array as two maps: the costliest message
that is read takes about 50 ms, in which a server answers nobody else."""

_MAX_HOLLOW_BYTES = 1_000_000
"""Most bytes that an array without elements may promise with its other lengths: `(10**9, 0)` costs its sender nothing,
and whoever walks its rows a gigabyte."""


class ArrayEncoding(Enum):
    """How arrays are written inside a msgpack message."""

    OPENPI = "openpi"
    MSGPACK_NUMPY = "msgpack-numpy"


@dataclass(frozen=True)
class Decoded:
    """A decoded message and the encoding that its arrays used (openpi's when it holds none)."""

    value: Any
    encoding: ArrayEncoding


def pack(value: object, encoding: ArrayEncoding = ArrayEncoding.OPENPI) -> bytes:
    """Write maps, lists, scalars and numpy arrays as msgpack.

    Raises:
        CodecError: the value holds an array of an unsafe dtype, or an object that msgpack cannot write.
    """
    default = _openpi_map if encoding is ArrayEncoding.OPENPI else _msgpack_numpy_map
    try:
        return bytes(msgpack.packb(value, default=default))
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"This value cannot be sent: {error}.") from error


def unpack(data: bytes | bytearray | memoryview) -> Decoded:
    """Read one msgpack message. Arrays are read-only views of `data`, without a copy.

    Raises:
        CodecError: the bytes are not one well-formed message, or hold an array that is refused.
    """
    hook = _ArrayHook()
    try:
        value = msgpack.unpackb(
            data, object_hook=hook, list_hook=hook.count_list, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS
        )
    except CodecError:
        raise
    except Exception as error:  # msgpack raises its own, ValueError, UnicodeDecodeError, RecursionError …
        raise CodecError(f"The message is not valid msgpack: {error or type(error).__name__}.") from error
    return Decoded(value, hook.encoding or ArrayEncoding.OPENPI)


def read_array(dtype: object, shape: object, data: object) -> np.ndarray[Any, Any]:
    """An array as it came over any transport: a read-only view of `data`, without a copy.

    Args:
        dtype: numpy's name of it, such as `<f4`.
        shape: list of lengths.
        data: its elements in row-major order.

    Raises:
        CodecError: the dtype is unsafe, the shape is none, or the number of bytes disagrees with both.
    """
    kind, lengths = _dtype(dtype), _shape(shape)
    if not isinstance(data, bytes):
        raise CodecError("An array's data is a byte string.")
    expected = math.prod(lengths) * kind.itemsize
    if len(data) != expected:
        raise CodecError(f"An array of shape {lengths} and dtype {kind} holds {expected} bytes, not {len(data)}.")
    _require_substance(lengths, kind)
    try:
        return np.ndarray(lengths, kind, buffer=data)
    except (ValueError, OverflowError) as error:  # an empty array whose other lengths overflow
        raise CodecError(f"An array of shape {lengths} is refused: {error}.") from error


def _require_substance(lengths: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """No data, no array: a copy of elements that took no bytes on the wire may take any number of them here."""
    if kind.itemsize == 0 and math.prod(lengths) > 1:  # one is the empty string, as a numpy scalar
        raise CodecError(f"An array of shape {lengths} and dtype {kind.str} is refused: its elements have no size.")
    if 0 in lengths and math.prod(filter(None, lengths)) * max(kind.itemsize, 1) > _MAX_HOLLOW_BYTES:
        raise CodecError(f"An array of shape {lengths} and dtype {kind.str} is refused: it is large and holds nothing.")


def _checked(array: np.ndarray[Any, Any] | np.generic) -> None:
    if array.dtype.kind not in _SAFE_KINDS:
        raise CodecError(f"An array of dtype {array.dtype} cannot be sent; use bool, integer, float or text.")


def _openpi_map(value: object) -> Mapping[bytes, object]:
    if isinstance(value, np.ndarray):
        _checked(value)
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        _checked(value)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    if isinstance(value, JpegImage):
        return {b"__jpeg__": True, b"data": value.data}
    raise TypeError(f"objects of type {type(value).__name__} are not part of the protocol")


def _msgpack_numpy_map(value: object) -> Mapping[bytes, object]:
    if isinstance(value, np.ndarray):
        _checked(value)
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}
    if isinstance(value, np.generic):
        _checked(value)
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    if isinstance(value, JpegImage):
        return {b"__jpeg__": True, b"data": value.data}
    raise TypeError(f"objects of type {type(value).__name__} are not part of the protocol")


class _ArrayHook:
    """msgpack's `object_hook`: turns array maps of either encoding into arrays and remembers which it saw first."""

    def __init__(self) -> None:
        self.encoding: ArrayEncoding | None = None
        self._items = 0

    def count_list(self, items: list[Any]) -> list[Any]:
        """msgpack's `list_hook`: refuses a message of too many items while it is being read."""
        self._count(_LIST_COSTS + len(items))
        return items

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > MAX_ITEMS:
            raise CodecError(f"The message has too many parts ({MAX_ITEMS:,}). Send numbers as numpy arrays.")

    def __call__(self, raw: dict[Any, Any]) -> object:
        self._count(_MAP_COSTS + len(raw))
        fields = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in raw.items()}
        if "__ndarray__" in fields or "__npgeneric__" in fields:
            self._array_of(ArrayEncoding.OPENPI)
            return _array(fields, "dtype") if "__ndarray__" in fields else _openpi_scalar(fields)
        if "nd" in fields and "type" in fields:
            self._array_of(ArrayEncoding.MSGPACK_NUMPY)
            return _array(fields, "type") if fields["nd"] else _bytes_scalar(fields)
        if "__jpeg__" in fields:
            return _jpeg(fields)
        if fields.get("complex") is True:
            raise CodecError("Complex numbers are refused; send their real and imaginary parts as floats.")
        return raw

    def _array_of(self, encoding: ArrayEncoding) -> None:
        self._count(_MAP_COSTS)
        self.encoding = self.encoding or encoding


def _dtype(name: object) -> np.dtype[Any]:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    try:
        dtype = np.dtype(text) if isinstance(text, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in _SAFE_KINDS:
        raise CodecError(f"An array of dtype {str(name)[:80]!r} is refused; send bool, integer, float or text.")
    return dtype


def _shape(raw: object) -> tuple[int, ...]:
    if not isinstance(raw, (list, tuple)) or len(raw) > _MAX_DIMENSIONS:
        raise CodecError(f"An array's shape is a list of at most {_MAX_DIMENSIONS} lengths.")
    if not all(isinstance(length, int) and not isinstance(length, bool) and 0 <= length < 2**63 for length in raw):
        raise CodecError(f"An array's shape holds non-negative integers, not {str(raw)[:80]}.")
    return tuple(raw)


def _array(fields: Mapping[str, Any], dtype_key: str) -> np.ndarray[Any, Any]:
    return read_array(fields.get(dtype_key), fields.get("shape"), fields.get("data"))


def _jpeg(fields: Mapping[str, Any]) -> JpegImage:
    data = fields.get("data")
    if not isinstance(data, bytes):
        raise CodecError("A JPEG's data is a byte string.")
    return JpegImage(data)


def _openpi_scalar(fields: Mapping[str, Any]) -> np.generic:
    dtype, data = _dtype(fields.get("dtype")), fields.get("data")
    if not isinstance(data, (bool, int, float, str, bytes)):
        raise CodecError("A numpy scalar's data is one number or string.")
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which whoever reads it refuses
            scalar: np.generic = dtype.type(data)
    except (ValueError, OverflowError, TypeError) as error:
        raise CodecError(f"The value {str(data)[:80]!r} is not of dtype {dtype}.") from error
    return scalar


def _bytes_scalar(fields: Mapping[str, Any]) -> np.generic:
    scalar: np.generic = _array({**fields, "shape": (1,)}, "type").flat[0]
    return scalar
