"""A checkpoint under the name that its results get."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval_stack.errors import InvalidMatrix

__all__ = ["NAME", "Checkpoint", "require_unique"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What may name a folder, a container and a network."""

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_FLAG = "--checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A step directory and its name.

    Raises:
        InvalidMatrix: the name cannot name a folder, or the directory is no step directory.
    """

    name: str
    directory: Path
    """Absolute, without links."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InvalidMatrix(
                f"The name {self.name!r} of a checkpoint cannot name a folder. Letters, digits, dots, dashes and "
                "underscores can: --checkpoint NAME=DIR.",
                field=_FLAG,
            )
        _require_step_directory(self.directory)

    @classmethod
    def from_flag(cls, value: str) -> Checkpoint:
        """Of `NAME=DIR`, or of `DIR` alone; a directory that has a = in its own path is taken as one."""
        name, equals, directory = value.partition("=")
        if not equals or "/" in name or Path(value).exists():
            return cls.at(Path(value))
        return cls(name, Path(directory).resolve())

    @classmethod
    def at(cls, directory: Path) -> Checkpoint:
        """Named `<run>-<step>` by the end of its path, or by its last part where that is no step."""
        directory = directory.resolve()
        name = f"{directory.parent.name}-{directory.name}" if directory.name.isdigit() else directory.name
        return cls(_UNFIT.sub("-", name), directory)


def require_unique(checkpoints: Iterable[Checkpoint]) -> None:
    """Raises `InvalidMatrix`: two have the same name, or the same directory."""
    by_name: dict[str, Checkpoint] = {}
    by_directory: dict[Path, Checkpoint] = {}
    for one in checkpoints:
        if (other := by_name.setdefault(one.name, one)) is not one:
            raise InvalidMatrix(
                f"Two checkpoints are called {one.name!r}: {other.directory} and {one.directory}. Their results would "
                "share a folder. Name them: --checkpoint NAME=DIR.",
                field=_FLAG,
            )
        if (other := by_directory.setdefault(one.directory, one)) is not one:
            raise InvalidMatrix(
                f"The checkpoints {other.name!r} and {one.name!r} are the same directory, {one.directory}. "
                "Name each once.",
                field=_FLAG,
            )


def _require_step_directory(directory: Path) -> None:
    if not directory.exists():
        raise InvalidMatrix(
            f"The checkpoint {directory} does not exist. Pass --checkpoint with a step directory, such as "
            "runs/EXPERIMENT/RUN/29999.",
            field=_FLAG,
        )
    missing = [f"{name}/" for name in ("params", "assets") if not (directory / name).is_dir()]
    if missing:
        steps = sorted((entry.name for entry in directory.glob("[0-9]*/") if (entry / "params").is_dir()), key=int)
        advice = f"It has the steps {', '.join(steps)}: pass one." if steps else "Pass one that has both."
        raise InvalidMatrix(
            f"{directory} is no step directory of a checkpoint: it has no {' and no '.join(missing)}. {advice}",
            field=_FLAG,
        )
