"""The weights of a step directory: `params/`, orbax, `{"params": tree}`, each path ending in `value`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from training.pi05.checkpoint.step_directory import CheckpointInvalid
from training.pi05.model.params import flatten, unflatten
from training.pi05.placement import Shardings

__all__ = ["as_saved", "read_leaves", "read_params", "stored_shapes"]


def read_params(step: Path, dtype: Any = None, sharding: Shardings | None = None) -> dict[str, np.ndarray | Array]:
    """Read the weights as a flat map; `value` suffixes are stripped when every path has one.

    Args:
        step: the step directory.
        dtype: cast floating-point leaves on load; None keeps what is on disk.
        sharding: where each leaf goes, as a jax array whose devices read their own parts; None gives host arrays.

    Raises:
        CheckpointInvalid: orbax cannot read the directory; the message keeps its reason.
    """
    return read_leaves(step / "params", dtype=dtype, sharding=sharding)


def stored_shapes(directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of every leaf of a `params` directory, without reading it.

    Raises:
        CheckpointInvalid: as `read_params`.
    """
    return _by_path(_stored(directory))


def read_leaves(
    directory: Path, paths: Collection[str] | None = None, dtype: Any = None, sharding: Shardings | None = None
) -> dict[str, np.ndarray | Array]:
    """As `read_params`, from a `params` directory, and only the leaves of `paths` when given.

    Raises:
        CheckpointInvalid: as `read_params`.
    """
    stored = _stored(directory)
    names = {path: name for path, name in zip(_by_path(stored), stored, strict=True) if paths is None or path in paths}
    if not names:
        return {}
    arguments = {name: _argument(path, stored[name], dtype, sharding) for path, name in names.items()}
    request = ocp.args.PyTreeRestore(
        item={"params": unflatten({name: stored[name] for name in arguments})},
        restore_args={"params": unflatten(arguments)},
        partial_restore=True,
    )
    # About two of the largest leaf at a time, or the file would stand in memory beside what is made of it.
    limit = 1 + 2 * max(stored[name].size * stored[name].dtype.itemsize for name in arguments) // 2**30
    with _reasons(directory), closing(ocp.PyTreeCheckpointHandler(restore_concurrent_gb=limit)) as handler:
        restored = flatten(handler.restore(directory.absolute(), args=request)["params"])
    return {path: restored[name] for path, name in names.items()}


def as_saved(params: PyTree[Any]) -> PyTree[Any]:
    """The tree as openpi's training writes it: under `params`, each leaf under `value`."""
    return {"params": unflatten({f"{path}/value": leaf for path, leaf in flatten(params).items()})}


def _stored(directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """The leaves under their names on disk."""
    with _reasons(directory), closing(ocp.PyTreeCheckpointHandler()) as handler:
        tree = handler.metadata(directory.absolute()).tree
        if "params" not in tree:
            raise ValueError(f"it holds {', '.join(map(str, tree)) or 'nothing'} instead of params")
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flatten(tree["params"]).items()}


def _by_path(stored: Mapping[str, Any]) -> dict[str, Any]:
    """openpi's training ends every path in `value`; where only some do, it is a module of that name."""
    if all(name.endswith("/value") for name in stored):
        return {name.removesuffix("/value"): leaf for name, leaf in stored.items()}
    return dict(stored)


def _argument(path: str, leaf: Any, dtype: Any, sharding: Shardings | None) -> ocp.RestoreArgs:
    cast = dtype if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating) else None
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=cast)
    return ocp.ArrayRestoreArgs(sharding=sharding(path, leaf.shape), dtype=cast)


@contextmanager
def _reasons(directory: Path) -> Iterator[None]:
    """orbax and tensorstore raise a dozen kinds for a missing or damaged file."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(" [tensorstore_spec")[0][:300]
        if isinstance(error, PermissionError) or "PERMISSION_DENIED" in str(error):
            raise CheckpointInvalid(
                f"The weights in {directory} may not be read ({reason}). Ask their owner."
            ) from error
        raise CheckpointInvalid(
            f"The weights in {directory} cannot be read; the checkpoint is damaged or incomplete ({reason}). "
            "Use another step, or copy it again."
        ) from error
