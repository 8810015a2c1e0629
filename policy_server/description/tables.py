"""A checkpoint's description as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from policy_protocol.spec import PolicySpec, SimulationSpec
from policy_server.description.checkpoint import CheckpointDescription
from policy_server.description.stored_weights import StoredWeights

__all__ = ["tables"]

_UNKNOWN = "unknown"


def tables(description: CheckpointDescription) -> Iterator[Table]:
    """Policy, cameras, state, prompt, action and, where there is one, simulation."""
    spec = description.spec
    yield _policy(description)
    yield _cameras(spec)
    yield _state(spec)
    yield _prompt(description)
    yield _action(spec)
    if spec.simulation is not None:
        yield _simulation(spec.simulation)


def _policy(description: CheckpointDescription) -> Table:
    policy = description.spec.policy
    changed = f", not the {policy.norm_stats_hash} that it was trained with" if description.norm_stats_changed else ""
    return _pairs(
        f"{policy.checkpoint}",
        ("path", str(description.path)),
        ("model", policy.family),
        ("weights", _weights(description.weights, policy.parameter_count)),
        ("action chunk", f"{policy.action_horizon} steps, asked again after {policy.execution_horizon}"),
        ("denoising steps", str(policy.denoising_steps)),
        ("normalization", f"{policy.normalization}, norm stats {description.norm_stats_hash}{changed}"),
        ("robot", policy.robot),
        ("dataset", policy.dataset_fingerprint[:16] or _UNKNOWN),
        ("trained with", ", ".join(f"{name} {version}" for name, version in policy.versions.items()) or _UNKNOWN),
        ("spec hash", description.spec.hash),
    )


def _weights(weights: StoredWeights, promised: int) -> str:
    total = weights.parameters
    types = ", ".join(f"{name} {count / total:.0%}" for name, count in sorted(weights.dtypes.items()))
    lora = "with LoRA factors" if weights.lora else "no LoRA"
    differs = "" if weights.lora or total == promised else f" (the spec says {promised:,})"
    return f"{total:,} parameters{differs}, {types}, {lora}; {weights.format}, {decimal(weights.bytes_on_disk)} on disk"


def _cameras(spec: PolicySpec) -> Table:
    table = _table("cameras", "key", "view", "simulator's camera", "size", "", "mean colour")
    for camera in spec.observation.cameras:
        notes = ["required" if camera.required else "optional", *(["black in training"] if camera.all_zero else [])]
        colour = " ".join(f"{value:.0f}" for value in camera.mean) or _UNKNOWN
        size = f"{camera.width}x{camera.height}"
        _row(table, camera.key, camera.slot, camera.simulator_camera or "none", size, ", ".join(notes), colour)
    return table


def _state(spec: PolicySpec) -> Table:
    state = spec.observation.state
    where = f" under {state.key}" if state.key else ""
    table = _table(f"state, {state.dimension} numbers{where}", "dimension", "of", "q01", "q99", "mean", "std")
    dimensions = [(part, place) for part in state.fields for place in range(part.start, part.stop)]
    for index, (part, place) in enumerate(dimensions):
        numbers = [_number(values, index) for values in (state.q01, state.q99, state.mean, state.std)]
        _row(table, f"{part.name} {place}", part.key or part.source or "-", *numbers)
    return table


def _prompt(description: CheckpointDescription) -> Table:
    prompt, buckets = description.spec.observation.prompt, description.prompt_buckets
    padded = "pass --tokenizer to count them" if buckets is None else ", ".join(map(str, buckets))
    return _pairs(
        "prompt",
        ("wire key", prompt.key),
        ("tokens", f"at most {prompt.max_tokens}, padded to: {padded}"),
        ("holds the state", "yes" if prompt.includes_state else "no"),
        ("seen in training", "\n".join(prompt.trained) or _UNKNOWN),
        *([("default", prompt.default)] if prompt.default else []),
    )


def _action(spec: PolicySpec) -> Table:
    action = spec.action
    controller = f" for {action.control_mode}" if action.control_mode else ""
    table = _table(f"action, {action.dimension} numbers{controller}", "name", "low", "high", "q01", "q99", "")
    for index, name in enumerate(action.names):
        numbers = [_number(values, index) for values in (action.low, action.high, action.q01, action.q99)]
        relative = index < len(action.delta_mask) and action.delta_mask[index]
        _row(table, name, *numbers, "relative to the state" if relative else "")
    return table


def _simulation(simulation: SimulationSpec) -> Table:
    lengths = simulation.demonstration_length
    seeds = simulation.demonstration_seeds
    return _pairs(
        "simulation",
        ("environments", ", ".join(simulation.env_ids)),
        ("robot", simulation.robot_uids),
        ("frequencies", f"{simulation.control_freq} Hz actions, {simulation.sim_freq} Hz physics"),
        ("demonstrations", ", ".join(f"{name} {length:.0f}" for name, length in lengths.items()) + " steps"),
        ("demonstrated seeds", f"{len(seeds)}, from {min(seeds)} to {max(seeds)}" if seeds else _UNKNOWN),
        ("episode limit", f"{simulation.max_episode_steps} steps"),
        ("frames", f"every {simulation.frame_stride} steps" if simulation.frame_stride > 1 else "every step"),
    )


def _number(values: Sequence[float], index: int) -> str:
    return f"{values[index]:.4g}" if values else "-"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Cells are text, never markup: a name such as `agent/qpos[0]` would vanish."""
    table.add_row(*(Text(cell) for cell in cells))


def _pairs(title: str, *rows: tuple[str, str]) -> Table:
    table = _table(title, "", "")
    table.show_header = False
    for name, value in rows:
        _row(table, name, value)
    return table
