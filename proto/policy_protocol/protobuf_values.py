"""Observations and tensors to and from their protobuf messages (policy.proto), as safely as codec.py reads msgpack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policy_protocol import policy_pb2 as pb
from policy_protocol.codec import read_array
from policy_protocol.errors import CodecError
from policy_protocol.jpeg import JpegImage
from policy_protocol.messages import Observation

__all__ = ["observation_from_proto", "observation_to_proto", "tensor_from_proto", "tensor_to_proto"]

_NAMES = {
    pb.DTYPE_BOOL: "|b1",
    pb.DTYPE_INT8: "|i1",
    pb.DTYPE_INT16: "<i2",
    pb.DTYPE_INT32: "<i4",
    pb.DTYPE_INT64: "<i8",
    pb.DTYPE_UINT8: "|u1",
    pb.DTYPE_UINT16: "<u2",
    pb.DTYPE_UINT32: "<u4",
    pb.DTYPE_UINT64: "<u8",
    pb.DTYPE_FLOAT16: "<f2",
    pb.DTYPE_FLOAT32: "<f4",
    pb.DTYPE_FLOAT64: "<f8",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def observation_to_proto(observation: Observation) -> pb.Observation:
    """The message of an observation.

    Raises:
        CodecError: it holds a value that the protocol has no form for; names its key.
    """
    message = pb.Observation()
    for key, value in observation.items():
        if not isinstance(key, str):
            raise CodecError(f"The key {str(key)[:80]!r} of an observation is no string.")
        try:
            _write(message.entries[key], value)
        except CodecError as error:
            raise CodecError(error.message, field=key) from error
    return message


def observation_from_proto(message: pb.Observation) -> dict[str, Any]:
    """The observation of a message; its arrays are read-only.

    Raises:
        CodecError: a tensor is malformed, or a value holds nothing; names its key.
    """
    observation = {}
    for key, value in message.entries.items():
        try:
            observation[key] = _read(value)
        except CodecError as error:
            path = key if error.field is None else f"{key}/{error.field}"
            raise CodecError(error.message, field=path) from error
    return observation


def tensor_to_proto(array: np.ndarray[Any, Any] | np.generic) -> pb.Tensor:
    """The message of an array. Raises `CodecError` when its dtype has no form on the wire."""
    little = array.dtype.newbyteorder("<")
    dtype = _DTYPES.get(little.str)
    if dtype is None:
        raise CodecError(f"An array of dtype {array.dtype} cannot be sent; use bool, integer, float or text.")
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.astype(little, copy=False).tobytes())


def tensor_from_proto(message: pb.Tensor) -> np.ndarray[Any, Any]:
    """The array of a message, read-only. Raises `CodecError` as `read_array` does."""
    name = _NAMES.get(message.dtype)
    if name is None:
        raise CodecError(f"A tensor of dtype {message.dtype} is refused; the schema's DType lists what may be sent.")
    return read_array(name, list(message.shape), message.data)


def _write(message: pb.Value, value: object) -> None:
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, str):
        message.tensor.CopyFrom(tensor_to_proto(value))
    elif isinstance(value, JpegImage):
        message.jpeg = value.data
    elif isinstance(value, str):
        message.text = str(value)
    elif isinstance(value, Mapping):
        message.nested.CopyFrom(observation_to_proto(value))
    elif isinstance(value, (list, tuple)):
        message.list.SetInParent()
        for item in value:
            _write(message.list.values.add(), item)
    else:
        _write_number(message, value)


def _write_number(message: pb.Value, value: object) -> None:
    if isinstance(value, bool):
        message.truth = value
    elif isinstance(value, float):
        message.real = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        message.whole = value
    else:
        raise CodecError(f"This value cannot be sent: {str(value)[:60]!r} of type {type(value).__name__}.")


def _read(message: pb.Value) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise CodecError("A value of the observation holds nothing that this version of the schema knows.")
    if kind == "tensor":
        return tensor_from_proto(message.tensor)
    if kind == "jpeg":
        return JpegImage(message.jpeg)
    if kind == "nested":
        return observation_from_proto(message.nested)
    if kind == "list":
        return [_read(item) for item in message.list.values]
    return getattr(message, kind)
