"""A worker's connection to the policy over a whole run, which may outlive a server."""

from __future__ import annotations

from collections.abc import Callable

from sim_client.policy_client import Policy

__all__ = ["PolicyLine"]


class PolicyLine:
    """The connection to the policy, dialled when it is needed and again after it was given up.

    Args:
        connect: opens a connection; waits for the server as long as the user allows.
    """

    def __init__(self, connect: Callable[[], Policy]) -> None:
        self._connect = connect
        self._policy: Policy | None = None

    def policy(self) -> Policy:
        """A live connection. Raises what `connect` does."""
        if self._policy is None:
            self._policy = self._connect()
        return self._policy

    def close(self) -> None:
        """Hang up; the next `policy()` dials again."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None
