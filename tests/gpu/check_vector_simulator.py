"""Check the vectorised simulator on a machine with a GPU: `python tests/gpu/check_vector_simulator.py`.

Prints a table and exits with status 1 when a check fails, with 2 when it cannot run here. On a machine without a GPU
`--sim-backend cpu --num-envs 1` runs the same script on one environment.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mani_skill.envs.utils.observations import parse_obs_mode_to_struct

from policy_protocol.errors import ChunkwireError
from sim_client.episode.vector_environment import open_vector_environment
from sim_client.errors import PlanningFailed
from sim_client.simulator import (
    Planner,
    SimulationSettings,
    Simulator,
    VectorObservation,
    VectorSimulator,
    require_backend,
)
from sim_client.tasks import TASKS

SEEDS = tuple(range(1_000_000, 1_004_096))
STATE_LIMIT = 2e-5
"""Metres and radians: poses are stored as float32 beside an offset of up to 40 m for each scene."""
PLANNED = ("PushCube-v1", "PickCube-v1", "StackCube-v1")
"""Tasks that ManiSkill's planner solves nearly always, and whose solutions survive being replayed."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    check: str
    found: str
    passed: bool | None
    """None for what is only measured."""

    def __str__(self) -> str:
        verdict = {True: "ok", False: "FAILED", None: ""}[self.passed]
        return f"{self.task:<22} {self.check:<58} {self.found:<34} {verdict}"


def main() -> int:
    options = _options()
    rows: list[Row] = []
    for env_id in options.env:
        settings = SimulationSettings(
            env_id, sim_backend=options.sim_backend, render_backend=options.render_backend or options.sim_backend
        )
        require_backend(settings, options.num_envs)
        for check in (_starts, _frames, _own_images, _replay, _rates):
            try:
                found = list(check(settings, options.num_envs))
            except (ChunkwireError, RuntimeError, IndexError) as error:
                found = [Row(env_id, check.__name__.strip("_"), f"{type(error).__name__}: {error}", False)]
            for row in found:
                print(row, flush=True)
            rows += found
            gc.collect()
    failed = sum(row.passed is False for row in rows)
    print(f"{sum(row.passed is True for row in rows)} passed, {failed} failed")
    return int(failed > 0)


def _starts(settings: SimulationSettings, most: int) -> Iterator[Row]:
    """An episode starts alike alone, in any place of a batch, beside other seeds, and on the CPU."""
    physics = replace(settings, render_backend="none")
    seeds = list(SEEDS[:most])
    batch = _open(physics, most)
    together = _started(batch, seeds)
    rotated = np.roll(_started(batch, [*seeds[1:], seeds[0]]), 1, axis=0)
    beside_others = _started(batch, [seeds[0], *(seed + 500 for seed in seeds[1:])])[:1]
    batch.close()
    single = _open(physics, 1)
    alone = np.concatenate([_started(single, [seed]) for seed in seeds[:8]])
    single.close()
    on_cpu = _apart(_cpu_starts, physics, seeds[:8])
    yield _compared(settings, "start state: batch against another place in it", together, rotated)
    yield _compared(settings, "start state: batch against other seeds beside it", together[:1], beside_others)
    yield _compared(settings, "start state: batch against alone", together[:8], alone)
    yield _compared(settings, "start state: batch against the CPU's", together[:8], on_cpu)
    if most > 1:
        spread = np.abs(together[1:] - together[:1]).max(axis=1).min()
        yield Row(settings.env_id, "start state: seeds differ", f"{spread:.3g} at least", bool(spread > 1e-3))


def _frames(settings: SimulationSettings, most: int) -> Iterator[Row]:
    """What is rendered on demand is what ManiSkill's own step renders every time."""
    num_envs, steps = min(most, 4), 21
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, 7)).astype(np.float32)
    simulator, on_demand, plain = _open(settings, num_envs), [], []
    simulator.reset(SEEDS[:num_envs])
    for step in range(steps):
        if step % 10 == 0:
            on_demand.append(simulator.observe())
        simulator.step(actions[step])
    simulator._environment._obs_mode = "rgb"  # now its own step observes and renders
    simulator._environment.obs_mode_struct = parse_obs_mode_to_struct("rgb")
    simulator.reset(SEEDS[:num_envs])
    for step in range(steps):
        if step % 10 == 0:
            plain.append(_last_observation(simulator))
        simulator.step(actions[step])
    simulator.close()
    joints = max(
        float(np.abs(one.state["agent/qpos"] - two.state["agent/qpos"]).max())
        for one, two in zip(on_demand, plain, strict=True)
    )
    colours = max(
        float(np.abs(one.images[name].astype(int) - two.images[name]).mean(axis=(1, 2, 3)).max())
        for one, two in zip(on_demand, plain, strict=True)
        for name in one.images
    )
    yield Row(settings.env_id, "render on demand: joints against every step", f"{joints:.3g} apart", joints < 1e-3)
    yield Row(settings.env_id, "render on demand: colours against every step", f"{colours:.3g} of 255", colours < 1.0)


