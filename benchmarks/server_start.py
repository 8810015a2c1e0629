"""Where the time of a start goes: the steps of `serve` up to readiness, one after another in this process.

    python benchmarks/server_start.py --compile-cache FOLDER [--checkpoint STEP --spec NAME --tokenizer FILE]

Prints one line of JSON: for each phase its seconds on the clock, and of all processors (user and system).
"""

from __future__ import annotations

import json
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_TRACING = "/jax/core/compile/jaxpr_trace_duration"
_LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_EXECUTABLES = "/jax/core/compile/backend_compile_duration"

phases: dict[str, list[float]] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What the block takes is that phase's."""
    clock, processors = time.perf_counter(), _processor_seconds()
    yield
    phases[name] = [time.perf_counter() - clock, _processor_seconds() - processors]


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(
    compile_cache: Annotated[Path, typer.Option()],
    checkpoint: Annotated[str, typer.Option()],
    spec: Annotated[str | None, typer.Option()] = None,
    tokenizer: Annotated[str | None, typer.Option()] = None,
    batch_sizes: Annotated[str, typer.Option()] = "1,2,4,8",
) -> None:
    """As `serve` with the same flags, until it is ready."""
    with phase("import jax"):
        import jax
    with phase("import the server"):
        import policy_server.cli
        import policy_server.process  # noqa: F401 (what is imported is timed)
    from policy_server.commands.model_source import ModelSource
    from policy_server.engine.batcher import Batcher

    logging.disable(logging.INFO)
    inside: Counter[str] = Counter()
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: inside.update({event: seconds}))
    with phase("find the device"):
        jax.devices()
    with phase("read and check the weights"):
        source = ModelSource(
            checkpoint, None, False, spec, tokenizer, None, "plain", 1, shard=False, compile_cache=compile_cache
        )
        policy, _ = source.load()
    inside.clear()
    with phase("programs and their first runs"):
        Batcher(policy, tuple(map(int, batch_sizes.split(",")))).compile()
    for name, event in (("tracing", _TRACING), ("lowering", _LOWERING), ("executables", _EXECUTABLES)):
        phases[f"  of it {name}"] = [inside[event]]
    print(json.dumps(phases))


if __name__ == "__main__":
    typer.run(main)
