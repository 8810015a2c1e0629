"""`sim-client compare` on folders of several tasks' results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from written_results import FIRST, SECOND

from sim_client.errors import InvalidOption
from sim_client.results.comparison import compare, compare_suites
from sim_client.results.comparison.suite_page import suite_markdown

NOT_TRAINED_ON = ("simulation.env_ids",)


@pytest.fixture
def suite(results):
    """Write a folder of several tasks' results: `push` and `stack` are one letter per episode."""

    def write(name: str, **letters: str) -> Path:
        for task, env_id in (("push", "PushCube-v1"), ("stack", "StackCube-v1"), ("pull", "PullCube-v1")):
            if task in letters:
                results(f"{name}/{env_id}", letters[task], env_id=env_id, allow_mismatch=NOT_TRAINED_ON)
        return Path(name)

    return write


def test_every_task_is_compared_with_holms_correction_over_all_of_them_and_together(suite):
    comparison = compare_suites([suite("a", push=FIRST, stack="ffff"), suite("b", push=SECOND, stack="fffs")])
    assert comparison.names == ("a", "b")
    push, stack = comparison.tasks
    assert push.verdicts[0].difference == compare([Path("a/PushCube-v1"), Path("b/PushCube-v1")]).verdicts[0].difference
    assert push.verdicts[0].p_value == pytest.approx(2 * 0.021484375)  # of two tests the smaller p counts twice
    assert stack.verdicts[0].p_value == 1.0
    (together,) = comparison.verdicts
    assert (together.difference.only_first, together.difference.only_second, together.difference.episodes) == (
        1,
        10,
        24,
    )
    assert together.p_value == pytest.approx(2 * (1 + 11) / 2**11)  # McNemar: 10 or more of 11 coins, both tails
    assert comparison.sentence.startswith("Over 2 tasks: b is better by 38 points, 95% [")
    assert comparison.by_task == (
        "Task by task, after Holm's correction: b is better than a on PushCube-v1; "
        "no difference can be told on StackCube-v1."
    )


def test_of_several_policies_the_best_over_all_tasks_comes_first_on_every_task(suite):
    low = suite("low", push="f" * 20, stack="s" * 4 + "f" * 16)
    high = suite("high", push="s" * 20, stack="s" * 3 + "f" * 17)
    middle = suite("middle", push="s" * 8 + "f" * 12, stack="f" * 20)
    comparison = compare_suites([low, middle, high])
    assert comparison.names == ("high", "middle", "low")
    for task in comparison.tasks:
        assert [one.name for one in task.runs] == ["high", "middle", "low"]
    assert len(comparison.verdicts) == 3
    assert "high is better than low on PushCube-v1" in comparison.by_task


def test_tasks_that_not_every_policy_ran_are_left_out_and_named(suite):
    comparison = compare_suites([suite("a", push="sf", pull="ss"), suite("b", push="ss", stack="ff")])
    assert [task.env_id for task in comparison.tasks] == ["PushCube-v1"]
    assert comparison.warnings[:2] == (
        "PullCube-v1 is not compared: of the policies only a ran it.",
        "StackCube-v1 is not compared: of the policies only b ran it.",
    )
    assert comparison.sentence.startswith("PushCube-v1: ")


def test_the_markdown_has_the_rates_of_every_task_and_a_row_for_all_together(suite):
    text = suite_markdown(compare_suites([suite("a", push=FIRST, stack="ffff"), suite("b", push=SECOND, stack="fffs")]))
    assert text.startswith("# Over 2 tasks: b is better by 38 points")
    for line in (
        "| PushCube-v1 | 6/20 = 30% [15%, 52%] | 14/20 = 70% [48%, 85%] |",
        "| StackCube-v1 | 0/4 = 0% [0%, 49%] | 1/4 = 25% [5%, 70%] |",
        "| PushCube-v1 | b | a | 20 paired | +40 [11, 63] | 0.021 | 0.043 |",
        "| all together | b | a | 24 paired | +38 [12, 59] | 0.012 | 0.012 |",
    ):
        assert line in text


def test_the_command_takes_folders_and_prints_the_result_last(suite, sim_client):
    a, b = suite("a", push=FIRST, stack="ffff"), suite("b", push=SECOND, stack="fffs")
    code, output, errors = sim_client("compare", a, b, "--out", "ab.md")
    assert code == 0, errors
    comparison = compare_suites([a, b])
    assert output.splitlines()[-3:] == [comparison.by_task, comparison.sentence, "Markdown: ab.md"]
    assert Path("ab.md").read_text() == suite_markdown(comparison)
    code, output, _ = sim_client("compare", a, b, "--json")
    told = json.loads(output)
    assert (code, told["result"]) == (0, comparison.sentence)
    assert [task["env_id"] for task in told["tasks"]] == ["PushCube-v1", "StackCube-v1"]
    assert told["pairs"][0]["difference"] == pytest.approx(9 / 24)


def test_folders_and_directories_of_one_task_do_not_mix(suite, sim_client):
    suite("a", push="ss"), suite("b", push="ss")
    code, _, errors = sim_client("compare", "a", "b/PushCube-v1")
    assert code == 2
    assert errors == (
        "sim-client: a holds the results of several tasks and b/PushCube-v1 does not. "
        "Name folders of several tasks, or directories of one task.\n"
    )


def test_folders_without_a_task_in_common_are_refused(suite):
    with pytest.raises(InvalidOption, match=r"^a and b have no task in common\. Name folders whose tasks are the same"):
        compare_suites([suite("a", push="ss"), suite("b", stack="ss")])


def test_a_task_twice_in_a_folder_is_refused(suite, results):
    results("a/again", "ss")
    with pytest.raises(InvalidOption, match=r"^a holds two results of PushCube-v1, PushCube-v1 and again: which one"):
        compare_suites([suite("a", push="ss"), suite("b", push="ss")])
