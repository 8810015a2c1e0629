"""Recipes: what `make policy` is told, and what it may share with another recipe or an earlier version."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from training.cli import main
from training.data.conversion.state_fields import parse_state
from training.experiment import override
from training.experiments import find_experiment, find_recipe, recipe_names
from training.recipe import Recipe

MAKEFILE = Path(__file__).parents[2] / "Makefile"
WIDTHS = {"agent/qpos": 9, "agent/qvel": 9, "extra/tcp_pose": 7, "extra/goal_pos": 3}
PUSHCUBE = find_recipe("pushcube")


def variables(recipe: Recipe) -> dict[str, str]:
    return dict(recipe.variables(find_experiment(recipe.experiment)))


@pytest.fixture
def told(monkeypatch, capsys):
    """Runs `train recipe …`; gives the lines that it printed, on both streams."""

    def recipe(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", "recipe", *arguments])
        with pytest.raises(SystemExit):
            main()
        return "".join(capsys.readouterr()).splitlines()

    return recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_an_experiment_and_a_state_that_can_be_recorded(name):
    recipe = find_recipe(name)
    assert override(find_experiment(recipe.experiment), recipe.settings).discrete_state_input
    fields = parse_state((*recipe.state, *recipe.goal), WIDTHS)
    assert [(part.source, part.start, part.stop) for part in fields][:2] == [
        ("extra/tcp_pose", 0, 3),
        ("agent/qpos", 7, 8),
    ]
    assert recipe.demonstrations <= 200


@pytest.mark.parametrize("name", recipe_names())
def test_the_makefile_knows_each_variable_and_none_is_lost(name):
    known = set(re.findall(r"^([A-Z_]+) :?=", MAKEFILE.read_text(), re.MULTILINE))
    assert set(variables(find_recipe(name))) <= known


def test_the_variables_are_arguments_of_the_stages():
    given = variables(PUSHCUBE)
    assert shlex.split(given["COLLECT"]) == [
        *("--env", "PushCube-v1", "--episodes", "100", "--camera-size", "128", "--frame-stride", "4", "--skip-blocked")
    ]
    assert shlex.split(given["CONVERT"]) == [
        *("--state", "extra/tcp_pose[0:3]", "--state", "agent/qpos[7:8]", "--drop-idle-start")
    ]
    assert variables(replace(PUSHCUBE, settings=("a=1", "b=2")))["SETTINGS"] == "--set a=1 --set b=2"
    assert (given["TASK"], given["ENV"], given["CHECK"]) == ("pushcube", "PushCube-v1", "")
    assert (given["EXPERIMENT"], given["EPISODES"], given["SEED"]) == ("pi05_maniskill_pushcube_small", "100", "0")


def test_what_a_stage_makes_is_named_by_all_that_decides_it():
    before = variables(PUSHCUBE)

    def renamed(**changed):
        after = variables(replace(PUSHCUBE, **changed))
        return [stage for stage in ("DEMOS_FILE", "DATASET", "RUN") if after[stage] != before[stage]]

    assert renamed(frame_stride=2) == renamed(demonstrations=90) == ["DEMOS_FILE", "DATASET", "RUN"]
    assert renamed(state=("agent/qpos",)) == ["DATASET", "RUN"]
    assert renamed(steps=1) == renamed(settings=("batch_size=8",)) == ["RUN"]
    assert renamed(episodes=10, seed=100) == []
    experiment = replace(find_experiment(PUSHCUBE.experiment), batch_size=8)
    assert PUSHCUBE.variables(experiment)["RUN"] != before["RUN"]


def test_the_two_pickcubes_differ_in_the_goal_alone():
    with_goal, without = (variables(find_recipe(name)) for name in ("pickcube", "pickcube-without-goal"))
    goal = shlex.join(("--state", "extra/goal_pos"))
    assert with_goal["CONVERT"].replace(f" {goal}", "") == without["CONVERT"] != with_goal["CONVERT"]
    assert without["CHECK"] == "--ignore-check hidden-goal"
    differ = {name for name in with_goal if with_goal[name] != without[name]}
    assert differ == {"TASK", "CONVERT", "DATASET", "CHECK", "RUN"}


def test_the_command_prints_a_variable_in_each_line(told):
    assert dict(line.split("=", 1) for line in told("pushcube")) == variables(PUSHCUBE)
    smaller = replace(PUSHCUBE, demonstrations=2, steps=4, episodes=1, seed=7)
    lines = told("pushcube", "--demonstrations", "2", "--steps", "4", "--episodes", "1", "--seed", "7")
    assert dict(line.split("=", 1) for line in lines) == variables(smaller)


def test_a_recipe_that_does_not_exist_is_told_with_the_closest(told):
    assert told("pushcub") == ["train: There is no recipe 'pushcub'. Did you mean 'pushcube'?"]
    (line,) = told("zzz")
    assert line == f"train: There is no recipe 'zzz'. Choose one of: {', '.join(recipe_names())}."
