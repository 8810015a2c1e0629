"""From the flags to the policy that is served, and to what keeps it up to date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from policy_server.log import log
from policy_server.options import OptionsInvalid

if TYPE_CHECKING:
    from policy_server.follow import Follower
    from training.pi05.policy import Policy

__all__ = ["ModelSource"]


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint or a run that trains, and where its weights go."""

    checkpoint: str | None
    follow: Path | None
    on_request: bool
    """Whether the steps of `follow` are loaded when a client asks for them, instead of as they come."""
    spec: str | None
    tokenizer: str | None
    dtype: str | None
    attention: str
    devices: int
    shard: bool
    compile_cache: Path | None

    def load(self) -> tuple[Policy, Follower | None]:
        """The policy, loaded, and what keeps it up to date."""
        import jax  # takes seconds, so it is loaded when there is something to serve

        from policy_server.follow import Follower, first_step
        from training.pi05.compile_cache import use_compile_cache
        from training.pi05.load import load_policy, reload_policy

        use_compile_cache(self.compile_cache)
        if self.devices > len(jax.devices()):
            kinds = ", ".join(sorted({device.device_kind for device in jax.devices()}))
            raise OptionsInvalid(f"--devices {self.devices}, but this machine has {len(jax.devices())} ({kinds}).")
        source = first_step(self.follow) if self.follow is not None else self.checkpoint
        assert source is not None
        policy = load_policy(
            source,
            spec=self.spec,
            tokenizer=self.tokenizer,
            dtype=self.dtype,
            attention=self.attention,  # type: ignore[arg-type]
            devices=jax.devices()[: self.devices],
            shard=self.shard,
        )
        log.info("loaded %s: %s, %s parameters", source, policy.model.family, f"{policy.parameter_count:,}")
        if self.follow is None:
            return policy, None

        def reload(step: Path) -> None:
            reload_policy(policy, step, spec=self.spec, tokenizer=self.tokenizer)

        return policy, Follower(policy, self.follow, reload, on_request=self.on_request)
