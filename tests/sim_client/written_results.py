"""Results directories that hold whatever outcomes a test asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.results.directory import ResultsDirectory
from sim_client.results.run_record import RunRecord

__all__ = ["FIRST", "SECOND", "write_results"]

# 20 episodes: both succeed in 5, only the first run in 1, only the second in 9, none in 5.
FIRST = "s" * 5 + "s" * 1 + "f" * 9 + "t" * 5
SECOND = "s" * 5 + "f" * 1 + "s" * 9 + "t" * 5

_PROVENANCE = Provenance("tiny/test/9", "hash", 0, {}, {}, ())
_LETTERS = {"s": "success", "f": "failure", "t": "timeout", "e": "error"}


def write_results(describe_run: Callable[..., RunRecord], name: str, letters: str, **options: object) -> Path:
    """Write the directory `name`, one letter per episode: `s`uccess, `f`ailure, `t`imeout or `e`rror."""
    run = describe_run(**{"episodes": len(letters), **options})
    run = replace(run, checkpoint=f"tiny/test/{name}")
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with ResultsDirectory(Path(name), run) as directory:
        for index, (seed, letter) in enumerate(zip(run.seeds, letters, strict=False)):
            directory.append(_episode(index, seed, letter, run.options.env_id))
    return Path(name)


def _episode(index: int, seed: int, letter: str, env_id: str) -> EpisodeRecord:
    once = letter == "s"
    stages = {"is_grasped": None if letter == "t" else 3}
    return EpisodeRecord(
        index, seed, env_id, _LETTERS[letter], once, once and index % 2 == 0, 10, _PROVENANCE, stages=stages
    )
