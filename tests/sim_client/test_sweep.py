"""`sim-client sweep`: every checkpoint on the same episodes, none loaded without need, none mixed with another."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from drawn_once import plots_drawn_once
from fake_environment import FakeEnvironment
from fake_policy_server import chunk_of

from sim_client import read_results
from sim_client.errors import IncompleteRun, Interrupted, InvalidOption
from sim_client.evaluation.checkpoints import choose_steps, parse_servers, parse_steps
from sim_client.results.report import html
from sim_client.results.training_loss import TrainingLoss

RUN_ID = "f00d"


@pytest.fixture(autouse=True)
def one_drawing(monkeypatch):
    monkeypatch.setattr(html, "_plots", plots_drawn_once)


@pytest.fixture
def at_step(spec):
    """The spec of a step of the run."""

    def at(step, run_id=RUN_ID):
        checkpoint = replace(spec.policy.checkpoint, step=step, run_id=run_id)
        return replace(spec, policy=replace(spec.policy, checkpoint=checkpoint))

    return at


@pytest.fixture
def start_following(at_step, start_server):
    """A server that serves step 3000 first; episodes up to seed `skill[step]` - 1 succeed."""

    def start(skill, steps=(1000, 2000, 3000), unusable=()):
        def answer(request):
            if server.spec.policy.checkpoint.step in server.sick:
                return None
            able = request.episode.seed < skill.get(server.spec.policy.checkpoint.step, 0)
            return chunk_of(server.spec, request, 0.25 if able else 0.0)

        specs = {step: None if step in unusable else at_step(step) for step in steps}
        server = start_server(answer, of=at_step(3000), steps=specs)
        server.sick = set()
        return server

    return start


@pytest.fixture
def run_dir(tmp_path):
    """A training run's folder with a loss every 100 steps."""
    run = tmp_path / "runs/tiny/test"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"run_id": RUN_ID}))
    lines = (json.dumps({"step": step, "loss": 1000 / (step + 1)}) for step in range(99, 4000, 100))
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 40')
    return run


@pytest.fixture
def sweep(command):
    """Run the command on episodes 0 and 1 into `out`; further arguments override."""

    def run(run_dir, *arguments, episodes=2, **options):
        place = ("--out", "out", "--env", "PushCube-v1", "--episodes", episodes)
        return command("sweep", run_dir, *place, *arguments, **options)

    return run


def step_rows(output):
    """Step and k/n of each line of the table."""
    lines = [line.split() for line in output.splitlines()]
    return [(int(words[0]), words[1]) for words in lines if words and words[0].isdigit()]


def test_every_step_is_loaded_and_measured_on_the_same_episodes_with_the_same_noise(
    start_following, sweep, run_dir, tmp_path
):
    server = start_following({2000: 2, 3000: 1})
    ended = sweep(run_dir, "--server", server.url)
    assert ended.error is None
    assert server.loads == [1000, 2000, 3000]
    assert step_rows(ended.output) == [(1000, "0/2"), (2000, "2/2"), (3000, "1/2")]
    asked = {}
    for request, spec in zip(server.requests, server.served, strict=True):
        if request.episode.step == 0:
            asked.setdefault(spec.policy.checkpoint.step, []).append((request.episode.seed, request.noise_seed))
    assert [[seed for seed, _ in one] for one in asked.values()] == [[0, 1]] * 3
    assert asked[1000] == asked[2000] == asked[3000]
    for step in (1000, 2000, 3000):
        run, _ = read_results(tmp_path / "out" / str(step))
        assert run.checkpoint == f"tiny/test/{step}"
        assert (tmp_path / "out" / str(step) / "report.html").exists()


def test_observations_of_every_step_can_be_kept(start_following, sweep, run_dir, tmp_path):
    server = start_following({1000: 2}, steps=(1000, 2000))
    assert sweep(run_dir, "--server", server.url, "--save-observations").error is None
    for step in (1000, 2000):
        assert len(list((tmp_path / "out" / str(step)).rglob("*.npz"))) == 2


