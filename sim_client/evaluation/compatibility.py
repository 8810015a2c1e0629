"""Does the simulation match what the policy was trained in? Compared field by field, before the first episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy_protocol import PolicySpec
from policy_protocol.errors import SpecMismatch
from policy_protocol.spec import CameraSpec, SimulationSpec
from sim_client.results.mismatch import Mismatch
from sim_client.results.options import EvaluationOptions
from sim_client.simulator import SimulatorDescription

__all__ = ["camera_path", "camera_size", "environment_mismatches", "option_mismatches", "simulation_of"]

_SIZE_WITHOUT_CAMERAS = (128, 128)
"""For a policy that sees nothing: nothing is rendered, but the simulator wants a size."""
_BOUND_TOLERANCE = 1e-3
"""Controller bounds are float32 and written as decimal text in between."""


def simulation_of(spec: PolicySpec) -> SimulationSpec:
    """The spec's simulation section.

    Raises:
        SpecMismatch: the policy was trained on no simulator, as openpi's released checkpoints are.
    """
    if spec.simulation is None:
        raise SpecMismatch(
            f"The policy {spec.policy.checkpoint} was trained on no ManiSkill simulation (its spec has no simulation "
            "section, as is so for openpi's released checkpoints), so there is nothing to set the simulator up from. "
            "Serve a policy trained on collected demonstrations, or pass `serve --spec FILE` with that section.",
            field="simulation",
        )
    return spec.simulation


def camera_path(camera: CameraSpec) -> str:
    """Where a camera stands in the names that `--allow-mismatch` takes."""
    return f"observation.cameras.{camera.simulator_camera or camera.slot}"


def camera_size(spec: PolicySpec, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of every camera of the simulation: as asked, else the first rendered camera's in training."""
    trained = [(camera.height, camera.width) for camera in spec.observation.cameras if not camera.all_zero]
    return asked or (trained[0] if trained else _SIZE_WITHOUT_CAMERAS)


def option_mismatches(spec: PolicySpec, options: EvaluationOptions) -> tuple[Mismatch, ...]:
    """What the command line alone makes different from training; needs no simulator."""
    simulation = simulation_of(spec)
    chosen = (
        ("simulation.robot_uids", simulation.robot_uids, options.robot_uids, "--robot"),
        ("action.control_mode", spec.action.control_mode, options.control_mode, "--control-mode"),
        ("simulation.sim_freq", simulation.sim_freq, options.sim_freq, "--sim-freq"),
        ("simulation.control_freq", simulation.control_freq, options.control_freq, "--control-freq"),
    )
    found = [
        Mismatch(field, repr(trained), repr(asked), f"Leave {flag} out, or pass {flag} {trained}.")
        for field, trained, asked, flag in chosen
        if asked is not None and asked != trained
    ]
    found += _env_mismatch(simulation, options.env_id)
    found += _camera_sizes(spec, options.camera_size)
    found += _limit_mismatch(simulation, options.max_episode_steps)
    return (*found, *_seed_mismatch(simulation, options))


def environment_mismatches(spec: PolicySpec, simulator: SimulatorDescription) -> tuple[Mismatch, ...]:
    """What the built simulator lacks or does otherwise."""
    return (
        *_missing_cameras(spec.observation.cameras, simulator.cameras),
        *_missing_state(spec, simulator),
        *_action_mismatches(spec, simulator),
    )


def _env_mismatch(simulation: SimulationSpec, env_id: str) -> list[Mismatch]:
    if env_id in simulation.env_ids:
        return []
    known = ", ".join(simulation.env_ids)
    return [Mismatch("simulation.env_ids", known, env_id, f"Pass --env with one of: {known}.")]


def _camera_sizes(spec: PolicySpec, asked: tuple[int, int] | None) -> list[Mismatch]:
    height, width = camera_size(spec, asked)
    return [
        Mismatch(
            f"{camera_path(camera)}.size",
            f"{camera.height}x{camera.width}",
            f"{height}x{width}",
            "Leave --camera-size out." if asked else "The simulator gives all cameras one size.",
        )
        for camera in spec.observation.cameras
        if not camera.all_zero and (camera.height, camera.width) != (height, width)
    ]


def _limit_mismatch(simulation: SimulationSpec, asked: int | None) -> list[Mismatch]:
    limit = asked or simulation.max_episode_steps
    longest = max(simulation.demonstration_length.values(), default=0)
    if limit >= longest:
        return []
    return [
        Mismatch(
            "simulation.max_episode_steps",
            f"demonstrations of up to {longest:g} steps",
            f"a limit of {limit}, which would cut off a perfect policy",
            f"Pass --max-episode-steps {max(simulation.max_episode_steps, int(np.ceil(longest)))}.",
        )
    ]


def _seed_mismatch(simulation: SimulationSpec, options: EvaluationOptions) -> list[Mismatch]:
    if options.env_id not in simulation.env_ids or options.on_demonstrations:
        return []
    seen = sorted(set(simulation.demonstration_seeds) & set(options.seeds))
    if not seen:
        return []
    shown = ", ".join(map(str, seen[:5])) + (", …" if len(seen) > 5 else "")
    return [
        Mismatch(
            "simulation.demonstration_seeds",
            f"seen {len(seen)} of these episodes in training (seeds {shown})",
            f"would measure memory on seeds {options.seeds[0]} to {options.seeds[-1]}",
            f"Pass --seed {max(simulation.demonstration_seeds) + 1}, or another seed beyond the demonstrations.",
        )
    ]


def _missing_cameras(cameras: Sequence[CameraSpec], available: Sequence[str]) -> list[Mismatch]:
    return [
        Mismatch(
            camera_path(camera),
            f"a camera {camera.simulator_camera!r} as {camera.key!r}",
            f"has {', '.join(map(repr, available)) or 'no cameras'}",
            "Pass --robot with a robot that has it (panda_wristcam has hand_camera), or --render-backend cpu.",
            allowable=False,
        )
        for camera in cameras
        if camera.required and not camera.all_zero and camera.simulator_camera not in available
    ]


def _missing_state(spec: PolicySpec, simulator: SimulatorDescription) -> list[Mismatch]:
    found = []
    for part in spec.observation.state.fields:
        width = simulator.state_sources.get(part.source)
        if width is not None and width >= part.stop:
            continue
        has = f"has no {part.source!r}" if width is None else f"has {width} numbers there"
        found.append(
            Mismatch(
                f"observation.state.{part.name}",
                f"{part.source!r}[{part.start}:{part.stop}]",
                has,
                f"Available: {', '.join(f'{name} ({size})' for name, size in simulator.state_sources.items())}.",
                allowable=False,
            )
        )
    return found


def _action_mismatches(spec: PolicySpec, simulator: SimulatorDescription) -> list[Mismatch]:
    dimension = len(simulator.action_low)
    if dimension != spec.action.dimension:
        remedy = "Leave --control-mode and --robot out."
        return [
            Mismatch("action.dimension", f"{spec.action.dimension} numbers", f"{dimension}", remedy, allowable=False)
        ]
    bounds = (
        ("action.low", spec.action.low, simulator.action_low),
        ("action.high", spec.action.high, simulator.action_high),
    )
    return [
        Mismatch(field, _numbers(trained), _numbers(actual), "The controller scales actions otherwise.")
        for field, trained, actual in bounds
        if trained and not np.allclose(trained, actual, atol=_BOUND_TOLERANCE)
    ]


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"
