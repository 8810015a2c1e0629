"""How to reach the policy: what a worker needs to open a connection of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policy_protocol.errors import SpecMismatch
from sim_client.policy_client import PolicyClient

__all__ = ["Dial"]


@dataclass(frozen=True)
class Dial:
    """The addresses and terms of `PolicyClient`; goes to workers by pickle."""

    servers: str
    connect_timeout: float = 30.0
    """Seconds for which servers that do not answer are tried again."""
    reply_timeout: float = 300.0
    """Seconds after which a silent server counts as lost."""
    api_key: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    jpeg_quality: int | None = None
    """Of the images that are sent; None sends pixels. An evaluation sets it from its options."""
    spec_hash: str | None = None
    """Of the only policy that may answer; any by default."""

    @property
    def patience_s(self) -> float:
        """For how long one question may take without any fault of the one who asks: a reply that fails to come, twice
        over on a new connection, and the time to connect each time."""
        return 3 * (self.reply_timeout + self.connect_timeout)

    def connect(self, on_wait: Callable[[str], None] | None = None) -> PolicyClient:
        """Open a connection.

        Raises:
            SpecMismatch: another policy than the one of `spec_hash` is served.
            ChunkwireError: what `PolicyClient` raises.
        """
        policy = self._connect(on_wait)
        if self.spec_hash in (None, policy.spec.hash):
            return policy
        policy.close()
        raise SpecMismatch(
            f"{policy.url} now serves another policy ({policy.spec.policy.checkpoint}, spec {policy.spec.hash} instead "
            f"of {self.spec_hash}). The finished episodes are kept: serve the first policy again and repeat the "
            "command, or pass --out DIR for the new one."
        )

    def _connect(self, on_wait: Callable[[str], None] | None) -> PolicyClient:
        return PolicyClient(
            self.servers,
            connect_timeout=self.connect_timeout,
            reply_timeout=self.reply_timeout,
            api_key=self.api_key,
            tls_ca=self.tls_ca,
            on_wait=on_wait,
            jpeg_quality=self.jpeg_quality,
        )
