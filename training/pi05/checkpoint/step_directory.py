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
from training.pi05.checkpoint.pytorch_files import PYTORCH_FILE, is_safetensors
from training.pi05.released import RELEASED, find_spec
from training.pi05.transforms.normalization import NormStats, read_norm_stats, write_norm_stats
from training.pi05.transforms.tokenizer import Tokenizer

__all__ = [
    "EXPERIMENT_FILE",
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
EXPERIMENT_FILE = "experiment.json"
"""What the run computed that trained the step; also in the run's folder."""


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
    return sorted(int(child.name) for child in directory.iterdir() if child.name.isdigit() and _is_step(child))


def _is_step(directory: Path) -> bool:
    return directory.is_dir() and ((directory / "params").is_dir() or is_safetensors(directory))


def find_step(path: str | os.PathLike[str]) -> Path:
    """Check that a path is a step directory.

    Raises:
        CheckpointInvalid: it does not exist, is a run (offers its steps), or holds no weights.
    """
    directory = Path(path)
    if not directory.exists():
        raise CheckpointInvalid(f"There is no checkpoint at {directory}. Train one (train --help) or check the path.")
    if _is_step(directory):
        return directory
    if steps := steps_in(directory):
        offered = ", ".join(str(directory / str(step)) for step in steps[-3:])
        raise CheckpointInvalid(f"{directory} is a run, not a step. Pass one of its steps: {offered}.")
    if directory.name == "params":
        raise CheckpointInvalid(f"{directory} is the inside of a step. Pass the step directory {directory.parent}.")
    raise CheckpointInvalid(
        f"{directory} is not a checkpoint step: it holds neither params/ nor {PYTORCH_FILE}. "
        "A step looks like RUN/29999 with params/ and assets/ in it."
    )


def write_assets(directory: Path, assets: Assets) -> None:
    """Write norm stats, spec and tokenizer into an `assets` folder."""
    directory.mkdir(parents=True, exist_ok=True)
    write_norm_stats(directory / assets.asset_id / "norm_stats.json", assets.norm_stats)
    (directory / SPEC_FILE).write_text(assets.spec.to_json(), encoding="utf-8")
    (directory / TOKENIZER_FILE).write_bytes(assets.tokenizer.model)


def read_assets(
    step: Path, *, spec: PolicySpec | str | os.PathLike[str] | None = None, tokenizer: str | None = None
) -> Assets:
    """Read what stands beside the weights; `spec` and `tokenizer` stand in for (or override) the files.

    Args:
        spec: a spec, its file, or the name of a released policy (`released.py`).
        tokenizer: name, path or URL. Without it: the checkpoint's own, else the one that the spec names.

    Raises:
        CheckpointInvalid: a part is missing (names the flag that gives it), or the norm stats do not cover the spec.
        SpecInvalid: `spec` is neither a file nor a name.
    """
    directory = step / "assets"
    found_spec = _spec_in(step) if spec is None else find_spec(spec)
    path = _norm_stats_path(step, found_spec.policy.asset_id)
    own_tokenizer = directory / TOKENIZER_FILE
    by_default = str(own_tokenizer) if own_tokenizer.exists() else found_spec.observation.prompt.tokenizer
    source = tokenizer or by_default
    if not source:
        raise CheckpointInvalid(f"{step} has no assets/{TOKENIZER_FILE}. Pass --tokenizer PATH (PaliGemma's, usually).")
    norm_stats = read_norm_stats(path)
    _check_coverage(path.parent, norm_stats, found_spec)
    asset_id = path.parent.relative_to(directory).as_posix()
    return Assets(asset_id, norm_stats, found_spec, Tokenizer.load(source))


def _spec_in(step: Path) -> PolicySpec:
    path = step / "assets" / SPEC_FILE
    if not path.exists():
        raise CheckpointInvalid(
            f"{step} has no assets/{SPEC_FILE}, so nothing says what the policy expects. It is probably a stock "
            f"openpi checkpoint: pass --spec with the name of its policy ({', '.join(RELEASED)}) or with a spec file."
        )
    return PolicySpec.read(path)


def _norm_stats_path(step: Path, asset_id: str) -> Path:
    found = sorted((step / "assets").rglob("norm_stats.json"))
    listed = ", ".join(str(path.relative_to(step)) for path in found) or "none"
    if asset_id:
        path = step / "assets" / asset_id / "norm_stats.json"
        if path not in found:
            raise CheckpointInvalid(
                f"{step} has no norm stats for {asset_id!r}, the asset id that the spec names; found: {listed}. "
                "Pass --spec with the spec of this checkpoint, or a file with another policy.asset_id."
            )
        return path
    if len(found) != 1:
        raise CheckpointInvalid(f"{step} must hold exactly one assets/<asset id>/norm_stats.json; found: {listed}.")
    return found[0]


def _check_coverage(directory: Path, norm_stats: Mapping[str, NormStats], spec: PolicySpec) -> None:
    for name, width in (("state", spec.observation.state.dimension), ("actions", spec.action.dimension)):
        stats = norm_stats.get(name)
        if stats is None or stats.dimension < width:
            found = "no entry" if stats is None else f"{stats.dimension} dimensions"
            raise CheckpointInvalid(
                f"The norm stats in {directory} have {found} for {name!r}, but the spec has {width}. "
                "They belong to another policy."
            )
