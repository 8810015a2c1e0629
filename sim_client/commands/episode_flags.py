"""Flags that say what is measured: which episodes, in which simulation, and how chunks are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from sim_client.commands.pixel_size import parse_size
from sim_client.episode.chunk_use import read_latency
from sim_client.results.options import DEFAULT_SEED, EvaluationOptions

__all__ = ["EpisodeFlags"]


@dataclass(frozen=True)
class EpisodeFlags:
    """Everything but the task, as the command line has it."""

    episodes: Annotated[int, typer.Option(help="Episodes to run; episode i is reset with seed + i.")] = 20
    seed: Annotated[int, typer.Option(help="Seed of the first episode.")] = DEFAULT_SEED
    on_demonstrations: Annotated[
        bool,
        typer.Option(
            "--on-demonstrations",
            help="Run the training demonstrations' own seeds: what a replay reaches, no measure of a policy.",
        ),
    ] = False
    run_seed: Annotated[int, typer.Option(help="Base of the policy's noise.")] = 0
    prompt: Annotated[str | None, typer.Option(help="Instruction, instead of the task's own.")] = None
    robot: Annotated[str | None, typer.Option(help="Robot, instead of the one in the policy's spec.")] = None
    control_mode: Annotated[str | None, typer.Option(help="Controller, instead of the spec's.")] = None
    control_freq: Annotated[int | None, typer.Option(help="Actions per second, instead of the spec's.")] = None
    sim_freq: Annotated[int | None, typer.Option(help="Physics steps per second, instead of the spec's.")] = None
    camera_size: Annotated[
        str | None, typer.Option(help="Pixels, N or HEIGHTxWIDTH, instead of the spec's.", metavar="N|HxW")
    ] = None
    max_episode_steps: Annotated[int | None, typer.Option(help="Episode limit, instead of the spec's.")] = None
    execution_horizon: Annotated[
        int | None, typer.Option(help="Actions of a chunk to run before asking again, instead of the spec's.")
    ] = None
    ensemble: Annotated[
        float | None,
        typer.Option(metavar="M", help="Run the mean of all chunks' actions for a step, the i-th oldest by exp(-M i)."),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option("--async", metavar="STEPS", help="Ask for the next chunk so many steps before this one ends."),
    ] = None
    latency_ms: Annotated[
        str | None,
        typer.Option(metavar="MS|measured", help="Let an answer take so long on the robot's own clock."),
    ] = None
    jpeg_quality: Annotated[
        int | None, typer.Option(help="Send images as JPEG, 1 to 100, over a slow network; the policy sees the loss.")
    ] = None
    settle: Annotated[int, typer.Option(help="Steps to go on after the first success, then end the episode.")] = 10
    run_to_limit: Annotated[
        bool, typer.Option("--run-to-limit", help="Go on to the episode limit after a success (slower).")
    ] = False
    stop_when_sure: Annotated[
        float | None,
        typer.Option(metavar="WIDTH", help="Stop when the anytime-valid 95% interval is this narrow, such as 0.2."),
    ] = None
    allow_mismatch: Annotated[
        list[str] | None,
        typer.Option(help="Run although this spec field differs from training; repeatable.", metavar="FIELD"),
    ] = None
    retries: Annotated[int, typer.Option(help="New attempts for an episode after an infrastructure error.")] = 2
    sim_backend: Annotated[
        str, typer.Option(help="Where physics runs: cpu, or gpu with --num-envs environments at once.")
    ] = "cpu"
    render_backend: Annotated[
        str, typer.Option(help="Where images are rendered: cpu or gpu; none for a policy without cameras.")
    ] = "cpu"

    def options(self, env_id: str) -> EvaluationOptions:
        """The evaluation of `env_id` that is asked for. Raises `InvalidOption`."""
        latency_ms, measured = read_latency(self.latency_ms)
        return EvaluationOptions(
            env_id=env_id,
            episodes=self.episodes,
            seed=self.seed,
            on_demonstrations=self.on_demonstrations,
            run_seed=self.run_seed,
            prompt=self.prompt,
            robot_uids=self.robot,
            control_mode=self.control_mode,
            sim_freq=self.sim_freq,
            control_freq=self.control_freq,
            camera_size=None if self.camera_size is None else parse_size("--camera-size", self.camera_size),
            max_episode_steps=self.max_episode_steps,
            execution_horizon=self.execution_horizon,
            ensemble=self.ensemble,
            overlap=self.overlap,
            latency_ms=latency_ms,
            measured_latency=measured,
            jpeg_quality=self.jpeg_quality,
            settle_steps=None if self.run_to_limit else self.settle,
            stop_when_sure=self.stop_when_sure,
            sim_backend=self.sim_backend,
            render_backend=self.render_backend,
            retries=self.retries,
            allow_mismatch=tuple(self.allow_mismatch or ()),
        )
