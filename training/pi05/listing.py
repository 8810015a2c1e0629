"""Names in an error's text: the first few, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "listed"]

_MOST = 8
"""Whoever reads an error sees the pattern in eight names."""


def listed(names: Sequence[str]) -> str:
    """`a, b, c`, or the first eight `and 3 more`."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def counted(kind: str, names: Sequence[str]) -> list[str]:
    """`["2 missing: a, b."]`, or nothing where there are none."""
    return [f"{len(names)} {kind}: {listed(names)}."] if names else []
