"""Which leaf a run's parameters came from: lines for a person, and `init.json` in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.initial_params import InitialParams
from training.pi05.model.params import count_params, param_shapes

__all__ = ["report_lines", "write_report"]

_FILE = "init.json"
_GROUPS = ("image tower", "language model", "action expert", "projections")


def report_lines(initial: InitialParams) -> list[str]:
    """Totals for each part of the model, and every fresh leaf by name; nothing for a run from scratch."""
    if initial.base is None:
        return []
    totals = [
        f"init: {group}: {_total(part['taken'])} from {initial.base.source}, {_total(part['fresh'])} fresh"
        for group, part in _groups(initial).items()
    ]
    shapes = param_shapes(initial.model)
    return [*totals, *(f"init: fresh {path} {shapes[path].shape}" for path in initial.fresh)]


def write_report(initial: InitialParams, run: Path) -> None:
    """Write `init.json`: the source, the same totals, and where each leaf came from; nothing for a run from scratch."""
    if initial.base is None:
        return
    origins = {**dict.fromkeys(initial.taken, initial.base.source), **dict.fromkeys(initial.fresh, "fresh")}
    record = {
        "source": initial.base.source,
        "path": str(initial.base.path),
        "kind": initial.base.kind,
        "groups": _groups(initial),
        "leaves": {
            path: {"from": origins[path], "shape": list(leaf.shape)}
            for path, leaf in param_shapes(initial.model).items()
        },
    }
    (run / _FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _groups(initial: InitialParams) -> dict[str, dict[str, Any]]:
    shapes = param_shapes(initial.model)

    def totals(paths: Sequence[str], group: str) -> dict[str, int]:
        leaves = {path: shapes[path] for path in paths if _group(path) == group}
        return {"leaves": len(leaves), "parameters": count_params(leaves)}

    return {group: {"taken": totals(initial.taken, group), "fresh": totals(initial.fresh, group)} for group in _GROUPS}


def _group(path: str) -> str:
    image_tower, language, expert, projections = _GROUPS
    if path.startswith("PaliGemma/img/"):
        return image_tower
    if not path.startswith("PaliGemma/"):
        return projections
    return expert if any(part.endswith("_1") for part in path.split("/")) else language


def _total(part: dict[str, int]) -> str:
    return f"{part['leaves']} {'leaf' if part['leaves'] == 1 else 'leaves'} ({part['parameters']:,} parameters)"
