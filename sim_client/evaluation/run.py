"""One whole evaluation: ask for the spec, plan, run what remains, write the report."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from policy_protocol import PolicySpec
from sim_client.ctrl_c import ignoring
from sim_client.episode.environment import open_environment
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.rules import EpisodeRules
from sim_client.episode.video import VideoRules
from sim_client.errors import Interrupted, RecordsError
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.plan import EvaluationPlan, plan_evaluation
from sim_client.evaluation.progress import Progress
from sim_client.evaluation.session import EvaluationSession
from sim_client.evaluation.staff import Staff, require_recordable
from sim_client.evaluation.workshop import EpisodeWorkshop, Opener
from sim_client.results.directory import ResultsDirectory, default_directory
from sim_client.results.options import EvaluationOptions
from sim_client.results.report import write_report
from sim_client.results.run_record import FORMAT, RunRecord
from sim_client.results.shared import SharedDirectory
from sim_client.versions import installed_versions

__all__ = ["run_evaluation"]


def run_evaluation(
    options: EvaluationOptions,
    dial: Dial,
    out: Path | None = None,
    *,
    staff: Staff = Staff(),  # noqa: B008 - frozen
    video: VideoRules = VideoRules(),  # noqa: B008 - frozen
    save_observations: bool = False,
    overwrite: bool = False,
    share: bool = False,
    console: Console,
    open_environment: Opener = open_environment,
) -> Path:
    """Run, or go on with, the evaluation that `options` describe.

    Args:
        dial: reaches the policy.
        out: results directory; by default named after the task, the policy and the seed.
        video: which episodes are filmed.
        save_observations: whether everything that is sent to the policy is kept.
        staff: who runs the episodes; by default worker processes on half of the cores.
        overwrite: delete the results that are there.
        share: other processes may work on the same list at the same time; each of them is to say so.
        console: where progress is shown.
        open_environment: builds a worker's simulator; ManiSkill's by default. Goes to the workers by pickle.

    Returns:
        The results directory. Its report is written, also when the run ends in an error after an episode.

    Raises:
        ChunkwireError: no server, a simulation that does not match, a directory that cannot be used, Ctrl-C …
    """
    dial = replace(dial, jpeg_quality=options.jpeg_quality)
    try:
        run = _planned(options, dial, staff, video, console)
        path = out or default_directory(run)
        directory = SharedDirectory(path, run) if share else ResultsDirectory(path, run, overwrite=overwrite)
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped while setting up. Run the same command again.") from error
    with directory:
        keepsakes = Keepsakes(directory.path.absolute(), video, save_observations)
        workshop = _workshop(directory.run, dial, keepsakes, open_environment, staff.num_envs)
        _finish(directory, workshop, staff, console)
        return directory.path


def _planned(options: EvaluationOptions, dial: Dial, staff: Staff, video: VideoRules, console: Console) -> RunRecord:
    with dial.connect(lambda text: console.print(text, markup=False, soft_wrap=True)) as policy:
        plan = plan_evaluation(policy.spec, options)
        require_recordable(plan.settings, staff, video)
        return _describe(policy.spec, policy.url, options, plan)


def _finish(directory: ResultsDirectory, workshop: EpisodeWorkshop, staff: Staff, console: Console) -> None:
    try:
        if directory.remaining():
            _run_remaining(directory, workshop, staff, console)
    except BaseException:
        if directory.records() and not directory.others():  # else they write one, of more
            with suppress(RecordsError):
                write_report(directory.path)
        raise
    with ignoring(signal.SIGINT, signal.SIGTERM):  # Compose stops the clients that share a list at the first one's end
        write_report(directory.path)


def _run_remaining(directory: ResultsDirectory, workshop: EpisodeWorkshop, staff: Staff, console: Console) -> None:
    run = directory.run
    console.print(f"Setting up {run.options.env_id} for the policy {run.checkpoint} …", markup=False)
    for notice in staff.notices(workshop):
        console.print(f"Note: {notice}", markup=False, soft_wrap=True)
    with Progress(len(run.seeds), directory.records(), console) as progress:
        EvaluationSession(directory, workshop, staff, progress).run()


def _workshop(run: RunRecord, dial: Dial, keepsakes: Keepsakes, opener: Opener, num_envs: int) -> EpisodeWorkshop:
    only_this = replace(dial, spec_hash=run.spec_hash)
    return EpisodeWorkshop(run.settings, _rules(run), keepsakes, only_this, run.options.retries, opener, num_envs)


def _describe(spec: PolicySpec, server: str, options: EvaluationOptions, plan: EvaluationPlan) -> RunRecord:
    return RunRecord(
        format=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=("sim-client", *sys.argv[1:]),
        server=server,
        options=options,
        seeds=plan.seeds,
        settings=plan.settings,
        prompt=plan.prompt,
        execution_horizon=plan.chunk_use.execution_horizon,
        checkpoint=str(spec.policy.checkpoint),
        spec_hash=spec.hash,
        overrides=options.overrides,
        mismatches=plan.mismatches,
        notices=plan.notices,
        versions=installed_versions(),
        spec=spec,
    )


def _rules(run: RunRecord) -> EpisodeRules:
    return EpisodeRules(
        spec=run.spec,
        env_id=run.options.env_id,
        prompt=run.prompt,
        chunk_use=run.options.chunk_use(run.execution_horizon),
        settle_steps=run.options.settle_steps,
        provenance=run.provenance,
    )
