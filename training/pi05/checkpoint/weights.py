"""The weights of a step directory: `params/`, orbax, `{"params": tree}`, each path ending in `value`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.model.params import flatten, unflatten

__all__ = ["as_saved", "read_params"]


def read_params(step: Path, dtype: Any = None) -> dict[str, np.ndarray]:
    """Read the weights as a flat map of host arrays; `value` suffixes are stripped when every path has one.

    Args:
        dtype: cast floating-point leaves on load; None keeps what is on disk.

    Raises:
        CheckpointInvalid: orbax cannot read the directory; the message keeps its reason.
    """
    path = (step / "params").absolute()
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path).item_metadata
            if metadata is None:
                raise ValueError("orbax finds no parameter tree in it")
            tree = metadata.tree
            restore = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype), tree)
            restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore(item=tree, restore_args=restore))
        flat = flatten(restored["params"])
    except Exception as error:  # orbax and tensorstore raise a dozen kinds for a missing or damaged file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointInvalid(
            f"The weights in {path} cannot be read; the checkpoint is damaged or incomplete ({reason[0][:200]}). "
            "Use another step, or copy it again."
        ) from error
    if all(name.endswith("/value") for name in flat):
        flat = {name.removesuffix("/value"): leaf for name, leaf in flat.items()}
    return flat


def as_saved(params: PyTree[Any]) -> PyTree[Any]:
    """The tree as openpi's training writes it: under `params`, each leaf under `value`."""
    return {"params": unflatten({f"{path}/value": leaf for path, leaf in flatten(params).items()})}
