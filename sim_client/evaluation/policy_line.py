"""A worker's connection to the policy over a whole run, which may outlive a server."""

from __future__ import annotations

from collections.abc import Callable

from policy_protocol.errors import SpecMismatch
from sim_client.policy_client import Policy

__all__ = ["PolicyLine"]


class PolicyLine:
    """The connection to the policy, dialled when it is needed and again after it was lost.

    Args:
        connect: opens a connection; waits for the server as long as the user allows.
        spec_hash: of the policy that the run measures.
    """

    def __init__(self, connect: Callable[[], Policy], spec_hash: str) -> None:
        self._connect = connect
        self._policy: Policy | None = None
        self._spec_hash = spec_hash

    def policy(self) -> Policy:
        """A live connection to the run's policy.

        Raises:
            ServerUnavailable: nobody answers any more.
            SpecMismatch: the server has come back with another policy.
        """
        if self._policy is None:
            policy = self._connect()
            if policy.spec.hash != self._spec_hash:
                policy.close()
                raise SpecMismatch(
                    f"The server now serves another policy ({policy.spec.policy.checkpoint}, spec {policy.spec.hash} "
                    f"instead of {self._spec_hash}). The finished episodes are kept: serve the first policy again and "
                    "repeat the command, or evaluate the new one with --out DIR."
                )
            self._policy = policy
        return self._policy

    def close(self) -> None:
        """Hang up; the next `policy()` dials again."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None
