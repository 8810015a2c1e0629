"""One request from its arrival to its actions: counted once and logged once, whatever becomes of it."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from policy_protocol.errors import ChunkwireError, InternalError
from policy_protocol.messages import EpisodeMoment
from policy_server.log import log
from policy_server.metrics import Metrics
from policy_server.session import Question

__all__ = ["CANCELLED", "OK", "RequestRecord"]

OK, CANCELLED = "ok", "cancelled"
"""Codes of requests that ended without an error: answered, and given up by their client."""

_PROCESS = secrets.token_hex(2)
_NUMBERS = itertools.count(1)


class RequestRecord:
    """What is known of one request.

    Args:
        transport: `websocket` or `grpc`.
        client: address of who asks.
        size: bytes of the request.
    """

    def __init__(self, metrics: Metrics, transport: str, client: str, size: int) -> None:
        self.id = f"{_PROCESS}-{next(_NUMBERS)}"
        """Names the request in the log; differs between processes."""
        self.client = client
        self.size = size
        self._metrics = metrics
        self._transport = transport
        self._received = time.perf_counter()
        self._rows: int | None = None
        self._episode: EpisodeMoment | None = None

    def understood(self, question: Question) -> None:
        """What it asks for; its images are not kept."""
        self._rows = len(question.observations)
        self._episode = None if isinstance(question.episode, tuple) else question.episode

    def answered(self, timing: Mapping[str, float]) -> None:
        """Its actions are there."""
        self._close(OK, logging.DEBUG, timing)

    def told(self) -> None:
        """It asked for no actions, and is answered."""
        self._close(OK, logging.DEBUG, {})

    def refused(self, error: ChunkwireError) -> None:
        """It gets this error for an answer."""
        level = logging.WARNING if isinstance(error, InternalError) else logging.INFO
        self._close(error.code, level, {}, error.message)

    def cancelled(self) -> None:
        """Its client went away before the answer."""
        self._close(CANCELLED, logging.DEBUG, {})

    def _close(self, code: str, level: int, timing: Mapping[str, float], reason: str | None = None) -> None:
        seconds = time.perf_counter() - self._received
        asked_for_actions = self._rows is not None  # and not about steps, or what nobody understood
        self._metrics.request(self._transport, code, seconds if asked_for_actions else None)
        if log.isEnabledFor(level):
            log.log(level, "request", extra={"facts": self._facts(code, timing, seconds, reason)})

    def _facts(self, code: str, timing: Mapping[str, float], seconds: float, reason: str | None) -> dict[str, Any]:
        facts: dict[str, Any] = {"id": self.id, "client": self.client, "transport": self._transport, "code": code}
        if self._rows is not None:
            facts["rows"] = self._rows
        facts |= {name: round(timing[name], 3) for name in ("queue_ms", "infer_ms") if name in timing}
        facts["total_ms"] = round(seconds * 1e3, 3)
        if (moment := self._episode) is not None:
            facts |= {"env_id": moment.env_id, "seed": moment.seed, "step": moment.step}
        return facts if reason is None else {**facts, "reason": reason}
