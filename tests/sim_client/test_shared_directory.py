"""What members of a shared list may do to its directory, and what everybody else is told."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_client.episode.record import EpisodeRecord, Provenance
from sim_client.errors import RecordsError
from sim_client.results import membership
from sim_client.results.directory import ResultsDirectory, read_results
from sim_client.results.mismatch import Mismatch
from sim_client.results.records import read_records
from sim_client.results.run_record import RunRecord
from sim_client.results.shared import SharedDirectory

PROVENANCE = Provenance("tiny/test/9", "hash", 0, {"numpy": "1"}, {}, ())
_SHARED: dict[str, RunRecord] = {}
"""Hypothesis runs a test many times within one fixture's life."""


def record(index: int, outcome: str = "success") -> EpisodeRecord:
    once = outcome == "success"
    return EpisodeRecord(index, index, "PushCube-v1", outcome, once, once, 10, PROVENANCE)  # type: ignore[arg-type]


def kill(member: SharedDirectory) -> None:
    """What the kernel does for a process that is killed: its files are closed, and nothing else happens."""
    file = member._membership._file
    assert file is not None
    file.close()
    member._lock.close()


@pytest.fixture(autouse=True)
def run(describe_run) -> RunRecord:
    _SHARED["run"] = describe_run()
    return _SHARED["run"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_an_episode_is_leased_once_in_the_order_of_the_list(run, out):
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        assert first.lease(1) == ((0, 0),)
        assert second.lease(2) == ((1, 1), (2, 2))
        assert (first.lease(2), first.unleased) == (((3, 3),), 0)
        assert second.lease(2) == ()
        assert second.open() == ((0, 0), (1, 1), (2, 2), (3, 3))


def test_the_leases_of_a_member_that_leaves_or_is_killed_are_free_again(run, out):
    with SharedDirectory(out, run) as staying:
        leaving, killed = SharedDirectory(out, run), SharedDirectory(out, run)
        leaving.lease(1)
        killed.lease(2)
        assert staying.lease(4) == ((3, 3),)
        leaving.close()
        assert staying.lease(4) == ((0, 0),)
        kill(killed)
        assert staying.lease(4) == ((1, 1), (2, 2))
        assert staying.others() == ()


def test_a_record_ends_its_lease_and_is_news_to_the_others(run, out):
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        first.lease(2)
        first.append(record(0))
        assert first.leased == {1}
        assert second.news() == ()
        second.look()
        assert second.news() == (record(0),)
        assert second.news() == ()
        assert second.remaining() == ((1, 1), (2, 2), (3, 3))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_whoever_comes_leaves_or_is_killed_each_episode_gets_one_verdict(seed):
    draw, run = Random(seed).randrange, _SHARED["run"]
    with TemporaryDirectory() as folder:
        members: list[SharedDirectory] = []
        while len(read_records(Path(folder) / "episodes.jsonl")) < len(run.seeds):
            fate = draw(8)
            if not members or (fate == 0 and len(members) < 4):
                members.append(SharedDirectory(Path(folder), run))
                continue
            member = members[draw(len(members))]
            if fate <= 2:
                members.remove(member)
                (kill if fate == 1 else SharedDirectory.close)(member)
            elif fate <= 4 or not member.leased:
                member.lease(1 + draw(2))
            else:
                member.append(record(min(member.leased)))
            at_work = [index for one in members for index in one.leased]
            assert len(at_work) == len(set(at_work))
        for member in members:
            member.close()
        assert sorted(one.seed for one in read_records(Path(folder) / "episodes.jsonl")) == list(run.seeds)


def test_an_error_is_given_up_by_all_members_and_repeated_by_the_next(run, out):
    with SharedDirectory(out, run) as first:
        first.lease(1)
        first.append(record(0, "error"))
        with SharedDirectory(out, run) as late:
            assert late.lease(4) == ((1, 1), (2, 2), (3, 3))
        assert [seed for _, seed in first.remaining()] == [1, 2, 3, 0]
    with SharedDirectory(out, run) as later:
        assert later.lease(4) == ((1, 1), (2, 2), (3, 3), (0, 0))


def test_a_second_verdict_on_an_episode_is_not_written(run, out):
    """A machine that the others could not reach for a while comes back with one that they have run meanwhile."""
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        first.append(record(0))
        second.append(record(0, "timeout"))
        assert read_records(out / "episodes.jsonl") == (record(0),)


def test_the_half_line_of_a_killed_member_is_cut_off_by_the_next_to_write(run, out):
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        first.append(record(0))
        with (out / "episodes.jsonl").open("a") as file:
            file.write('{"index": 1, "se')
        second.look()
        assert [seed for _, seed in second.remaining()] == [1, 2, 3]
        second.append(record(2))
        first.look()
        assert [seed for _, seed in first.remaining()] == [1, 3]
    assert [one.seed for one in read_results(out)[1]] == [0, 2]


def test_a_run_that_was_shared_is_gone_on_with_alone_and_the_other_way_round(run, out):
    with SharedDirectory(out, run) as member:
        member.append(record(0))
    with ResultsDirectory(out, run) as alone:
        assert alone.remaining() == ((1, 1), (2, 2), (3, 3))
        alone.append(record(1))
    with SharedDirectory(out, run) as member:
        assert member.lease(4) == ((2, 2), (3, 3))


def test_what_one_member_learns_of_the_simulator_or_of_the_end_is_in_the_run_of_all(run, out):
    bounds = Mismatch("action.low", "[-1]", "[-2]", "The controller scales actions otherwise.")
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        first.note_mismatches([bounds])
        second.stop_after(2, (0.4, 0.6))
        second.note_mismatches([bounds])
    written = RunRecord.read(out / "run.json")
    assert (written.mismatches, written.stopped_after, written.sure_interval) == ((bounds,), 2, (0.4, 0.6))


def test_a_member_of_another_run_is_refused_with_the_differences(run, describe_run, out):
    message = (
        f"{out} is shared by processes that work on another run:\n  option run_seed: 0, now 1\n"
        "Pass the same flags as they have, or --out DIR for a run of its own."
    )
    with SharedDirectory(out, run) as first:
        with pytest.raises(RecordsError, match=f"^{re.escape(message)}$"):
            SharedDirectory(out, describe_run(run_seed=1))
        assert first.others() == ()


@pytest.mark.parametrize("episodes", [2, 6])
def test_a_member_with_another_number_of_episodes_is_refused(run, describe_run, out, episodes):
    message = (
        f"The processes that share {out} work on 4 episodes, not {episodes}. Pass --episodes 4; once they are done, "
        "the run can be continued with more."
    )
    with SharedDirectory(out, run), pytest.raises(RecordsError, match=f"^{re.escape(message)}$"):
        SharedDirectory(out, describe_run(episodes=episodes))


def test_a_process_that_does_not_share_is_refused_while_others_do(run, out):
    with SharedDirectory(out, run) as first, SharedDirectory(out, run) as second:
        names = ", ".join(sorted([*first.others(), *second.others()]))
        message = (
            f"2 processes share the episodes of {out} ({names}). Pass --share to work on them too, wait for them, or "
            "pass another --out."
        )
        with pytest.raises(RecordsError, match=f"^{re.escape(message)}$"):
            ResultsDirectory(out, run)
    ResultsDirectory(out, run).close()


def test_a_process_that_would_share_is_refused_while_another_one_is_alone(run, out):
    message = (
        rf"^Another process \(id \d+\) is writing to {re.escape(str(out))}\. Wait for it, start it anew with --share "
        r"too, or pass another --out\.$"
    )
    with ResultsDirectory(out, run), pytest.raises(RecordsError, match=message):
        SharedDirectory(out, run)


def test_a_list_that_stays_locked_is_said_to_be(run, out, monkeypatch):
    monkeypatch.setattr(membership, "_PATIENCE_S", 0.1)
    with SharedDirectory(out, run) as member, (out / "members" / ".lock").open("a") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        message = (
            f"The list of episodes in {out} is locked for more than 0 s, where milliseconds are usual: a process that "
            "shares it was stopped, or its disk hangs. End that process, or pass another --out."
        )
        with pytest.raises(RecordsError, match=f"^{re.escape(message)}$"):
            member.lease(1)


def test_overwrite_alone_leaves_nothing_of_killed_members(run, out):
    killed = SharedDirectory(out, run)
    killed.append(record(0))
    kill(killed)
    with ResultsDirectory(out, run, overwrite=True) as alone:
        assert alone.records() == ()
        assert sorted(path.name for path in out.iterdir()) == [".lock", "episodes.jsonl", "run.json"]


def test_overwrite_and_share_exclude_each_other(command):
    error = command("--env", "PushCube-v1", "--share", "--overwrite").error
    assert (error.code, error.message) == (
        "invalid_option",
        "--overwrite cannot be passed with --share: every process that starts would delete what the others have "
        "finished. Delete the results directory first, or pass another --out.",
    )
