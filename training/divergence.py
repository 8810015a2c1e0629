"""The end of a run whose numbers are none any more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from training.parallel.processes import EndedTogether
from training.parallel.sharding import local_rows
from training.samples import Samples

__all__ = ["Diverged", "stop_if_diverged"]


class Diverged(EndedTogether):
    """The loss, the gradient or the parameters became NaN or infinite."""

    code = "diverged"


def stop_if_diverged(record: Mapping[str, float], directory: Path, samples: Samples) -> None:
    """Save the batch in the run's folder, each process its rows, and raise `Diverged` if a step's numbers are not
    finite."""
    wrong = [name for name in ("loss", "grad_norm", "param_norm") if not np.isfinite(record[name])]
    if not wrong:
        return
    own = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
    batch = directory / f"diverged_batch{own}.npz"
    leaves, _ = jax.tree.flatten_with_path(samples)
    np.savez(batch, **{jax.tree_util.keystr(path): local_rows(leaf) for path, leaf in leaves})
    raise Diverged(
        f"{wrong[0]} is {record[wrong[0]]} at step {int(record['step'])}; it became so since the last logged step. "
        f"The batch of this step is saved in {batch}. Go on from the last checkpoint with a lower rate: "
        "--resume --set optimizer.peak_lr=…"
    )
