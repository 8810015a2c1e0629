"""The server's log: one plain line an event on standard error, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

__all__ = ["LogFormat", "LogLevel", "log", "show_log"]

log = logging.getLogger("policy_server")


class LogFormat(StrEnum):
    """How a line looks."""

    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line: `debug` adds every request that went well."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


def show_log(form: LogFormat = LogFormat.HUMAN, level: LogLevel = LogLevel.INFO) -> None:
    """Write the server's log to standard error, and keep the libraries quiet below warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form is LogFormat.JSON else _PlainLines())
    for ours in (log, logging.getLogger("training")):
        ours.addHandler(handler)
        ours.setLevel(level.value.upper())
        ours.propagate = False
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged with `extra={"facts": {…}}`."""
    facts: dict[str, Any] = getattr(record, "facts", {})
    return facts


class _PlainLines(logging.Formatter):
    """`02:13:44 I request id=5f1c-3 code=ok total_ms=12.1`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record) + "".join(
            f" {key}={_word(value)}" for key, value in _facts(record).items()
        )


class _JsonLines(logging.Formatter):
    """The same as a map: time (UTC), level, message, the facts, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage(), **_facts(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _word(value: object) -> str:
    """Text with spaces or line breaks is quoted: what a client sends must not look like a line of the log."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
