"""One row on its way through the queue, and the future that its client holds."""

from __future__ import annotations

import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from policy_protocol.errors import DeadlineExceeded
from policy_protocol.messages import ActionChunk

__all__ = ["WaitingRow"]


@dataclass(frozen=True, eq=False)
class WaitingRow:
    """A prepared row and what its client wants of it."""

    row: Any
    noise_seed: int | None
    expires: float | None
    """Moment of `time.perf_counter` after which nobody wants the answer."""
    client: Hashable = None
    """Whose row it is; None where nobody knows."""
    future: Future[ActionChunk] = field(default_factory=Future)
    queued: float = field(default_factory=time.perf_counter)

    def has_client(self) -> bool:
        """Whether its client has not given it up while it waits."""
        return not self.future.cancelled()

    def still_wanted(self) -> bool:
        """Whether to compute it; one that is too late is told so here, before the device sees it."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if self.expires is not None and time.perf_counter() > self.expires:
            self.future.set_exception(DeadlineExceeded("The deadline passed while the request was waiting."))
            return False
        return True
