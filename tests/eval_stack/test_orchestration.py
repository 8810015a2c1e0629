"""A matrix from the first server to the report, and what may go wrong on the way."""

from __future__ import annotations

import json

from fake_engine import refused, write_results


def nothing_is_left(engine) -> bool:
    return engine.containers.all == [] and engine.networks.all == []


def test_checkpoints_are_measured_in_turn_and_read_at_the_end(eval_stack, engine, two_by_two):
    assert eval_stack(*two_by_two, "--sims", 2).code == 0
    one = ["start server", "start sim", "start sim", "SIGTERM server", "remove server", "remove sim", "remove sim"]
    assert engine.history == [*one, *one, *["start report", "remove report"] * 5]
    assert nothing_is_left(engine)


def test_clients_start_when_the_server_is_healthy(eval_stack, engine, first):
    def not_yet(container):
        assert engine.role("sim") == []

    engine.lives["server"] = [["starting", not_yet, "starting", not_yet, "healthy"]]
    assert eval_stack(*first).code == 0
    assert len(engine.role("sim")) == 1


def test_the_report_shows_what_sim_client_says(eval_stack, two_by_two, tmp_path):
    ended = eval_stack(*two_by_two)
    out = tmp_path / "out"
    assert ended.out == (
        "first on StackCube-v1: /results of /results/first/StackCube-v1\n"
        "first on PickCube-v1: /results of /results/first/PickCube-v1\n"
        "second on StackCube-v1: /results of /results/second/StackCube-v1\n"
        "second on PickCube-v1: /results of /results/second/PickCube-v1\n"
        "first and second cannot be told apart.\n"
        f"Report: {out}/report.md\n"
    )
    report = (out / "report.md").read_text()
    assert "[report](second/PickCube-v1/report.html)" in report
    assert (
        "## Comparison\n\n- first and second cannot be told apart.\n\n[The whole comparison](comparison.md)" in report
    )
    assert (out / "comparison.md").read_text() == "# compared\n"


def test_one_checkpoint_is_compared_with_nothing(eval_stack, engine, first, tmp_path):
    assert eval_stack(*first).code == 0
    assert [report.command[0] for report in engine.role("report")] == ["report"]
    assert "Comparison" not in (tmp_path / "out/report.md").read_text()


def test_logs_are_shown_under_the_name_of_their_container(eval_stack, engine, first):
    engine.logs = {"server": ["compiling", "ready"], "sim": ["episode 1", "Größe: 3"]}
    ended = eval_stack(*first)
    for line in ("first server | compiling", "first server | ready", "first sim 1 | Größe: 3"):
        assert f"{line}\n" in ended.err
    assert "Episodes: 4 of 4 are finished.\n" in ended.err


def test_a_server_that_dies_while_compiling_is_shown_with_the_end_of_its_log(eval_stack, engine, first, tmp_path):
    engine.lives["server"] = [["starting", "starting", 1]]
    engine.logs["server"] = [f"line {number}" for number in range(59)]
    ended = eval_stack(*first)
    last = "".join(f"  line {number}\n" for number in range(9, 59))
    assert f"The server of first ended with code 1 before it was ready. The end of its log:\n{last}" in ended.err
    assert "  line 8\n" not in ended.err
    assert ended.code == 1
    assert engine.role("sim") == []
    assert nothing_is_left(engine)
    assert "## first was not measured to the end" in (tmp_path / "out/report.md").read_text()


def test_a_server_that_runs_out_of_memory_says_so(eval_stack, engine, first):
    engine.lives["server"], engine.out_of_memory = [["starting", 137]], True
    assert (
        "The server of first ended with code 137 before it was ready. The engine ended it, as memory ran out."
        in eval_stack(*first).err
    )


def test_a_server_that_does_not_become_ready_is_given_up(eval_stack, engine, first):
    engine.lives["server"] = [["starting", "unhealthy"]]
    ended = eval_stack(*first)
    assert ended.code == 1
    assert "The server of first runs, but does not become ready." in ended.err
    assert nothing_is_left(engine)


def test_an_image_without_a_health_check_cannot_be_waited_for(eval_stack, engine, first):
    engine.lives["server"] = [["running"]]
    ended = eval_stack(*first)
    assert ended.code == 1
    assert (
        "The server of first cannot be waited for, as its image has no HEALTHCHECK; name one that is built from "
        "docker/policy_server.Dockerfile."
    ) in ended.err


def test_after_a_checkpoint_whose_server_dies_the_next_one_is_measured(eval_stack, engine, two_by_two, tmp_path):
    def die_first(container):
        if container.name.endswith("first-server"):
            container.die(1)

    engine.lives["server"] = [["starting", die_first, "healthy"]]
    ended = eval_stack(*two_by_two)
    assert ended.code == 1
    assert ended.out == (
        "first on StackCube-v1: no episode was run\n"
        "first on PickCube-v1: no episode was run\n"
        "second on StackCube-v1: /results of /results/second/StackCube-v1\n"
        "second on PickCube-v1: /results of /results/second/PickCube-v1\n"
        "first was not measured to the end; the report tells why.\n"
        f"Report: {tmp_path}/out/report.md\n"
    )
    assert nothing_is_left(engine)


