"""What a server tells Prometheus: requests, batches, connections, the device, and the checkpoint it serves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from policy_protocol.spec import CheckpointId

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_WINDOW_S = 60.0
"""The busy share looks back this far: four scrapes at Prometheus' usual 15 s."""


class Metrics:
    """Counters of one server, in a registry of their own. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # resident memory, processor time, open files
        self._requests = self._counter("requests", "Requests by transport and outcome.", "transport", "code")
        self._latency = self._histogram(
            "request_seconds", "From a request's arrival to its actions.", _SECONDS, "transport"
        )
        self._queued = self._histogram("queue_seconds", "A row's wait for a device.", _SECONDS)
        self._batches = self._histogram("batch_rows", "Rows in a batch, padding not counted.", _ROWS)
        self._padding = self._counter("padding_rows", "Rows that were computed only to fill a compiled shape.")
        self._infer = self._histogram("batch_seconds", "A batch on its device.", _SECONDS, "replica")
        self._busy = self._counter("device_busy_seconds", "Time that a device computed.", "replica")
        self._compiled = self._gauge("compiled_programs", "Programs compiled; stands still once the server is ready.")
        self._received = self._counter("received_bytes", "Bytes of requests.", "transport")
        self._sent = self._counter("sent_bytes", "Bytes of replies.", "transport")
        self._connections = self._gauge("connections", "Open connections.", "transport")
        self._waiting = self._gauge("rows_waiting", "Rows in the queue for a device.")
        self._checkpoint = self._gauge("checkpoint_info", "The checkpoint that is served.", "experiment", "run", "step")
        self._served: Callable[[], CheckpointId] | None = None
        self._load = _Load()
        self._gauge("device_busy_share", "Share of the last minute that devices computed, 0 to 1.").set_function(
            self._load.share
        )

    def page(self) -> bytes:
        """Everything in Prometheus' text format, of type `CONTENT_TYPE_LATEST`."""
        if self._served is not None:
            served = self._served()
            self._checkpoint.clear()
            self._checkpoint.labels(served.experiment, served.run, str(served.step)).set(1)
        return generate_latest(self._registry)

    def request(self, transport: str, code: str, seconds: float | None) -> None:
        """One request is over: `code` is `ok`, an error's, or `cancelled`; without `seconds` it was not for actions."""
        self._requests.labels(transport, code).inc()
        if seconds is not None:
            self._latency.labels(transport).observe(seconds)

    def queued(self, seconds: float) -> None:
        """One row waited so long for a device."""
        self._queued.observe(seconds)

    def batch(self, rows: int, padded: int, seconds: float, replica: int = 0) -> None:
        """A batch, computed at the shape of `padded` rows, kept one replica's device busy for so long."""
        self._batches.observe(rows)
        self._padding.inc(padded - rows)
        self._infer.labels(str(replica)).observe(seconds)
        self._busy.labels(str(replica)).inc(seconds)
        self._load.add(rows, seconds)

    def received(self, transport: str, size: int) -> None:
        """A request of `size` bytes came in."""
        self._received.labels(transport).inc(size)

    def sent(self, transport: str, size: int) -> None:
        """A reply of `size` bytes went out."""
        self._sent.labels(transport).inc(size)

    @contextmanager
    def connection(self, transport: str) -> Iterator[None]:
        """While a client is connected."""
        with self._connections.labels(transport).track_inprogress():
            yield

    def watch_checkpoint(self, checkpoint: Callable[[], CheckpointId]) -> None:
        """Ask `checkpoint` for what is served whenever the page is read: it may follow a training run."""
        self._served = checkpoint

    def watch_waiting(self, rows: Callable[[], int]) -> None:
        """Ask `rows` for the number of rows in the queue whenever the page is read."""
        self._waiting.set_function(rows)

    def watch_compiled(self, programs: Callable[[], int]) -> None:
        """Ask `programs` for the number of compiled programs whenever the page is read."""
        self._compiled.set_function(programs)

    def use_replicas(self, count: int) -> None:
        """The busy share is that of so many replicas; one unless told."""
        self._load.replicas = count

    def seconds_for(self, rows: int) -> float | None:
        """How long so many rows would take at the pace of the last minute; None where no batch is known of it."""
        return self._load.seconds_for(rows)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"chunkwire_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"chunkwire_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"chunkwire_{name}", text, labels, buckets=buckets, registry=self._registry)


class _Load:
    """The batches of the last minute, and their sums: every request that is refused asks for them."""

    def __init__(self) -> None:
        self.replicas = 1
        self._batches: deque[tuple[float, int, int]] = deque()
        self._rows = self._busy_ns = 0  # whole numbers: what is added and taken away for weeks must not drift
        self._since = time.monotonic()
        self._lock = Lock()

    def add(self, rows: int, seconds: float) -> None:
        with self._lock:
            self._count(rows, busy_ns := round(seconds * 1e9))
            self._batches.append((time.monotonic(), rows, busy_ns))
            self._forget()

    def share(self) -> float:
        with self._lock:
            self._forget()
            busy_s = self._busy_ns / 1e9
        return min(1.0, busy_s / self.replicas / max(1e-9, min(_WINDOW_S, time.monotonic() - self._since)))

    def seconds_for(self, rows: int) -> float | None:
        with self._lock:
            self._forget()
            return self._busy_ns / 1e9 / self._rows * rows / self.replicas if self._rows else None

    def _forget(self) -> None:
        while self._batches and self._batches[0][0] < time.monotonic() - _WINDOW_S:
            _, rows, busy_ns = self._batches.popleft()
            self._count(-rows, -busy_ns)

    def _count(self, rows: int, busy_ns: int) -> None:
        self._rows += rows
        self._busy_ns += busy_ns
