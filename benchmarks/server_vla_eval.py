"""vla-eval's model server around the same fixed cost, for comparison: run by a Python that has vla-eval 0.8.0.

    python benchmarks/server_vla_eval.py PORT BASE_MS ROW_MS MAX_BATCH

It batches across clients; its grace period after each batch is left at its default of 10 ms.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve

_ACTIONS = np.zeros((20, 7))


class FixedCost(PredictModelServer):
    """Sleeps as long as the device takes for the rows that there are."""

    def __init__(self, base_ms: float, row_ms: float, max_batch: int) -> None:
        super().__init__(max_batch_size=max_batch)
        self._base_ms, self._row_ms = base_ms, row_ms

    def predict_batch(self, obs_batch: list, ctx_batch: list) -> list:
        """Zeros for each row."""
        if self._base_ms or self._row_ms:
            time.sleep((self._base_ms + self._row_ms * len(obs_batch)) / 1e3)
        return [{"actions": _ACTIONS}] * len(obs_batch)

    def get_action_spec(self) -> dict:
        """None is declared."""
        return {}

    def get_observation_spec(self) -> dict:
        """None is declared."""
        return {}


if __name__ == "__main__":
    port, base_ms, row_ms, max_batch = sys.argv[1:]
    serve(FixedCost(float(base_ms), float(row_ms), int(max_batch)), host="127.0.0.1", port=int(port))
