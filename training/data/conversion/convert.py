"""Turns ManiSkill recordings into a LeRobot dataset with its simulation facts and norm stats.

Row t of an episode holds the observation before action t and action t itself, so an episode of T actions has T rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from policy_protocol.spec import StateField
from training.data.conversion.conversion_facts import action_names, camera_key, write_conversion_facts
from training.data.conversion.demonstrations import Demonstrations
from training.data.conversion.episode_parts import EpisodeParts, PartJob, read_part
from training.data.conversion.idle_start import HAND, JOINTS
from training.data.conversion.recording import EpisodeEntry, GivenFacts
from training.data.conversion.state_fields import default_state, field_names, parse_state
from training.data.conversion.workers import prepare_in_order
from training.data.errors import DatasetInvalid, DemonstrationsInvalid
from training.data.lerobot.dataset import FRAME_RENDERED
from training.data.lerobot.facts import DatasetFacts
from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.dataset_writer import DatasetFormat, DatasetWriter, check_output

__all__ = ["convert"]

_SHARED = ("env_id", "robot_uids", "control_mode", "sim_freq", "control_freq", "frame_stride")
_IMAGE_AXES = ("height", "width", "channel")


def convert(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    format: DatasetFormat = "v3.0",
    images: Literal["image", "video"] = "image",
    state: Sequence[str] | None = None,
    given: GivenFacts | None = None,
    drop_idle_start: bool = False,
    include_failures: bool = False,
    overwrite: bool = False,
    workers: int = 1,
) -> DatasetFacts:
    """Convert recordings of one environment to one dataset; returns its facts.

    Args:
        sources: one .h5 file or several, whose episodes follow each other.
        out: the dataset's folder.
        format: LeRobot's `v3.0` or `v2.1`.
        images: frames as PNG inside parquet (exact), or as H.264 video (smaller).
        state: what the state is made of, such as `agent/qpos[0:8]`; by default `default_state` of the environment.
        given: facts that ManiSkill's own recordings do not state.
        drop_idle_start: leave out the steps at an episode's start in which nothing moves (`idle_start`).
        include_failures: also take episodes that did not reach the goal.
        overwrite: replace the dataset at `out`.
        workers: processes that read and encode episodes; with 1 it is this one. Each holds one episode in memory.

    A conversion that was killed goes on with the next episode when it is called again with the same arguments.

    Raises:
        DemonstrationsInvalid: a recording is missing, damaged, empty, or disagrees with the others.
        OutputExists: `out` exists.
        ConversionStopped: a worker died.
    """
    check_output(Path(out), overwrite)
    paths = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    with ExitStack() as stack:
        recordings = [stack.enter_context(Demonstrations(Path(path), given)) for path in paths]
        _check_agreement(recordings)
        first = recordings[0]
        fields = parse_state(state or default_state(first.recording.env_id), first.widths)
        if drop_idle_start:
            _require_motion(recordings)
        episodes = _choose(recordings, include_failures)
        strided = any(demonstrations.strided for demonstrations in recordings)
        features = _features(first, fields, images, strided)
        encode, sources = images == "image", [part.recording.path for part in recordings]
        parts = EpisodeParts(Path(out), sources, fields, drop_idle_start, encode)
        jobs = [
            PartJob(owner.recording.path, given, entry, fields, drop_idle_start, encode, parts.path(index, entry))
            for owner, entry in episodes
            for index in [recordings.index(owner)]
        ]
        writer = DatasetWriter(
            out,
            version=format,
            fps=first.recording.control_freq,
            robot_type=first.recording.robot_uids,
            features=features,
            overwrite=overwrite,
        )
        with writer, _no_parts_after_an_error(parts):
            with prepare_in_order(jobs, workers) as prepared:
                for (owner, _), path in zip(episodes, _with_progress(prepared, len(jobs)), strict=True):
                    _add(writer, path, owner.recording.prompt, strided)
            writer.write_metadata()
            steps = sum(owner.steps(entry) for owner, entry in episodes)
            facts = write_conversion_facts(writer, recordings, fields, [entry for _, entry in episodes], steps)
            writer.commit()
        parts.remove()
    return facts


@contextmanager
def _no_parts_after_an_error(parts: EpisodeParts) -> Iterator[None]:
    """A damaged recording will not get better; an interruption goes on."""
    try:
        yield
    except (DemonstrationsInvalid, DatasetInvalid):
        parts.remove()
        raise


def _choose(recordings: Sequence[Demonstrations], include_failures: bool) -> list[tuple[Demonstrations, EpisodeEntry]]:
    episodes = [
        (demonstrations, entry)
        for demonstrations in recordings
        for entry in (demonstrations.recording.episodes if include_failures else demonstrations.successes())
    ]
    if not episodes:
        raise DemonstrationsInvalid(
            f"No episode of {recordings[0].recording.path} reached the goal. Pass --include-failures to take them."
        )
    return episodes


def _check_agreement(recordings: Sequence[Demonstrations]) -> None:
    first = recordings[0]
    for other in recordings[1:]:
        for name in _SHARED:
            _agree(first, other, name, getattr(first.recording, name), getattr(other.recording, name))
        for name in ("cameras", "action_dim"):
            _agree(first, other, name, getattr(first, name), getattr(other, name))
        for camera in first.cameras:
            _agree(first, other, f"size of {camera}", first.image_size(camera), other.image_size(camera))


def _require_motion(recordings: Sequence[Demonstrations]) -> None:
    for demonstrations in recordings:
        for source in (JOINTS, HAND):
            if source not in demonstrations.widths:
                raise DemonstrationsInvalid(
                    f"{demonstrations.recording.path} has no {source!r}, so nothing says when the robot begins to "
                    "move. Leave out --drop-idle-start."
                )


def _agree(first: Demonstrations, other: Demonstrations, name: str, expected: object, found: object) -> None:
    if expected != found:
        raise DemonstrationsInvalid(
            f"{first.recording.path} has {name} {expected!r} but {other.recording.path} has {found!r}. One dataset "
            "holds recordings of one kind: convert them into two."
        )


def _features(
    demonstrations: Demonstrations, fields: Sequence[StateField], images: str, strided: bool
) -> dict[str, Feature]:
    names, state_names = action_names(demonstrations), field_names(fields)
    cameras = {
        camera_key(camera): Feature(images, (*demonstrations.image_size(camera), 3), _IMAGE_AXES)
        for camera in demonstrations.cameras
    }
    features = {
        **cameras,
        "state": Feature("float32", (len(state_names),), state_names),
        "actions": Feature("float32", (len(names),), names),
    }
    return {**features, FRAME_RENDERED: Feature("bool", (1,))} if strided else features


def _with_progress(prepared: Iterator[Path], total: int) -> Iterator[Path]:
    columns = (
        TextColumn("Converting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(prepared, total=total)


def _add(writer: DatasetWriter, part: Path, prompt: str, strided: bool) -> None:
    columns, frames = read_part(part)
    rendered = columns.pop(FRAME_RENDERED)
    if strided:
        columns[FRAME_RENDERED] = rendered[:, None]
    writer.add_episode(columns, {camera_key(camera): shown for camera, shown in frames.items()}, prompt)
