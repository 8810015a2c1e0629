"""`train` as it is typed: its verbs, its words and its exit codes."""

from __future__ import annotations

import errno
import sys

import jax
import jax.numpy as jnp
import pytest

from training.cli import main
from training.commands.state_memory import state_memory
from training.experiments import experiment_names, find_experiment
from training.pi05.model.params import param_shapes, unflatten
from training.train_state import init_state

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
    assert [NAME, "pi05", "2.5M", "32", "3,000", "datasets/stackcube"] in lines
    assert ["pi0_maniskill_pickcube_lora", *["pi0", "+", "LoRA", "3.29B", "32", "30,000", "datasets/pickcube"]] in lines


def test_list_shows_what_the_state_of_each_takes_of_a_device(train):
    """A full fine-tune holds four float32 copies of 3.35B parameters, LoRA the frozen ones once in bfloat16."""
    code, out, _ = train("list", "--memory", "--devices", "8")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["name", "model", "batch", "params", "optimizer", "average", "state"]
    assert ["pi05_maniskill_stackcube", "pi05", "128", "1.68", "3.36", "1.68", "6.73"] in lines
    assert [f"{NAME[:-6]}_lora", "pi05", "+", "LoRA", "32", "0.98", "0.50", "0.00", "1.48"] in lines
    assert out.splitlines()[-1] == (
        "GB that each of 8 devices holds between steps; gradients and activations come on top. "
        "- where batch or --set fsdp_devices does not fit 8 devices."
    )


def test_list_shows_no_memory_where_the_devices_do_not_divide_the_batch(train):
    _, out, _ = train("list", "--memory", "--devices", "64")
    lines = [line.split() for line in out.splitlines()]
    assert [NAME, "pi05", "32", "-", "-", "-", "-"] in lines
    assert ["pi05_maniskill_stackcube", "pi05", "128", "0.22", "0.43", "0.22", "0.86"] in lines


def test_devices_are_counted_for_memory_alone(train):
    code, _, err = train("list", "--devices", "8")
    assert code == 2
    assert "--devices says what --memory counts for: pass --memory too." in err


def test_the_memory_of_a_state_is_that_of_its_arrays():
    """But for the step counter."""
    experiment = find_experiment(NAME)
    params = unflatten({path: jnp.zeros(leaf.shape) for path, leaf in param_shapes(experiment.model).items()})
    arrays = jax.tree.leaves(init_state(experiment, params))
    assert state_memory(experiment, devices=1).total == sum(leaf.nbytes for leaf in arrays) - 4


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


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "A file"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/run.json"), "runs/a/run.json"),
    ],
)
def test_a_full_disk_is_one_plain_line(train, monkeypatch, error, what):
    def full(*arguments, **options):
        raise error

    monkeypatch.setattr("training.loop.train", full)
    assert train(NAME, "--exp-name", "a") == (
        1,
        "",
        f"train: {what} could not be written (No space left on device). Make room on the disk, then repeat the "
        "command: a training run goes on with --resume, or if it has no step yet begins anew with --overwrite.\n",
    )


def test_a_device_without_memory_for_a_run_is_one_plain_line_that_says_what_takes_less(train, monkeypatch):
    def exhaust(*arguments, **options):
        jnp.zeros(2**50, jnp.uint8).block_until_ready()

    monkeypatch.setattr("training.loop.train", exhaust)
    assert train(NAME, "--exp-name", "a") == (
        1,
        "",
        "train: A device has too little memory (Out of memory allocating 1125899906842624 bytes). Compute each batch "
        "in more parts (--set accumulate_steps=…) or on more devices: a run with a saved step then goes on with "
        "--resume. Or begin one with a smaller batch (--set batch_size=…). What the state alone takes: "
        "train list --memory.\n",
    )


def test_an_interrupted_run_says_what_is_kept(train, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.loop.train", interrupt)
    code, _, err = train(NAME, "--exp-name", "a")
    assert (code, err) == (130, "train: interrupted; frames that were decoded and steps that were saved are kept.\n")


def test_a_checkpoint_to_merge_must_exist(train, tmp_path):
    assert train("merge", "runs/none/9", "merged/9") == (
        1,
        "",
        "train: There is no checkpoint at runs/none/9. Train one (train --help) or check the path.\n",
    )
    assert list(tmp_path.iterdir()) == []
