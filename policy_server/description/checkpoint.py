"""Everything about a checkpoint that can be known without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_protocol.json_tree import to_json
from policy_protocol.spec import PolicySpec
from policy_server.description.stored_weights import StoredWeights, stored_weights
from training.pi05.checkpoint.step_directory import TOKENIZER_FILE, Assets, find_step, read_assets
from training.pi05.transforms.normalization import norm_stats_hash
from training.pi05.transforms.observation import trained_prompt_lengths

__all__ = ["CheckpointDescription", "describe"]


@dataclass(frozen=True)
class CheckpointDescription:
    """A step directory, described."""

    path: Path
    spec: PolicySpec
    weights: StoredWeights
    norm_stats_hash: str
    """Of the norm stats that lie in the checkpoint; the spec names those of its training."""
    prompt_buckets: tuple[int, ...] | None
    """Prompt lengths in tokens that a server compiles; None when no tokenizer is at hand to count."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Why `serve` would refuse it."""
        return (self.weights.mismatch,) if self.weights.mismatch else ()

    @property
    def norm_stats_changed(self) -> bool:
        """Whether the norm stats are not those that the spec was written with."""
        return self.spec.policy.norm_stats_hash not in ("", self.norm_stats_hash)

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "path": str(self.path),
            "spec": self.spec.to_wire(),
            "weights": to_json(self.weights),
            "norm_stats_hash": self.norm_stats_hash,
            "norm_stats_changed": self.norm_stats_changed,
            "prompt_buckets": None if self.prompt_buckets is None else list(self.prompt_buckets),
            "problems": list(self.problems),
        }


def describe(checkpoint: Path, spec: str | None = None, tokenizer: str | None = None) -> CheckpointDescription:
    """Describe a step directory.

    Args:
        spec: name or file of a spec that stands in for the checkpoint's own.
        tokenizer: path or URL of a sentencepiece model that stands in for the checkpoint's own.

    Raises:
        CheckpointInvalid, SpecInvalid, NormStatsInvalid: it is no checkpoint, or says what is wrong with which file.
    """
    step = find_step(checkpoint)
    has_tokenizer = tokenizer is not None or (step / "assets" / TOKENIZER_FILE).exists()
    # A stand-in keeps a description from downloading PaliGemma's tokenizer.
    assets = read_assets(step, spec=spec, tokenizer=tokenizer if has_tokenizer else "small")
    return CheckpointDescription(
        path=step,
        spec=assets.spec,
        weights=stored_weights(step, assets.spec),
        norm_stats_hash=norm_stats_hash(assets.norm_stats),
        prompt_buckets=_buckets(assets, has_tokenizer),
    )


def _buckets(assets: Assets, has_tokenizer: bool) -> tuple[int, ...] | None:
    prompt = assets.spec.observation.prompt
    if prompt.trained and not has_tokenizer:
        return None
    lengths = trained_prompt_lengths(assets.spec, assets.tokenizer, prompt.max_tokens)
    return tuple(sorted({*lengths, prompt.max_tokens}))
