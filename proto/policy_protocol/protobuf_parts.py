"""Parsing protobuf from strangers: a message's parts are counted before protobuf makes objects of them.

Two bytes on the wire are an empty message, which takes fifty in memory: 64 MB of them are seconds and gigabytes.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from policy_protocol.codec import MAX_ITEMS
from policy_protocol.errors import CodecError

__all__ = ["parse"]

M = TypeVar("M", bound=Message)

_FIELD_COSTS = 50
"""A field counts as so many items, as a map does in msgpack: walking over 20,000 of them and reading what they hold
takes 50 ms, in which a server answers nobody else. A batch of 1024 rows with four cameras as JPEG has 15,000."""
_MOST_DEPTH = 64
"""Of messages in messages; a map in a map is three."""
_SINGLE = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE)
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}
"""Wire types (protobuf.dev/programming-guides/encoding); the last two with their bytes."""
_LONGEST_VARINT = 70
"""Bits."""


def parse(kind: type[M], data: bytes) -> M:
    """Read the bytes of a message.

    Raises:
        CodecError: they are none, or have too many parts.
    """
    try:
        _Parts(data).count(0, len(data), _kind(kind.DESCRIPTOR))
        message: M = kind.FromString(data)
    except (DecodeError, IndexError) as error:
        name, package = kind.DESCRIPTOR.name, kind.DESCRIPTOR.file.package
        raise CodecError(f"The message is no {name} of {package}.") from error
    return message


class _Kind:
    """What is to be known of a message's fields, by number; reading it from the descriptor each time takes long."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor

    @cached_property
    def messages(self) -> dict[int, _Kind]:
        """Fields that are messages themselves."""
        fields = self._descriptor.fields
        return {field.number: _kind(field.message_type) for field in fields if field.message_type is not None}

    @cached_property
    def in_a_row(self) -> frozenset[int]:
        """Fields that may hold numbers in a row, of a byte or more each: every byte counts as an item."""
        return frozenset(field.number for field in self._descriptor.fields if field.cpp_type not in _SINGLE)


_kind = cache(_Kind)


class _Parts:
    """Walks over the fields of a message; what lies in text and bytes is stepped over."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0

    def count(self, start: int, end: int, kind: _Kind, depth: int = _MOST_DEPTH) -> None:
        """Raises `CodecError` for too many, `IndexError` and `DecodeError` for bytes that are no message."""
        if not depth:
            raise DecodeError("messages in messages without end")
        in_a_row, messages = kind.in_a_row, kind.messages
        while start < end:
            tag, start = self._varint(start)
            number, wire_type = tag >> 3, tag & 7
            size, start = self._size(start, wire_type)
            self._items += _FIELD_COSTS + (size if number in in_a_row else 0)
            if self._items > MAX_ITEMS:
                raise CodecError(
                    f"The message has too many parts ({MAX_ITEMS:,}; a field counts as {_FIELD_COSTS}). "
                    "Send numbers as tensors, or fewer rows."
                )
            if number in messages and wire_type == _LENGTH:
                self.count(start, start + size, messages[number], depth - 1)
            start += size
        if start > end:
            raise DecodeError("a field ends behind its message")

    def _size(self, start: int, wire_type: int) -> tuple[int, int]:
        """Bytes of a field's value, and where it begins."""
        if wire_type == _LENGTH:
            return self._varint(start)
        if wire_type == _VARINT:
            return 0, self._varint(start)[1]
        if wire_type in _FIXED:
            return _FIXED[wire_type], start
        raise DecodeError(f"wire type {wire_type}")

    def _varint(self, start: int) -> tuple[int, int]:
        """Its value, and where it ends."""
        value = byte = self._data[start]
        if byte < 128:
            return value, start + 1
        value, shift = byte & 127, 7
        while byte > 127 and shift < _LONGEST_VARINT:
            start += 1
            byte = self._data[start]
            value |= (byte & 127) << shift
            shift += 7
        return value, start + 1
