"""One whole evaluation: ask for the spec, plan, set the simulator up, run what remains, write the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from sim_client.episode.environment import Environment, open_environment
from sim_client.episode.runner import EpisodeRules
from sim_client.errors import Interrupted, RecordsError
from sim_client.evaluation.acceptance import require_compatible
from sim_client.evaluation.compatibility import environment_mismatches
from sim_client.evaluation.plan import EvaluationPlan, plan_evaluation
from sim_client.evaluation.policy_line import PolicyLine
from sim_client.evaluation.progress import Progress
from sim_client.evaluation.runner import Evaluation
from sim_client.policy_client import PolicyClient
from sim_client.results.directory import ResultsDirectory, default_directory
from sim_client.results.options import EvaluationOptions
from sim_client.results.report import write_report
from sim_client.results.run_record import FORMAT, RunRecord
from sim_client.simulator import SimulationSettings
from sim_client.versions import installed_versions

__all__ = ["run_evaluation"]

_Opener = Callable[[SimulationSettings], Environment]


def run_evaluation(
    options: EvaluationOptions,
    connect: Callable[[], PolicyClient],
    out: Path | None = None,
    *,
    overwrite: bool = False,
    console: Console,
    open_environment: _Opener = open_environment,
) -> Path:
    """Run, or go on with, the evaluation that `options` describe.

    Args:
        connect: opens a connection to the policy server; used again when the connection is lost.
        out: results directory; by default named after the task, the policy and the seed.
        overwrite: delete the results that are there.
        console: where progress is shown.
        open_environment: builds the simulator; ManiSkill's by default.

    Returns:
        The results directory. Its report is written, also when the run ends in an error after an episode.

    Raises:
        ChunkwireError: no server, a simulation that does not match, a directory that cannot be used, Ctrl-C …
    """
    try:
        policy = connect()
        line = PolicyLine(connect, policy)
        with closing(line):
            run = _describe(policy, options, plan_evaluation(policy.spec, options))
            with ResultsDirectory(out or default_directory(run), run, overwrite=overwrite) as directory:
                _finish(directory, line, console, open_environment)
                return directory.path
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped while setting up. Run the same command again.") from error


def _finish(directory: ResultsDirectory, line: PolicyLine, console: Console, opener: _Opener) -> None:
    try:
        if directory.remaining():
            _run_remaining(directory, line, console, opener)
    except BaseException:
        if directory.records():
            with suppress(RecordsError):
                write_report(directory.path)
        raise
    write_report(directory.path)


def _run_remaining(directory: ResultsDirectory, line: PolicyLine, console: Console, opener: _Opener) -> None:
    run = directory.run
    console.print(f"Setting up {run.options.env_id} for the policy {run.checkpoint} …", markup=False)
    environment = opener(run.settings)
    try:
        found = environment_mismatches(run.spec, environment)
        directory.note_mismatches(require_compatible(found, run.options.allow_mismatch, run.spec))
        for text in (*map(str, directory.run.mismatches), *run.notices):
            console.print(f"Note: {text}", markup=False, soft_wrap=True)
        with Progress(run.options.episodes, directory.records(), console) as progress:
            Evaluation(directory, _rules(directory.run), environment, line, progress).run()
    finally:
        environment.close()


def _describe(policy: PolicyClient, options: EvaluationOptions, plan: EvaluationPlan) -> RunRecord:
    return RunRecord(
        format=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=("sim-client", *sys.argv[1:]),
        server=policy.url,
        options=options,
        seeds=plan.seeds,
        settings=plan.settings,
        prompt=plan.prompt,
        execution_horizon=plan.execution_horizon,
        checkpoint=str(policy.spec.policy.checkpoint),
        spec_hash=policy.spec.hash,
        overrides=options.overrides,
        mismatches=plan.mismatches,
        notices=plan.notices,
        versions=installed_versions(),
        spec=policy.spec,
    )


def _rules(run: RunRecord) -> EpisodeRules:
    return EpisodeRules(
        spec=run.spec,
        env_id=run.options.env_id,
        prompt=run.prompt,
        execution_horizon=run.execution_horizon,
        settle_steps=run.options.settle_steps,
        provenance=run.provenance,
    )
