"""What a load has shown, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from policy_server.bench.load import Load, Measurements

__all__ = ["report", "summary"]

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def summary(load: Load, measured: Measurements) -> dict[str, Any]:
    """What `--json` prints. Times are milliseconds; `beside_device` is the round trip without queue and device."""
    beside = np.subtract(measured.round_trip, np.add(measured.queue, measured.device)).tolist()
    times = {
        "round_trip": measured.round_trip,
        "queue": measured.queue,
        "device": measured.device,
        "beside_device": beside,
    }
    per_second = measured.answered / measured.seconds if measured.seconds else 0.0
    return {
        "url": load.url,
        "checkpoint": measured.checkpoint,
        "clients": load.clients,
        "batch": load.batch,
        "seconds": round(measured.seconds, 3),
        "answered": measured.answered,
        "requests_per_second": round(per_second, 2),
        "rows_per_second": round(per_second * (load.batch or 1), 2),
        "milliseconds": {name: _quantiles(values) for name, values in times.items()},
        "errors": dict(measured.errors),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {name: round(float(np.quantile(values, share)), 3) for name, share in _QUANTILES.items()}


def report(facts: dict[str, Any]) -> RenderableType:
    """The summary for a terminal."""
    batch = "" if facts["batch"] is None else f" of {facts['batch']} rows"
    rows = "" if facts["batch"] is None else f" ({facts['rows_per_second']:,.1f} rows/s)"
    head = (
        f"{facts['url']}: {facts['checkpoint']}, {facts['clients']} clients, {facts['answered']:,} requests{batch} in "
        f"{facts['seconds']:.1f} s: {facts['requests_per_second']:,.1f} requests/s{rows}"
    )
    table = Table("milliseconds")
    for name in _QUANTILES:
        table.add_column(name, justify="right")
    for name, quantiles in facts["milliseconds"].items():
        table.add_row(name.replace("_", " "), *(f"{value:,.2f}" for value in quantiles.values()))
    errors = ", ".join(f"{count:,} {code}" for code, count in sorted(facts["errors"].items()))
    return Group(Text(head), table, Text(f"errors: {errors or 'none'}"))
