"""Where a run's results go: whoever wants to hear of its steps is an `Observer`, and the loop tells them all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeAlias

from training.train_state import TrainState

__all__ = ["Observer", "Observers", "Record"]

Record: TypeAlias = Mapping[str, float]
"""A line of `metrics.jsonl`: `step`, what the update computed, and what the steps since the last line took."""


class Observer:
    """Hears of a run's steps; an observer overrides what it wants to hear.

    The state's buffers are donated to the next step: read what you need of it before you return.
    """

    def logged(self, record: Record) -> None:
        """After every `log_every` steps, and before every save."""

    def wants(self, step: int) -> bool:
        """Whether it will be told of this step with its state. Only then is the device waited for."""
        return False

    def stepped(self, step: int, state: TrainState) -> None:
        """After a step that it wants, before it is saved. What it takes is left out of the step's time."""

    def saved(self, step: int, state: TrainState) -> None:
        """After a save of the step was started."""

    def say(self, text: str) -> None:
        """A line for the person who watches."""

    def close(self) -> None:
        """Once, at the end, however the run ends."""


class Observers(Observer):
    """Tells each of several, in their order; closed when the context is left."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def __enter__(self) -> Observers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def logged(self, record: Record) -> None:
        for observer in self._observers:
            observer.logged(record)

    def wants(self, step: int) -> bool:
        return any(observer.wants(step) for observer in self._observers)

    def stepped(self, step: int, state: TrainState) -> None:
        for observer in self._observers:
            if observer.wants(step):
                observer.stepped(step, state)

    def saved(self, step: int, state: TrainState) -> None:
        for observer in self._observers:
            observer.saved(step, state)

    def say(self, text: str) -> None:
        for observer in self._observers:
            observer.say(text)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # one that fails to close keeps no other open
            for observer in self._observers:
                stack.callback(observer.close)
