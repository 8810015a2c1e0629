"""What may be measured, and what is said of the rest before anything starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval_stack.checkpoint import Checkpoint
from eval_stack.errors import InvalidMatrix
from eval_stack.matrix_file import read_matrix_file


def refused(ended) -> str:
    assert ended.code == 2
    assert ended.out == ""
    return ended.err.removeprefix("eval-stack: ").rstrip("\n")


def test_a_checkpoint_is_named_by_its_run_and_step(make_step):
    assert Checkpoint.from_flag(str(make_step("runs/probe/59"))).name == "probe-59"


def test_a_checkpoint_that_is_no_step_of_a_run_is_named_by_its_folder(make_step):
    assert Checkpoint.from_flag(str(make_step("stackcube_policy"))).name == "stackcube_policy"


def test_a_name_before_the_path_is_the_name(make_step):
    step = make_step("runs/probe/59")
    assert Checkpoint.from_flag(f"mine={step}") == Checkpoint("mine", step)


def test_an_equals_sign_in_a_path_separates_no_name(make_step, monkeypatch, tmp_path):
    make_step("lr=3/59")
    monkeypatch.chdir(tmp_path)
    assert Checkpoint.from_flag("lr=3/59") == Checkpoint("lr-3-59", tmp_path / "lr=3/59")


def test_a_checkpoint_that_does_not_exist_is_refused(eval_stack, tmp_path):
    ended = eval_stack("--checkpoint", tmp_path / "none/1", "--env", "A", "--out", tmp_path)
    assert refused(ended) == (
        f"The checkpoint {tmp_path}/none/1 does not exist. Pass --checkpoint with a step directory, such as "
        "runs/EXPERIMENT/RUN/29999."
    )


def test_a_run_in_the_place_of_a_step_is_refused_with_its_steps(eval_stack, make_step, tmp_path):
    run = make_step("runs/a/99").parent
    make_step("runs/a/1000")
    assert refused(eval_stack("--checkpoint", run, "--env", "A", "--out", tmp_path)) == (
        f"{run} is no step directory of a checkpoint: it has no params/ and no assets/. It has the steps 99, 1000: "
        "pass one."
    )


def test_a_folder_without_assets_is_refused(eval_stack, tmp_path):
    (tmp_path / "weights/params").mkdir(parents=True)
    ended = eval_stack("--checkpoint", tmp_path / "weights", "--env", "A", "--out", tmp_path)
    assert refused(ended) == (
        f"{tmp_path}/weights is no step directory of a checkpoint: it has no assets/. Pass one that has both."
    )


def test_two_checkpoints_of_one_name_are_refused(eval_stack, make_step, tmp_path):
    one, other = make_step("x/run/1"), make_step("y/run/1")
    assert refused(eval_stack("--checkpoint", one, "--checkpoint", other, "--env", "A", "--out", tmp_path)) == (
        f"Two checkpoints are called 'run-1': {one} and {other}. Their results would share a folder. Name them: "
        "--checkpoint NAME=DIR."
    )


def test_one_checkpoint_under_two_names_is_refused(eval_stack, make_step, tmp_path):
    step = make_step("run/1")
    flags = ("--checkpoint", f"a={step}", "--checkpoint", f"b={step}", "--env", "A", "--out", tmp_path)
    assert refused(eval_stack(*flags)) == (
        f"The checkpoints 'a' and 'b' are the same directory, {step}. Name each once."
    )


def test_a_name_that_cannot_be_a_folder_is_refused(eval_stack, make_step, tmp_path):
    ended = eval_stack("--checkpoint", f"a b={make_step('run/1')}", "--env", "A", "--out", tmp_path)
    assert refused(ended) == (
        "The name 'a b' of a checkpoint cannot name a folder. Letters, digits, dots, dashes and underscores can: "
        "--checkpoint NAME=DIR."
    )


def test_a_task_twice_is_refused(eval_stack, first):
    assert refused(eval_stack(*first, "--env", "StackCube-v1")) == (
        "The task StackCube-v1 is named twice. Name each task once."
    )


def test_no_checkpoint_no_task_and_no_folder_are_each_asked_for(eval_stack, make_step, tmp_path):
    step = make_step("run/1")
    assert refused(eval_stack("--env", "A", "--out", tmp_path)) == (
        "No checkpoint is named. Pass --checkpoint NAME=DIR, or --matrix FILE.yaml that names some."
    )
    assert refused(eval_stack("--checkpoint", step, "--out", tmp_path)) == (
        "No task is named. Pass --env StackCube-v1,PickCube-v1, or --matrix FILE.yaml that names some."
    )
    assert refused(eval_stack("--checkpoint", step, "--env", "A")) == (
        "No folder for results is named. Pass --out results/NAME, or --matrix FILE.yaml with the key out."
    )


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--episodes", 0, "--episodes is 0; 1 is the least."),
        ("--seed", -1, "--seed is -1; 0 is the least."),
        ("--sims", 0, "--sims is 0; 1 is the least."),
    ],
)
def test_numbers_have_a_least(eval_stack, first, flag, value, message):
    assert refused(eval_stack(*first, flag, value)) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--", "--seed=4"], "--seed of sim-client is set by eval-stack. Pass --seed to eval-stack, before the --."),
        (["--", "--server", "ws://x"], "--server of sim-client is set by eval-stack. Leave it out."),
        (
            ["--", "--overwrite"],
            "--overwrite of sim-client is set by eval-stack. To begin anew, delete the results or pass another --out.",
        ),
        (
            ["--serve-args", "'"],
            """--serve-args "'" is no list of flags: No closing quotation. Write them as in a shell, such as """
            "--serve-args '--batch-sizes 1,4'.",
        ),
        (["--serve-args", "--port 9"], "--port of serve is set by eval-stack. Leave it out."),
    ],
)
def test_flags_of_the_programs_that_cannot_be_are_refused(eval_stack, first, flags, message):
    assert refused(eval_stack(*first, *flags)) == message


def test_contradicting_wishes_for_images_are_refused(eval_stack, first):
    assert refused(eval_stack(*first, "--build", "--no-build")) == (
        "--build and --no-build contradict each other. Pass one of them."
    )


def test_a_folder_for_results_below_a_file_is_refused(eval_stack, first, tmp_path):
    (tmp_path / "file").touch()
    assert refused(eval_stack(*first, "--out", tmp_path / "file/out")) == (
        f"--out {tmp_path}/file/out cannot be used: {tmp_path}/file is a file. Pass --out with a folder."
    )


def test_a_folder_for_results_that_cannot_be_written_is_refused(eval_stack, first):
    # /proc takes nobody's files, not even root's.
    ended = eval_stack(*first, "--out", "/proc/chunkwire")
    assert ended.code == 2
    assert re.fullmatch(
        r"eval-stack: --out /proc/chunkwire cannot be written: .+\. Pass --out with a folder that can\.\n", ended.err
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_names_everything_relative_to_itself(make_step, tmp_path):
    first, second = make_step("runs/first/1"), make_step("runs/second/1")
    file = write(
        tmp_path / "matrix.yaml",
        """
        checkpoints:
          a: runs/first/1
          b: runs/second/1
        tasks: [StackCube-v1, PickCube-v1]
        episodes: 50
        seed: 7
        sims: 2
        out: results/a-against-b
        sim_args: [--video, 3]
        serve_args: [--batch-sizes, "1,4"]
        """,
    )
    assert read_matrix_file(file) == {
        "checkpoints": (Checkpoint("a", first), Checkpoint("b", second)),
        "tasks": ("StackCube-v1", "PickCube-v1"),
        "episodes": 50,
        "seed": 7,
        "sims": 2,
        "out": tmp_path / "results/a-against-b",
        "sim_args": ("--video", "3"),
        "serve_args": ("--batch-sizes", "1,4"),
    }


def test_checkpoints_of_a_file_may_be_a_list(make_step, tmp_path):
    step = make_step("runs/first/1")
    file = write(tmp_path / "matrix.yaml", "checkpoints: [runs/first/1]")
    assert read_matrix_file(file) == {"checkpoints": (Checkpoint("first-1", step),)}


def test_flags_override_the_file(eval_stack, make_step, tmp_path):
    make_step("runs/first/1")
    text = "checkpoints: [runs/first/1]\ntasks: [StackCube-v1]\nepisodes: 50\nout: there\nsim_args: [--video, all]"
    file = write(tmp_path / "matrix.yaml", text)
    ended = eval_stack("--matrix", file, "--episodes", 3, "--dry-run", "--", "--workers", 1)
    assert ended.out.startswith(f"Checkpoints x tasks x episodes: 1 x 1 x 3 = 3, to {tmp_path}/there\n")
    assert "--share --workers 1\n" in ended.out
    assert "--video" not in ended.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checkpoint: [a]", "there is no key 'checkpoint'. Did you mean 'checkpoints'?"),
        ("episodes: many", "episodes is 'many', where a whole number was expected."),
        ("episodes: yes", "episodes is True, where a whole number was expected."),
        ("tasks: StackCube-v1", "tasks is 'StackCube-v1', where a list was expected."),
        ("sim_args: [yes]", "sim_args holds True, where text was expected. Put it in quotes."),
        ("out: [a]", "out holds ['a'], where the path of a folder was expected."),
        ("checkpoints: {a: 1}", "checkpoints holds 1, where the path of a folder was expected."),
        (
            "- a",
            "a mapping was expected, with some of the keys checkpoints, tasks, episodes, seed, sims, out, sim_args, "
            "serve_args.",
        ),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, text, message):
    file = write(tmp_path / "matrix.yaml", text)
    with pytest.raises(InvalidMatrix) as error:
        read_matrix_file(file)
    assert error.value.message == f"--matrix {file}: {message}"


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2", "checkpoints: {a: x, a: y}"])
def test_a_key_twice_is_refused(tmp_path, text):
    with pytest.raises(InvalidMatrix, match=r"is no YAML: '(seed|a)' stands there twice"):
        read_matrix_file(write(tmp_path / "matrix.yaml", text))


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    with pytest.raises(InvalidMatrix, match="is no YAML: while parsing a flow node"):
        read_matrix_file(write(tmp_path / "matrix.yaml", "tasks: ["))


def test_a_missing_file_is_refused(eval_stack, tmp_path):
    ended = eval_stack("--matrix", tmp_path / "none.yaml")
    assert refused(ended) == f"--matrix {tmp_path}/none.yaml cannot be read: No such file or directory."


def test_flags_before_a_verb_are_refused(eval_stack):
    assert refused(eval_stack("--dry-run", "clean")) == (
        "--dry-run stands before the command 'clean', where it has no effect. Leave it out: eval-stack clean."
    )
