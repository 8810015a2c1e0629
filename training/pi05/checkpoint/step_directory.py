"""A checkpoint step directory, in openpi's layout: everything that a policy is.

`params/` (orbax, `{"params": tree}`, each path ending in `value`), `assets/<asset id>/norm_stats.json`, and ours:
`assets/policy_spec.json` and `assets/tokenizer.model`. Training adds `train_state/` (training/checkpoints.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from policy_protocol.errors import ChunkwireError
from policy_protocol.spec import PolicySpec
from training.pi05.transforms.normalization import NormStats, read_norm_stats, write_norm_stats
from training.pi05.transforms.tokenizer import Tokenizer

__all__ = [
    "SPEC_FILE",
    "TOKENIZER_FILE",
    "Assets",
    "CheckpointInvalid",
    "find_step",
    "read_assets",
    "write_assets",
]

SPEC_FILE = "policy_spec.json"
TOKENIZER_FILE = "tokenizer.model"


class CheckpointInvalid(ChunkwireError):
    """A path that is not a usable checkpoint step directory."""

    code = "checkpoint_invalid"


@dataclass(frozen=True)
class Assets:
    """What stands beside the weights."""

    asset_id: str
    """Folder of the norm stats; may contain a slash."""
    norm_stats: Mapping[str, NormStats]
    spec: PolicySpec
    tokenizer: Tokenizer


def steps_in(directory: Path) -> list[int]:
    """The numbers of the complete step directories inside a run."""
    if not directory.is_dir():
        return []
    return sorted(
        int(child.name) for child in directory.iterdir() if child.name.isdigit() and (child / "params").is_dir()
    )


def find_step(path: str | os.PathLike[str]) -> Path:
    """Check that a path is a step directory.

    Raises:
        CheckpointInvalid: it does not exist, is a run (offers its steps), or holds no `params`.
    """
    directory = Path(path)
    if not directory.exists():
        raise CheckpointInvalid(f"There is no checkpoint at {directory}. Train one (train --help) or check the path.")
    if (directory / "params").is_dir():
        return directory
    if steps := steps_in(directory):
        offered = ", ".join(str(directory / str(step)) for step in steps[-3:])
        raise CheckpointInvalid(f"{directory} is a run, not a step. Pass one of its steps: {offered}.")
    if directory.name == "params":
        raise CheckpointInvalid(f"{directory} is the inside of a step. Pass the step directory {directory.parent}.")
    raise CheckpointInvalid(
        f"{directory} is not a checkpoint step: it holds no params/. "
        "A step looks like RUN/29999 with params/ and assets/ in it."
    )


def write_assets(directory: Path, assets: Assets) -> None:
    """Write norm stats, spec and tokenizer into an `assets` folder."""
    directory.mkdir(parents=True, exist_ok=True)
    write_norm_stats(directory / assets.asset_id / "norm_stats.json", assets.norm_stats)
    (directory / SPEC_FILE).write_text(assets.spec.to_json(), encoding="utf-8")
    (directory / TOKENIZER_FILE).write_bytes(assets.tokenizer.model)


def read_assets(step: Path, *, spec: PolicySpec | None = None, tokenizer: str | None = None) -> Assets:
    """Read what stands beside the weights; `spec` and `tokenizer` stand in for (or override) the files.

    Raises:
        CheckpointInvalid: a part is missing; names the flag that gives it.
    """
    directory = step / "assets"
    if spec is None:
        if not (directory / SPEC_FILE).exists():
            raise CheckpointInvalid(
                f"{step} has no assets/{SPEC_FILE}, so nothing says what the policy expects. It is probably a stock "
                "openpi checkpoint: pass --spec FILE with its policy spec."
            )
        spec = PolicySpec.read(directory / SPEC_FILE)
    found = sorted(directory.rglob("norm_stats.json"))
    if len(found) != 1:
        listed = ", ".join(str(path.relative_to(step)) for path in found) or "none"
        raise CheckpointInvalid(f"{step} must hold exactly one assets/<asset id>/norm_stats.json; found: {listed}.")
    source = tokenizer or str(directory / TOKENIZER_FILE)
    if tokenizer is None and not Path(source).exists():
        raise CheckpointInvalid(f"{step} has no assets/{TOKENIZER_FILE}. Pass --tokenizer PATH (PaliGemma's, usually).")
    asset_id = found[0].parent.relative_to(directory).as_posix()
    return Assets(asset_id, read_norm_stats(found[0]), spec, Tokenizer.load(source))
