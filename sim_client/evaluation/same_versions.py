"""A worker on another machine simulates the same only with the same packages."""

from __future__ import annotations

from collections.abc import Mapping

from sim_client.errors import WorkersFailed

__all__ = ["require_same_versions"]


def require_same_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Raises `WorkersFailed` naming every package of which a worker has another version than the run's record says."""
    different = [
        f"{name} {theirs.get(name, 'missing')} instead of {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    if different:
        raise WorkersFailed(
            f"A worker's machine has other packages than this one: {', '.join(different)}. Its episodes would be "
            "measurements of another simulation. Install the same versions everywhere."
        )
