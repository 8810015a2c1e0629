"""What datasets must have in common to be mixed, and the table that shows where they do not.

A checkpoint states one camera layout, one action space and one control frequency, so a mixture must have one of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.data.errors import DatasetsDiffer
from training.data.lerobot.dataset import Dataset

__all__ = ["check_agreement"]

_ABSENT = "-"


def check_agreement(datasets: Sequence[Dataset]) -> None:
    """Whether the datasets can be mixed. Raises `DatasetsDiffer` with a table of what each of them has."""
    traits = [_traits(dataset) for dataset in datasets]
    names = list(dict.fromkeys(name for each in traits for name in each))
    rows = {name: [each.get(name, _ABSENT) for each in traits] for name in names}
    differing = [name for name, values in rows.items() if len(set(values)) > 1]
    if differing:
        raise DatasetsDiffer(
            f"The datasets differ in {', '.join(differing)}, so they cannot be mixed. Convert them alike, or train on "
            f"one kind (--dataset).\n{_table([str(dataset.root) for dataset in datasets], rows)}"
        )


def _traits(dataset: Dataset) -> dict[str, str]:
    shapes = {key: str(list(dataset.feature(key).shape)) for key in ("state", "actions")}
    return {"fps": f"{dataset.metadata.fps:g}", **shapes, "cameras": _cameras(dataset), **_simulation(dataset)}


def _cameras(dataset: Dataset) -> str:
    sizes = {key: dataset.features[key].image_size for key in sorted(dataset.cameras)}
    return ", ".join(f"{key} {width}x{height}" for key, (height, width) in sizes.items()) or _ABSENT


def _simulation(dataset: Dataset) -> dict[str, str]:
    facts = dataset.facts
    if facts is None:
        return {}
    return {
        "robot": facts.robot_uids,
        "control mode": facts.control_mode,
        "physics Hz": str(facts.sim_freq),
        "state fields": ", ".join(f"{part.source}[{part.start}:{part.stop}]" for part in facts.state_fields),
        "action names": ", ".join(facts.action_names) or _ABSENT,
        "action bounds": str(list(zip(facts.action_low, facts.action_high, strict=False))),
        "frame stride": str(facts.frame_stride),
    }


def _table(titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Aligned columns; a star marks the rows that differ."""
    lines = [("", "", *titles), *(("*" if len(set(cells)) > 1 else "", name, *cells) for name, cells in rows.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