def killed_while_clients_run(engine, times: int) -> None:
    """Each life of the server but the last is ended by SIGKILL once clients run."""

    def killed(container):
        if engine.role("sim"):
            container.die(137)
        else:
            container.steps.appendleft(killed)

    engine.lives["server"] = [["starting", "healthy", killed, "healthy"]] * times + [["starting", "healthy"]]
    engine.lives["sim"] = [["running"] * 100 + [0]]


def test_a_server_that_is_killed_is_started_again_and_its_clients_go_on(eval_stack, engine, first):
    killed_while_clients_run(engine, times=3)
    engine.logs["server"] = ["ready"]
    ended = eval_stack(*first)
    assert ended.code == 0
    assert engine.role("server")[0].starts == 4
    assert engine.role("sim")[0].starts == 1
    assert (
        "The server of first ended with code 137 while its clients ran. It is started again, 3 of 3 times; the clients "
        "wait for it.\n"
    ) in ended.err
    assert nothing_is_left(engine)


def test_a_log_goes_on_after_a_restart_without_repeating_itself(eval_stack, engine, first):
    killed_while_clients_run(engine, times=1)
    engine.logs["server"] = ["ready"]
    assert eval_stack(*first).err.count("first server | ready\n") == 2


def test_a_server_that_dies_a_fourth_time_is_given_up(eval_stack, engine, first):
    killed_while_clients_run(engine, times=4)
    ended = eval_stack(*first)
    assert ended.code == 1
    assert "The server of first ended with code 137 while its clients ran, 4 times. The end of its log:\n" in ended.err
    assert "SIGINT sim" in engine.history
    assert nothing_is_left(engine)


def test_a_server_that_somebody_removes_is_given_up(eval_stack, engine, first):
    def removed(container):
        if engine.role("sim"):
            container.remove(force=True, v=True)
            container.reload()
        container.steps.append(removed)

    engine.lives["server"] = [["starting", "healthy", removed]]
    engine.lives["sim"] = [["running"] * 50 + [0]]
    ended = eval_stack(*first)
    assert ended.code == 1
    assert "The server of first was removed while its clients ran." in ended.err
    assert nothing_is_left(engine)


def test_a_client_that_fails_gives_its_exit_code(eval_stack, engine, two_by_two, tmp_path):
    engine.lives["sim"], engine.logs["sim"] = [["running", 3]], [f"line {number}" for number in range(20)]
    ended = eval_stack(*two_by_two)
    assert ended.code == 3
    reason = "first sim 1 ended with code 3. The end of its log:\n  line 10\n"
    assert reason in ended.err
    assert len(engine.role("server")) == 2  # the other checkpoint is measured nevertheless
    report = (tmp_path / "out/report.md").read_text()
    assert reason in report
    assert nothing_is_left(engine)


def test_flags_that_no_client_can_take_end_the_matrix_at_the_first(eval_stack, engine, two_by_two, monkeypatch):
    monkeypatch.setattr(engine, "on_start", lambda container: None)
    engine.lives["sim"] = [["running", 2]]
    assert eval_stack(*two_by_two, "--", "--nonsense").code == 2
    assert len(engine.role("server")) == 1
    assert engine.role("report") == []
    assert nothing_is_left(engine)


def test_a_report_that_fails_is_told_in_the_index(eval_stack, engine, first, tmp_path):
    engine.lives["report"], engine.logs["report"] = [["running", 1]], ["sim-client: run.json is damaged."]
    ended = eval_stack(*first)
    assert ended.out.startswith(
        "first on StackCube-v1: sim-client report /results/first/StackCube-v1 --json ended with code 1: sim-client: "
        "run.json is damaged.\n"
    )
    assert ended.code == 1
    assert nothing_is_left(engine)


def test_what_the_engine_refuses_ends_the_run_and_leaves_nothing(eval_stack, engine, first, monkeypatch):
    def refuse(container):
        if container.role == "sim":
            raise refused(500, "no space left on device")

    monkeypatch.setattr(engine, "on_start", refuse)
    ended = eval_stack(*first)
    assert ended.code == 1
    assert ended.err.endswith("eval-stack: The Docker engine refused: no space left on device.\n")
    assert nothing_is_left(engine)


def test_episodes_that_ended_in_an_error_or_are_half_written_are_not_counted(eval_stack, engine, first, monkeypatch):
    def some(container):
        if container.role == "sim":
            write_results(container, "StackCube-v1")
            (folder,) = {source for target, source in container.mounts.items() if target == "/results/first"}
            lines = [{"seed": 0, "outcome": "success"}, {"seed": 0, "outcome": "failure"}]
            lines += [{"seed": 1, "outcome": "error"}, {"seed": 99, "outcome": "success"}]
            with open(f"{folder}/StackCube-v1/episodes.jsonl", "w") as file:
                file.write("\n".join(map(json.dumps, lines)) + '\n{"seed": 2, "outcome": "succ')

    monkeypatch.setattr(engine, "on_start", some)
    assert "Episodes: 1 of 4 are finished.\n" in eval_stack(*first).err
