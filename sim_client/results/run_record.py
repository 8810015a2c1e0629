"""`run.json`: everything that is needed to repeat an evaluation, and to tell whether a rerun is the same one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policy_protocol import PolicySpec
from policy_protocol.errors import SpecInvalid
from policy_protocol.json_tree import from_json, to_json
from sim_client.episode.record import Provenance
from sim_client.errors import RecordsError
from sim_client.files import replacing
from sim_client.results.mismatch import Mismatch
from sim_client.results.options import EvaluationOptions
from sim_client.simulator import SimulationSettings

__all__ = ["FORMAT", "RunRecord"]

FORMAT = "chunkwire-evaluation/2"

_FREE_OPTIONS = ("episodes", "retries")
"""Options that a continued run may change: neither alters what an episode measures."""


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`."""

    format: str
    created: str
    """UTC, ISO 8601."""
    command: tuple[str, ...]
    """The command line as it was typed."""
    server: str
    options: EvaluationOptions
    seeds: tuple[int, ...]
    """The episode seeds in their order, fixed before the first step."""
    settings: SimulationSettings
    """The simulation as it was set up."""
    prompt: str
    execution_horizon: int
    checkpoint: str
    spec_hash: str
    overrides: Mapping[str, str]
    mismatches: tuple[Mismatch, ...]
    """Differences from training that were allowed by name."""
    notices: tuple[str, ...]
    versions: Mapping[str, str]
    spec: PolicySpec
    """The policy's whole spec."""
    extended_from: tuple[int, ...] = ()
    """Earlier numbers of episodes, where a finished run was continued with more."""
    stopped_after: int | None = None
    """Episodes, from the list's beginning, after which `--stop-when-sure` was content; the rest does not count."""
    sure_interval: tuple[float, float] | None = None
    """The anytime-valid 95% interval on success_once at that moment."""

    @property
    def provenance(self) -> Provenance:
        """What every episode record repeats."""
        return Provenance(
            checkpoint=self.checkpoint,
            spec_hash=self.spec_hash,
            run_seed=self.options.run_seed,
            versions=self.versions,
            overrides=self.overrides,
            allowed_mismatches=tuple(mismatch.field for mismatch in self.mismatches),
        )

    @property
    def counted_seeds(self) -> tuple[int, ...]:
        """The episodes whose results count: the whole list, or its beginning up to where the run was sure."""
        return self.seeds[: self.stopped_after]

    @property
    def command_line(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(self.command)

    def differences(self, other: RunRecord) -> tuple[str, ...]:
        """One `name: this, other` line per fact that makes the two runs different measurements."""
        mine, theirs = _facts(self), _facts(other)
        names = sorted(set(mine) | set(theirs))
        return tuple(
            f"{name}: {mine.get(name, 'absent')!s}, now {theirs.get(name, 'absent')!s}"
            for name in names
            if mine.get(name) != theirs.get(name)
        )

    def continued_by(self, other: RunRecord) -> RunRecord:
        """This record with the number of episodes of a rerun, and what its new episodes add to tell.

        Raises:
            RecordsError: the rerun wants fewer episodes than were planned.
        """
        planned, wanted = self.options.episodes, other.options.episodes
        if wanted < planned:
            raise RecordsError(
                f"The run has {planned} planned episodes, and --episodes {wanted} asks for fewer: leaving results out "
                f"afterwards would bend them. Pass --episodes {planned} to resume, --out DIR for a run of its own, "
                "or --overwrite to begin anew."
            )
        options = replace(self.options, episodes=wanted, retries=other.options.retries)
        if wanted == planned:
            return replace(self, options=options)
        mismatches = {mismatch.field: mismatch for mismatch in (*self.mismatches, *other.mismatches)}
        return replace(
            self,
            command=other.command,
            options=options,
            seeds=other.seeds,
            stopped_after=None,
            sure_interval=None,
            mismatches=tuple(mismatches.values()),
            notices=tuple(dict.fromkeys((*self.notices, *other.notices))),
            extended_from=(*self.extended_from, planned),
        )

    def write(self, path: Path) -> None:
        """Write `run.json` so that it is either the old or the new one, never half of one."""
        try:
            with replacing(path) as draft:
                draft.write_text(json.dumps(to_json(self), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise RecordsError(f"{path} cannot be written: {error.strerror or error}.") from error

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a `run.json`. Raises `RecordsError` naming the file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            _require_format(content, path)
            return from_json(cls, content)
        except OSError as error:
            raise RecordsError(
                f"{path} cannot be read: {error.strerror or error}. "
                "Name a directory that `sim-client --env …` wrote (by default results/ENV/RUN)."
            ) from error
        except (ValueError, SpecInvalid) as error:
            raise RecordsError(f"{path} is not the record of an evaluation: {error}") from error


def _require_format(content: Any, path: Path) -> None:
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, str) and written != FORMAT:
        raise RecordsError(
            f"{path} was written by another version of sim-client ({written}; this one writes {FORMAT}). "
            "Pass --out DIR for a run of its own, or --overwrite to replace these results."
        )


def _facts(run: RunRecord) -> dict[str, Any]:
    """Flat name -> value of everything that must stay the same in a continued run."""
    options = {name: value for name, value in to_json(run.options).items() if name not in _FREE_OPTIONS}
    return {
        **{f"option {name}": value for name, value in options.items()},
        **{f"setting {name}": value for name, value in to_json(run.settings).items()},
        **{f"version {name}": value for name, value in run.versions.items()},
        "checkpoint": run.checkpoint,
        "execution horizon": run.execution_horizon,
        "format": run.format,
        "policy spec": run.spec_hash,
        "prompt": run.prompt,
    }