def test_the_best_step_is_set_against_the_last_and_said_to_be_chosen(start_following, sweep, run_dir, tmp_path):
    server = start_following({1000: 9, 3000: 1})
    ended = sweep(run_dir, "--server", server.url, episodes=12)
    result = ended.output.splitlines()[-2]
    assert result.startswith(
        "Best is step 1000 with 9/12 = 75% [47%, 91%], here compared with the last, step 3000. "
        "step 1000 is better by 67 points, 95% ["
    )
    assert "p=0.016 after Holm" in result  # 0.0078 twice: two steps were set against the last
    assert (
        "Note: The best of several is chosen by these very episodes, so its rate is likely somewhat too high. "
        "Measure it anew on other episodes, such as --seed 12. Its p-value is corrected (Holm) for every step's "
        "comparison with the last; the interval is 95% by itself.\n"
    ) in ended.output
    text = (tmp_path / "out/sweep.md").read_text()
    assert text.startswith("# PushCube-v1: Best is step 1000 with 9/12")
    assert "| 2000 | 0/12 = 0% [0%, 24%] |" in text


def test_the_training_loss_stands_beside_the_success(start_following, sweep, run_dir, tmp_path):
    server = start_following({3000: 2}, steps=(999, 3000))
    ended = sweep(run_dir, "--server", server.url, "--json")
    result = json.loads(ended.output)
    ten = [1000 / (step + 1) for step in range(99, 1000, 100)]
    assert result["steps"][0]["training_loss"] == pytest.approx(sum(ten) / 10)
    assert (result["best"], result["last"], result["best_against_last"]) == (3000, 3000, None)
    assert result["result"] == "The last one is the best: step 3000 with 2/2 = 100% [34%, 100%]."
    assert result["warnings"] == []
    page = (tmp_path / "out/sweep.html").read_text()
    assert "training loss" in page
    assert 'href="999/report.html"' in page
    assert (
        f"| 999 | 0/2 = 0% [0%, 66%] | 0/2 = 0% [0%, 66%] | {sum(ten) / 10:.4g} | 0 |"
        in (tmp_path / "out/sweep.md").read_text()
    )


def test_without_the_runs_folder_the_curve_has_no_loss_and_says_so(start_following, sweep, tmp_path):
    server = start_following({}, steps=(3000,))
    ended = sweep("elsewhere/tiny/test", "--server", server.url)
    sentence = "No training loss: elsewhere/tiny/test/metrics.jsonl cannot be read here (No such file or directory)."
    assert f"Note: {sentence}\n" in ended.output
    assert "Only one step: step 3000 with 0/2" in ended.output
    assert sentence in (tmp_path / "out/sweep.html").read_text()


def test_the_loss_of_another_run_is_not_shown(run_dir):
    assert TrainingLoss.read(run_dir, "beef") == TrainingLoss(
        absent=f"No training loss: {run_dir} is another run (id f00d) than the one that is served (beef)."
    )
    assert TrainingLoss.read(run_dir, RUN_ID).points[0] == (99, 10.0)
    assert TrainingLoss.read(run_dir).at(98) is None


def test_a_finished_sweep_loads_nothing_and_says_the_same(start_following, sweep, run_dir):
    server = start_following({3000: 1}, steps=(3000,))
    first = sweep(run_dir, "--server", server.url)
    server.loads.clear()
    again = sweep(run_dir, "--server", server.url)
    assert (server.loads, again.output) == ([], first.output)
    assert "Step 3000 is finished already.\n" in again.errors


def test_a_newer_step_is_added_to_a_finished_sweep(start_following, sweep, run_dir):
    sweep(run_dir, "--server", start_following({}, steps=(3000,)).url)
    server = start_following({}, steps=(3000, 4000))
    ended = sweep(run_dir, "--server", server.url)
    assert (ended.error, server.loads) == (None, [4000])
    assert [step for step, _ in step_rows(ended.output)] == [3000, 4000]


