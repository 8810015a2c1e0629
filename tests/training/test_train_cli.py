"""`train` as it is typed: its verbs, its words and its exit codes."""

from __future__ import annotations

import sys

import pytest

from training.cli import main
from training.experiments import experiment_names

NAME = "pi05_maniskill_stackcube_small"


@pytest.fixture
def train(monkeypatch, capsys, tmp_path):
    """Runs `train …` in an empty folder; gives the exit code, what it printed and what it complained."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_list_names_every_experiment_with_its_size(train):
    code, out, _ = train("list")
    title, *lines = (line.split() for line in out.splitlines())
    assert code == 0
    assert title == ["name", "model", "parameters", "batch", "steps", "dataset"]
    assert [line[0] for line in lines] == list(experiment_names())
    assert [NAME, "pi05", "2.5M", "32", "600", "datasets/stackcube"] in lines
    assert ["pi0_maniskill_pickcube_lora", *["pi0", "+", "LoRA", "3.29B", "32", "30,000", "datasets/pickcube"]] in lines


def test_an_unknown_experiment_is_one_plain_line(train):
    assert train("pi05_maniskill_stackcub_small", "--exp-name", "a") == (
        1,
        "",
        f"train: 'pi05_maniskill_stackcub_small' is neither an experiment nor a verb. Did you mean {NAME!r}? "
        "See the experiments: train list.\n",
    )


def test_a_misspelt_verb_offers_the_verb(train):
    code, _, err = train("convrt", "a.h5", "b")
    assert code == 1
    assert err == (
        "train: 'convrt' is neither an experiment nor a verb. Did you mean 'convert'? "
        "See the experiments: train list.\n"
    )


def test_run_is_the_long_form(train):
    assert train("run", "pi05_maniskill_stackcub_small", "--exp-name", "a") == (
        1,
        "",
        f"train: Unknown experiment 'pi05_maniskill_stackcub_small'. Did you mean {NAME!r}? "
        "See them all: train list.\n",
    )


def test_a_wrong_setting_is_told_before_anything_is_read(train, tmp_path):
    assert train(NAME, "--exp-name", "a", "--set", "batchsize=4") == (
        1,
        "",
        "train: --set: there is no setting 'batchsize'. Did you mean 'batch_size'?\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_overwrite_and_resume_exclude_each_other(train):
    code, _, err = train(NAME, "--exp-name", "a", "--overwrite", "--resume")
    assert code == 2
    assert "Pass --overwrite or --resume, not both." in err


def test_a_run_needs_a_name(train):
    code, _, err = train(NAME)
    assert code == 2
    assert "Missing option '--exp-name'." in err


@pytest.mark.parametrize("name", ["../elsewhere", "", "a/b", ".hidden"])
def test_a_runs_name_is_a_plain_folder_name(train, tmp_path, name):
    assert train(NAME, f"--exp-name={name}", "--overwrite") == (
        1,
        "",
        f"train: --exp-name {name!r} is no name for a run: use letters, digits, '-', '_' and '.', "
        "a letter or digit first.\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_dataset_is_named_and_no_run_is_begun(train, tmp_path):
    code, out, err = train(NAME, "--exp-name", "a", "--dataset", "datasets/none")
    assert (code, out) == (1, "")
    assert err.startswith("train: ")
    assert "datasets/none" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_weights_to_start_from_that_are_not_there_are_told_before_all_else(train, tmp_path):
    code, out, err = train(NAME, "--exp-name", "a", "--init", "weights/none", "--init-fresh", "action_*")
    assert (code, out) == (1, "")
    assert err.startswith("train: There are no weights at weights/none. --init takes a step directory, ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_pattern_of_fresh_leaves_needs_weights_to_start_from(train):
    code, _, err = train(NAME, "--exp-name", "a", "--init-fresh", "action_*")
    assert code == 1
    assert err == (
        "train: The settings are not valid: init_fresh (--init-fresh) says what init (--init) may lack, "
        "but there is no init.\n"
    )


def test_a_checkpoint_to_merge_must_exist(train, tmp_path):
    assert train("merge", "runs/none/9", "merged/9") == (
        1,
        "",
        "train: There is no checkpoint at runs/none/9. Train one (train --help) or check the path.\n",
    )
    assert list(tmp_path.iterdir()) == []