def _own_images(settings: SimulationSettings, most: int) -> Iterator[Row]:
    """Image i is environment i's, also where only some are asked for, and shows no hidden goal."""
    num_envs = min(most, 4)
    simulator = _open(settings, num_envs)
    simulator.reset([SEEDS[env % 2] for env in range(num_envs)])
    everything = simulator.observe().images
    some = simulator.observe(envs=[num_envs - 1]).images
    simulator.close()
    for name, images in everything.items():
        height, width = settings.camera_height, settings.camera_width
        fits = images.shape == (num_envs, height, width, 3) and images.dtype == np.uint8 and images.std() > 1
        yield Row(settings.env_id, f"{name}: shape and contents", f"{images.shape}", bool(fits))
        picked = np.array_equal(some[name][0], images[-1])
        yield Row(settings.env_id, f"{name}: one environment's image is its own", str(picked), picked)
        if num_envs == 4:
            same = np.abs(images[0].astype(int) - images[2]).mean()
            other = np.abs(images[0].astype(int) - images[1]).mean()
            found = f"{same:.3g} same seed, {other:.3g} other"
            yield Row(settings.env_id, f"{name}: same seed looks alike", found, bool(same < 1 and same < other))
    if settings.env_id == "PickCube-v1":
        image = everything["base_camera"].astype(int)
        shown = int(((image[..., 1] > 100) & (image[..., 0] < 40) & (image[..., 2] < 40)).sum())
        yield Row(settings.env_id, "the goal that cameras must not show", f"{shown} green pixels", shown == 0)


def _replay(settings: SimulationSettings, most: int) -> Iterator[Row]:
    """Demonstrations planned on the CPU succeed here, since they start here where they started there."""
    if settings.env_id not in PLANNED:
        return
    physics = replace(settings, render_backend="none")
    plans = _apart(_planned, physics, list(SEEDS[: min(most, 8)]))
    simulator = _open(physics, len(plans))
    simulator.reset(list(plans))
    longest = max(len(actions) for actions in plans.values())
    succeeded = np.zeros(len(plans), bool)
    hold = np.zeros((longest, 7), np.float32)
    padded = [np.concatenate([actions, hold[len(actions) :]]) for actions in plans.values()]
    for actions in padded:  # the gripper's number is a position: keep it
        actions[:, 6] = np.where(np.any(actions != 0, axis=1), actions[:, 6], actions[actions.any(axis=1)][-1, 6])
    for step in range(longest):
        succeeded |= simulator.step(np.stack([actions[step] for actions in padded])).success
    simulator.close()
    found = f"{succeeded.sum()} of {len(plans)}"
    yield Row(settings.env_id, "planned demonstrations that succeed", found, bool(succeeded.mean() >= 0.75))


def _rates(settings: SimulationSettings, most: int) -> Iterator[Row]:
    """Nothing is required of them."""
    for num_envs in sorted({1, min(most, 16), most}):
        simulator = _open(settings, num_envs)
        actions = np.zeros((num_envs, 7), np.float32)
        reset_s = _seconds(lambda sim=simulator, n=num_envs: sim.reset(SEEDS[:n]), 2)
        step_s = _seconds(lambda sim=simulator, actions=actions: sim.step(actions), 20)
        observe_s = _seconds(lambda sim=simulator: sim.observe(), 3)
        simulator.close()
        found = f"{num_envs / step_s:.0f} steps/s, {num_envs / observe_s:.0f} observations/s"
        yield Row(settings.env_id, f"{num_envs} environments", found, None)
        yield Row(settings.env_id, f"{num_envs} environments: reset", f"{reset_s / num_envs:.3f} s an episode", None)


def _open(settings: SimulationSettings, num_envs: int) -> VectorSimulator:
    return open_vector_environment(settings, num_envs)


def _started(simulator: VectorSimulator, seeds: Sequence[int]) -> np.ndarray:
    """Poses and joints of everything at the start, a row for each seed."""
    simulator.reset(seeds)
    return simulator._environment.get_state().cpu().numpy().reshape(len(seeds), -1).copy()


def _last_observation(simulator: VectorSimulator) -> VectorObservation:
    """What ManiSkill itself returned last."""
    seen = simulator._environment._last_obs
    images = {name: data["rgb"].cpu().numpy().copy() for name, data in seen["sensor_data"].items()}
    return VectorObservation(images, {"agent/qpos": seen["agent"]["qpos"].cpu().numpy().copy()})


def _cpu_starts(settings: SimulationSettings, seeds: Sequence[int]) -> np.ndarray:
    simulator, states = Simulator(replace(settings, sim_backend="cpu")), []
    for seed in seeds:
        simulator.reset(seed)
        states.append(simulator._environment.get_state().numpy().reshape(-1).copy())
    return np.stack(states)


def _planned(settings: SimulationSettings, seeds: Sequence[int]) -> dict[int, np.ndarray]:
    planner, plans = Planner(replace(settings, sim_backend="cpu")), {}
    for seed in seeds:
        try:
            plans[seed] = planner.plan(seed)
        except PlanningFailed:
            continue
    return plans


def _apart(work: Callable[..., object], *arguments: object) -> object:
    """In a process of its own: PhysX runs either on the CPU or on the GPU."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _compared(settings: SimulationSettings, check: str, one: np.ndarray, other: np.ndarray) -> Row:
    if one.shape != other.shape:
        return Row(settings.env_id, check, f"{one.shape} against {other.shape}", False)
    apart = float(np.abs(one - other).max())
    return Row(settings.env_id, check, f"{apart:.3g} apart", apart < STATE_LIMIT)


def _seconds(work: Callable[[], object], times: int) -> float:
    work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", default=list(TASKS), help="tasks; by default the project's six")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--sim-backend", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--render-backend", choices=("gpu", "cpu"), help="by default the simulation's")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ChunkwireError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(2)
