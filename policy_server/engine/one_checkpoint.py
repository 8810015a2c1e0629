"""The rows of one request, all computed by one checkpoint, whatever is loaded meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from policy_protocol.errors import Overloaded
from policy_protocol.messages import ActionChunk

__all__ = ["of_one_checkpoint"]

_MOST_TIMES = 3
"""Times that a row is computed: where steps are loaded faster than that, it could go on for ever."""


async def of_one_checkpoint(
    compute: Callable[[Sequence[int]], Awaitable[Sequence[ActionChunk]]], count: int
) -> Sequence[ActionChunk]:
    """One chunk a row. The reply names one checkpoint: where another one was loaded between the rows of a request,
    those of the earlier one are computed again.

    Args:
        compute: the chunks of the rows of these numbers.
        count: rows of the request.

    Raises:
        Overloaded: another one was loaded each time.
    """
    chunks: dict[int, ActionChunk] = {}
    wanted: Sequence[int] = range(count)
    for _ in range(_MOST_TIMES):
        computed = await compute(wanted)
        chunks |= zip(wanted, computed, strict=True)
        wanted = [row for row, chunk in chunks.items() if chunk.checkpoint != computed[-1].checkpoint]
        if not wanted:
            return [chunks[row] for row in range(count)]
    raise Overloaded(
        f"The server loaded another checkpoint each of the {_MOST_TIMES} times that it computed this request's {count} "
        "rows, and a reply is of one. Ask again when it loads less often, or for fewer rows."
    )