def test_more_episodes_go_on_where_the_others_ended(start_following, sweep, run_dir, tmp_path):
    server = start_following({}, steps=(3000,))
    sweep(run_dir, "--server", server.url, episodes=1)
    server.requests.clear()
    sweep(run_dir, "--server", server.url, episodes=2)
    assert {request.episode.seed for request in server.requests} == {1}
    assert read_results(tmp_path / "out/3000")[0].extended_from == (1,)


def test_a_step_that_cannot_be_used_does_not_lose_the_others(start_following, sweep, run_dir, tmp_path):
    server = start_following({}, unusable=(2000,))
    ended = sweep(run_dir, "--server", server.url, episodes=1)
    assert isinstance(ended.error, IncompleteRun)
    assert ended.error.message == (
        "1 of 3 steps have no whole result:\n"
        "  2000: Step 2000 cannot be used.\n"
        "What is finished is kept in out. Running the same command again goes on from there."
    )
    assert [step for step, _ in step_rows(ended.output)] == [1000, 3000]
    assert "| 2000 | Step 2000 cannot be used. |" in (tmp_path / "out/sweep.md").read_text()


def test_errors_are_repeated_by_the_same_command(start_following, sweep, run_dir):
    server = start_following({}, steps=(2000, 3000))
    server.sick = {2000}
    ended = sweep(run_dir, "--server", server.url, "--retries", 0, episodes=1)
    assert "  2000: 1 of 1 episodes ended in an infrastructure error.\n" in ended.error.message
    server.sick, server.loads[:] = set(), []
    assert sweep(run_dir, "--server", server.url, "--retries", 0, episodes=1).error is None
    assert server.loads == [2000]


def test_ctrl_c_keeps_what_is_finished(start_following, sweep, run_dir, tmp_path):
    server = start_following({1000: 1})

    def stopped(settings):
        if server.spec.policy.checkpoint.step == 2000:
            raise KeyboardInterrupt
        return FakeEnvironment(settings)

    ended = sweep(run_dir, "--server", server.url, environment=stopped)
    assert isinstance(ended.error, Interrupted)
    assert ended.error.message.startswith("Stopped. 0 of 2 episodes are finished and kept in out/2000.")
    text = (tmp_path / "out/sweep.md").read_text()
    assert "| 3000 | Still to run. |" in text
    assert "| 1000 | 1/2 = 50%" in text


def test_another_client_that_loads_a_step_meanwhile_spoils_no_result(
    at_step, start_following, sweep, run_dir, tmp_path
):
    server = start_following({})
    load = server._reply_steps

    def meddle(request):
        reply = load(request)
        if request.load == 2000:
            server.spec = at_step(1000)
        return reply

    server._reply_steps = meddle
    ended = sweep(run_dir, "--server", server.url, episodes=1)
    assert f"2000 failed: {server.url} now serves another policy (tiny/test/1000, spec" in ended.errors
    assert not (tmp_path / "out/2000").exists()
    assert [step for step, _ in step_rows(ended.output)] == [1000, 3000]


def test_a_server_for_each_step(at_step, start_server, sweep, run_dir, tmp_path):
    servers = {step: start_server(of=at_step(step)) for step in (1000, 2000)}
    ended = sweep(run_dir, "--servers", ",".join(f"{step}={one.url}" for step, one in servers.items()), episodes=1)
    assert ended.error is None
    assert [step for step, _ in step_rows(ended.output)] == [1000, 2000]
    assert read_results(tmp_path / "out/1000")[0].server == servers[1000].url
    assert "No other is ahead of the last: step 2000 with 0/1 = 0% [0%, 79%].\n" in ended.output
    assert "Note:" not in ended.output


