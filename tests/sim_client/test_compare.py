"""`sim-client compare`: what it sets against each other, what it says, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from written_results import FIRST, SECOND

from sim_client.errors import InvalidOption
from sim_client.results.comparison import compare, markdown
from sim_client.results.directory import ResultsDirectory


def sentence(*directories: Path) -> str:
    return compare(directories).sentence


def test_the_result_is_one_plain_sentence(results):
    assert sentence(results("a", FIRST), results("b", SECOND)) == (
        "b is better by 40 points, 95% [11, 63], p=0.021; 504 more episodes of each would narrow it to ±5."
    )


def test_the_better_run_is_named_whichever_comes_first(results):
    a, b = results("a", FIRST), results("b", SECOND)
    assert sentence(b, a) == sentence(a, b)


def test_a_difference_that_chance_explains_is_none(results):
    assert sentence(results("a", "ssff"), results("b", "sssf")) == (
        "No difference can be told: b is ahead by 25 points, 95% [-36, 70], p=1; 282 more episodes of each would "
        "narrow it to ±5."
    )


def test_where_only_the_exact_test_finds_nothing_both_are_told(results):
    assert sentence(results("a", "s" + "f" * 19), results("b", "f" + "s" * 7 + "f" * 12)).startswith(
        "No difference can be told: b is ahead by 30 points, 95% [3, 54], but p=0.07; "
    )


def test_a_run_against_its_own_copy_differs_by_nothing(results):
    a = results("a", FIRST)
    shutil.copytree(a, "copy")
    comparison = compare([a, Path("copy")])
    (verdict,) = comparison.verdicts
    assert (verdict.difference.value, verdict.difference.p_value) == (0, 1)
    assert comparison.sentence.startswith("No difference can be told: both succeed equally often, 95% [-16, 16], p=1; ")
    assert comparison.warnings == ()


def test_episodes_of_the_same_seed_are_paired_and_the_rest_is_left_out_aloud(results):
    a = results("a", "sseff", seed=0, episodes=6)
    b = results("b", "sfsss", seed=1)
    comparison = compare([a, b])
    (verdict,) = comparison.verdicts
    assert verdict.pair.seeds == (1, 3, 4)
    assert comparison.warnings[0] == (
        "a and b: episodes not compared: 1 that only a was given, 1 that ended in an error in a, "
        "1 that a has still to run."
    )


def test_errors_and_missing_episodes_are_in_no_rate_and_are_said(results):
    comparison = compare([results("a", "ssee"), results("b", "ss", episodes=4)])
    assert str(comparison.runs[0].summary.success_once).startswith("2/2")
    assert comparison.warnings[1:] == (
        "a: 2 of 4 episodes ended in an error and are in no rate. Run its command again to repeat them.",
        "b: 2 of 4 episodes are still to run.",
    )


def test_runs_on_other_seeds_are_compared_unpaired_and_told_so(results):
    comparison = compare([results("a", "s" * 5 + "f" * 15), results("b", "s" * 15 + "f" * 5, seed=100)])
    assert comparison.sentence.startswith("b is better by 50 points, 95% [19, 70], p=0.0038; ")
    assert comparison.warnings == (
        "a and b ran different episodes (0 seeds in common), so they are compared unpaired. Runs on the same seeds "
        "need fewer episodes to be told apart.",
    )


def test_whether_episodes_are_paired_depends_on_the_lists_of_seeds_alone(results):
    half = compare([results("a", "ssss"), results("b", "eeee", seed=2)])
    less = compare([results("c", "ssss"), results("d", "ssss", seed=3)])
    assert half.verdicts[0].pair.paired
    assert half.sentence == "No difference can be told: there is no episode to compare."
    assert not less.verdicts[0].pair.paired


def test_what_differs_beside_the_policy_is_told(results):
    a = results("a", "ssss")
    b = results("b", "ssss", run_seed=3, prompt="Push.", max_episode_steps=25)
    assert compare([a, b]).warnings == (
        "From a to b more than the policy changes: option run_seed: 0, now 3; prompt: Push and move a cube to a goal "
        "region in front of it., now Push.; setting max_episode_steps: 20, now 25.",
    )


def test_naming_what_the_spec_says_anyway_is_no_difference(results):
    assert compare([results("a", "ssss"), results("b", "ssss", max_episode_steps=20)]).warnings == ()


def test_an_extended_run_and_one_that_was_stopped_when_sure_are_marked(results):
    a, b = results("a", "ssss"), results("b", "ssss")
    with ResultsDirectory(b, replace(_run(b), options=replace(_run(b).options, episodes=6), seeds=tuple(range(6)))):
        pass
    stopped = replace(_run(a), stopped_after=3, sure_interval=(0.2, 1.0))
    stopped.write(a / "run.json")
    comparison = compare([a, b])
    assert comparison.verdicts[0].pair.seeds == (0, 1, 2)
    assert comparison.warnings[1:] == (
        "a was stopped when it was sure, after 3 of 4 episodes. Intervals and p-values here assume numbers that were "
        "fixed in advance.",
        "b: 2 of 6 episodes are still to run.",
        "b was planned with 4 episodes and continued to 6. If the first results were the reason, intervals and "
        "p-values are too small.",
    )


def test_a_run_on_training_demonstrations_is_no_measure_of_a_policy(results):
    seen, unseen = results("seen", "ss", on_demonstrations=True), results("unseen", "sf")
    remembered = (
        "seen ran on the training demonstrations: its rate tells what the policy remembers and is no measure of it. "
        "Compare it with nothing but another run on demonstrations."
    )
    found = compare([unseen, seen]).warnings
    assert found[0] == "From unseen to seen more than the policy changes: option on_demonstrations: False, now True."
    assert found[1].startswith("unseen and seen ran different episodes (0 seeds in common)")
    assert found[2:] == (remembered,)
    again = compare([seen, results("other", "ff", on_demonstrations=True)]).warnings
    assert again == (remembered, remembered.replace("seen", "other"))


def test_a_run_that_was_to_stop_when_sure_and_was_not_is_marked(results):
    comparison = compare([results("a", "ssss"), results("b", "ssss", stop_when_sure=0.1)])
    assert comparison.warnings == (
        "b was to stop when it was sure, which it was not yet after 4 episodes. Intervals and p-values here assume "
        "numbers that were fixed in advance.",
    )


def test_an_extension_of_which_nothing_counts_is_not_mentioned(results):
    a, b = results("a", "ssss", stop_when_sure=0.5), results("b", "ssss", stop_when_sure=0.5)
    changes = {"seeds": tuple(range(6)), "extended_from": (4,), "stopped_after": 3, "sure_interval": (0.5, 1.0)}
    replace(_run(a), **changes, options=replace(_run(a).options, episodes=6)).write(a / "run.json")
    told = [line for line in compare([a, b]).warnings if line.startswith("a was")]
    assert told == [
        "a was stopped when it was sure, after 3 of 6 episodes. Intervals and p-values here assume numbers that were "
        "fixed in advance."
    ]


def _run(directory: Path):
    from sim_client.results.directory import read_results

    return read_results(directory)[0]


def several(results) -> Sequence[Path]:
    return [results("low", "f" * 20), results("high", "s" * 18 + "ff"), results("middle", "s" * 16 + "ffff")]


def test_of_several_runs_every_pair_is_tested_with_holms_correction(results):
    comparison = compare(several(results))
    assert [one.name for one in comparison.runs] == ["high", "middle", "low"]
    assert comparison.sentence == (
        "After Holm's correction (p<0.05): high is better than low, middle is better than low. "
        "No difference can be told between high and middle."
    )
    p_values = {(one.ahead, one.pair.first.name): one.p_value for one in comparison.verdicts}
    assert p_values["high", "low"] == pytest.approx(3 * 2 * 0.5**18)
    assert p_values["middle", "low"] == pytest.approx(2 * 2 * 0.5**16)
    assert p_values["high", "middle"] == pytest.approx(0.5)


def test_directories_of_the_same_name_are_told_apart_by_their_path(results):
    Path("x").mkdir(), Path("y").mkdir()
    comparison = compare([results("x/out", "ssss"), results("y/out", "ssss")])
    assert [one.name for one in comparison.runs] == ["x/out", "y/out"]


def test_the_markdown_holds_the_sentence_the_counts_and_the_stages(results):
    text = markdown(compare([results("a", FIRST), results("b", SECOND)]))
    assert text.startswith("# PushCube-v1: b is better by 40 points, 95% [11, 63], p=0.021; 504 more")
    for line in (
        "| a | tiny/test/a | 6/20 = 30% [15%, 52%] | 3/20 = 15% [5%, 36%] |",
        "| a succeeded | 5 | 1 |",
        "| a did not | 9 | 5 |",
        "| is_grasped | 15/20 = 75% [53%, 89%] | 15/20 = 75% [53%, 89%] | +0 [-16, 16] |",
        "| success_once | 6/20 = 30% [15%, 52%] | 14/20 = 70% [48%, 85%] | +40 [11, 63] |",
    ):
        assert line in text


def test_the_markdown_of_several_runs_has_a_row_per_pair(results):
    text = markdown(compare(several(results)))
    assert "| high | middle | 20 paired | +10 [-8, 30] | 0.5 | 0.5 | 121 each |" in text
    assert r"| high | low | 20 paired | +90 [59, 97] | \<0.001 | \<0.001 | 121 each |" in text
    assert "| is_grasped | 20/20 = 100% | 20/20 = 100% | 20/20 = 100% |" in text


def test_the_command_prints_the_sentence_last_and_where_the_markdown_is(results, sim_client):
    a, b = results("a", FIRST), results("b", SECOND)
    code, output, errors = sim_client("compare", a, b, "--out", "ab.md")
    assert code == 0, errors
    assert output.splitlines()[-2:] == [sentence(a, b), "Markdown: ab.md"]
    assert "success_at_end" in output
    assert "Stage by stage" in output
    assert Path("ab.md").read_text() == markdown(compare([a, b]))


def test_the_command_prints_json(results, sim_client):
    code, output, _ = sim_client("compare", results("a", FIRST), results("b", SECOND), "--json")
    assert code == 0
    told = json.loads(output)
    (pair,) = told["pairs"]
    assert told["result"].startswith("b is better by 40 points")
    assert pair["counts"] == {"both": 5, "only_first": 1, "only_second": 9, "neither": 5}
    assert (pair["difference"], pair["paired"], pair["told_apart"]) == (0.4, True, True)
    assert pair["interval_95"] == pytest.approx([0.1053, 0.6300], abs=5e-5)
    assert pair["p_value"] == pytest.approx(0.021484375)
    assert pair["more_episodes_for_5_points"] == 504
    assert pair["stages"]["is_grasped"]["difference"] == 0
    assert told["runs"][0]["success_once"]["successes"] == 6


def test_fewer_than_two_directories_are_refused(results):
    with pytest.raises(InvalidOption, match=r"Name at least two results directories: sim-client compare A B\."):
        compare([results("a", "ssss")])


def test_the_same_directory_twice_is_refused(results):
    a = results("a", "ssss")
    with pytest.raises(InvalidOption, match=r"a and .*/a are the same directory: a run differs from itself by nothing"):
        compare([a, a.resolve()])


def test_runs_of_different_tasks_are_refused(results):
    b = results("b", "ssss", env_id="StackCube-v1", allow_mismatch=("simulation.env_ids",))
    with pytest.raises(InvalidOption, match=r"a measures PushCube-v1 and b measures StackCube-v1: success on diff"):
        compare([results("a", "ssss"), b])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a", "nowhere"), 1, "nowhere/run.json cannot be read: No such file or directory. Name a directory that"),
        ((), 2, "Name at least two results directories: sim-client compare A B."),
        (("a", "b", "--out", "b.txt"), 2, "--out must end in .md, not 'b.txt'. Pass --out b.txt.md."),
        (("a", "b", "--out", "no/b.md"), 1, "--out no/b.md cannot be written: No such file or directory."),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(results, sim_client, arguments, code, message):
    results("a", "ssss")
    results("b", "ssss")
    ended, output, errors = sim_client("compare", *arguments)
    assert (ended, output) == (code, "")
    assert errors.startswith(f"sim-client: {message}")
    assert "Traceback" not in errors
