"""Short texts that the processes of a run leave for each other, kept by jax's coordination service in process 0."""

from __future__ import annotations

import time

import jax
from jax._src import distributed  # the service's key-value store has no public name; orbax has it from here too

__all__ = ["Noticeboard"]

_POLL_SECONDS = 0.2


class Noticeboard:
    """Needs `jax.distributed.initialize` to have been called; no device is touched."""

    def __init__(self) -> None:
        self._client = distributed.global_state.client
        self.index: int = distributed.global_state.process_id
        """Which process this is; `jax.process_index()` would touch the devices."""
        self.count: int = distributed.global_state.num_processes

    def pin(self, name: str, text: str) -> None:
        """Leave a text; a name is used once."""
        self._client.key_value_set(f"chunkwire/{name}", text)

    def read(self, name: str) -> str | None:
        """A text, or None while it is not there."""
        try:
            text: str = self._client.key_value_try_get(f"chunkwire/{name}")
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise
        return text

    def under(self, folder: str) -> dict[str, str]:
        """All texts whose names begin with `folder/`, by the rest of their names."""
        pinned = self._client.key_value_dir_get(f"chunkwire/{folder}/")
        return {key.rpartition("/")[2]: text for key, text in pinned}

    def wait(self, name: str) -> str:
        """A text, once it is there. Waits in short turns: a signal reaches Python in between."""
        while (text := self.read(name)) is None:
            time.sleep(_POLL_SECONDS)
        return text