def test_a_server_with_another_step_or_of_another_run_is_refused_and_the_others_are_measured(
    at_step, start_server, sweep, run_dir
):
    right, wrong, strange = (start_server(of=one) for one in (at_step(1000), at_step(9), at_step(3000, "beef")))
    ended = sweep(
        run_dir,
        *("--servers", f"1000={right.url},2000={wrong.url},3000={strange.url},4000=127.0.0.1:9"),
        *("--connect-timeout", 0.3),
        episodes=1,
    )
    assert f"  2000: --servers 2000={wrong.url}: tiny/test/9 is served there, which is step 9.\n" in ended.error.message
    assert (
        "  3000: tiny/test/3000 is of another training run than tiny/test/1000, though of the same name. "
        "A sweep is of one run: serve that one, or pass another --out.\n"
    ) in ended.error.message
    assert "  4000: No policy server answers at ws://127.0.0.1:9" in ended.error.message
    assert [step for step, _ in step_rows(ended.output)] == [1000]


def test_results_of_another_run_in_the_folder_are_not_mixed_in(at_step, start_server, sweep, run_dir):
    sweep(run_dir, "--servers", f"1000={start_server(of=at_step(1000, 'beef')).url}", episodes=1)
    both = {step: start_server(of=at_step(step)) for step in (1000, 2000)}
    ended = sweep(run_dir, "--servers", ",".join(f"{step}={one.url}" for step, one in both.items()), episodes=1)
    assert "tiny/test/2000 is of another training run than tiny/test/1000" in ended.error.message


def test_a_server_that_loads_no_steps_is_told_how_to_be_started(start_server, sweep):
    ended = sweep("run", "--server", start_server().url)
    assert ended.error.message.endswith(
        "loads no steps on request. Start it with `serve --follow RUN --follow-on-request`."
    )


def test_the_folder_is_named_after_the_run(start_following, command, run_dir, tmp_path):
    server = start_following({}, steps=(3000,))
    command("sweep", run_dir, "--env", "PushCube-v1", "--episodes", 1, "--server", server.url)
    assert (tmp_path / "results/PushCube-v1/sweep-tiny-test-seed0/3000/report.md").exists()


@pytest.mark.parametrize(
    ("every", "chosen"),
    [(None, (9, 19, 29, 39, 44)), (10, (9, 19, 29, 39, 44)), (15, (9, 29, 44)), (1000, (9, 44))],
)
def test_a_choice_of_every_n_steps_has_the_first_and_the_last(every, chosen):
    assert choose_steps((9, 19, 29, 39, 44), None, every) == chosen


def test_steps_can_be_named():
    assert choose_steps((9, 19, 29), parse_steps("29, 9"), None) == (9, 29)
    assert parse_servers("1000=ws://a:8000, 2000=b") == {1000: "ws://a:8000", 2000: "b"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", "5,19"), "--steps 5,19: not among the steps that are served, 1000, 2000."),
        (("--steps", "last"), "--steps must be step numbers with commas between them, such as 1000,2000, not 'last'."),
        (("--steps", "1000", "--every", 2), "--steps and --every both choose steps. Pass one of them."),
        (("--every", 0), "--every must be at least 1, not 0."),
        (
            ("--servers", "ws://a:8000"),
            "--servers must be STEP=URL pairs with commas between them, such as 1000=ws://a:8000,2000=ws://b:8000; "
            "'ws://a:8000' is none.",
        ),
        (("--servers", "1=a,1=b"), "--servers names step 1 twice. Name one server for it."),
        (
            ("--server", "ws://a:8000"),
            "--server and --servers both say where the policy is. Pass --servers for a server per step, or --server "
            "for one that loads them on request.",
        ),
    ],
)
def test_a_wrong_choice_is_refused_by_the_flags_name(sweep, flags, message):
    servers = () if "--servers" in flags else ("--servers", "1000=127.0.0.1:9,2000=127.0.0.1:9")
    ended = sweep("run", *servers, *flags)
    assert isinstance(ended.error, InvalidOption)
    assert ended.error.message == message
