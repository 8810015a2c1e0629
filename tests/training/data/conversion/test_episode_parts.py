"""Episodes are prepared in several processes and never twice."""

import os
from pathlib import Path

import numpy as np
import pytest

from training.data import ConversionStopped, Dataset, convert, fingerprint
from training.data.conversion import episode_parts, workers
from training.data.conversion.episode_parts import prepare_part


def frames(rows):
    return {"rgb": np.random.default_rng(rows).integers(0, 256, (rows, 6, 8, 3), dtype=np.uint8)}


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_two_processes_write_what_one_writes(record, tmp_path):
    recording = record((5, 7, 4, 6), frames)
    convert(recording, tmp_path / "alone")
    convert(recording, tmp_path / "together", workers=2)
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "pull.h5", "pull.json", "together"]


def test_an_interrupted_conversion_goes_on_with_the_next_episode(record, tmp_path, monkeypatch):
    recording = record((5, 7, 4), frames)
    prepared = []

    def interrupted(job):
        if len(prepared) == 2:
            raise KeyboardInterrupt
        prepared.append(job.entry.group)
        return prepare_part(job)

    monkeypatch.setattr(workers, "prepare_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(recording, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()

    read, reader = [], episode_parts.Demonstrations.read
    monkeypatch.setattr(
        episode_parts.Demonstrations,
        "read",
        lambda self, entry, fields, **how: read.append(entry.group) or reader(self, entry, fields, **how),
    )
    convert(recording, tmp_path / "out")
    assert (prepared, read) == (["traj_0", "traj_1"], ["traj_2"])
    convert(recording, tmp_path / "again")
    assert fingerprint(Dataset(tmp_path / "out")) == fingerprint(Dataset(tmp_path / "again"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out", "pull.h5", "pull.json"]


def test_parts_of_a_recording_that_changed_since_are_not_used(record, tmp_path, monkeypatch):
    recording = record((5,), frames)
    monkeypatch.setattr(episode_parts.EpisodeParts, "remove", lambda self: None)
    convert(recording, tmp_path / "out")
    recording = record((9,), frames)
    os.utime(recording, ns=(1, 1))
    convert(recording, tmp_path / "out", overwrite=True)
    assert Dataset(tmp_path / "out").rows == 9
    assert len(list((tmp_path / ".out.parts").iterdir())) == 1


class Deadly(type(Path())):
    """Ends the process that it is sent to."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_is_reported(record, tmp_path, monkeypatch):
    monkeypatch.setattr(episode_parts.EpisodeParts, "path", lambda self, index, entry: Deadly(tmp_path / entry.group))
    with pytest.raises(ConversionStopped, match=r"A worker process died, .* the same command again, with fewer --work"):
        convert(record((5, 7), frames), tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()
