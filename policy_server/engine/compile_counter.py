"""How many programs this process has compiled: after `/readyz` the number must stand still."""

from __future__ import annotations

import jax.monitoring

__all__ = ["CompileCounter"]

_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts from its creation on; a program read from the persistent cache counts too."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, seconds: float, **_: str | int) -> None:
        if event == _EVENT:
            self.count += 1
