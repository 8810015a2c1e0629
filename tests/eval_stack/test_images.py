"""Where images come from."""

from __future__ import annotations

from eval_stack import images

SERVER = "chunkwire/policy-server:cpu"


def test_images_that_are_there_are_taken(eval_stack, engine, first):
    assert eval_stack(*first).code == 0
    assert engine.api.builds == []
    assert engine.api.pulls == []


def test_a_missing_image_is_built_with_the_arguments_of_flags_and_environment(eval_stack, engine, first, monkeypatch):
    engine.images.here.remove(SERVER)
    engine.api.events = [{"stream": "Step 1/9 : ARG BASE\n"}, {"stream": " ---> 1\n"}]
    monkeypatch.setenv("PIP_INDEX_URL", "http://mirror/simple")
    ended = eval_stack(*first, "--base-image", "debian:trixie-slim", "--build-network", "host")
    (build,) = engine.api.builds
    assert build["path"] == str(images.CHECKOUT)
    assert build["dockerfile"] == "docker/policy_server.Dockerfile"
    assert build["tag"] == SERVER
    assert build["network_mode"] == "host"
    assert build["buildargs"] == {
        "BASE": "debian:trixie-slim",
        "PIP_INDEX_URL": "http://mirror/simple",
        "ACCELERATOR": "cpu",
    }
    assert f"Building {SERVER} from docker/policy_server.Dockerfile.\nbuild | Step 1/9 : ARG BASE\n" in ended.err
    assert ended.code == 0


def test_build_builds_both_images_anew(eval_stack, engine, first):
    assert eval_stack(*first, "--build").code == 0
    assert [build["tag"] for build in engine.api.builds] == [SERVER, "chunkwire/sim-client"]


def test_a_build_that_fails_shows_the_end_of_its_output(eval_stack, engine, first):
    engine.api.events = [{"stream": "Step 4/9 : RUN pip\n"}, {"stream": "no such package\n"}, {"error": "pip: code 1"}]
    ended = eval_stack(*first, "--build")
    assert ended.code == 1
    assert ended.err.endswith(
        f"eval-stack: {SERVER} could not be built: pip: code 1. The end of the output:\n"
        "  Step 4/9 : RUN pip\n  no such package\n"
    )
    assert engine.ever == []


def test_pull_pulls_both_images(eval_stack, engine, first):
    engine.api.events = [{"id": "layer", "progressDetail": {"current": 10**6, "total": 10**7}}]
    assert eval_stack(*first, "--pull", "--sim-image", "registry:5000/sim").code == 0
    assert engine.api.pulls == [("chunkwire/policy-server", "cpu"), ("registry:5000/sim", "latest")]


def test_a_pull_that_fails_tells_why(eval_stack, engine, first):
    engine.api.events = [{"error": "access denied"}]
    ended = eval_stack(*first, "--pull")
    assert ended.code == 1
    assert ended.err.endswith(
        f"eval-stack: {SERVER} could not be pulled: access denied. Build it from a checkout (--build), or name another "
        "image: --server-image, --sim-image.\n"
    )


def test_no_build_wants_images_that_are_there(eval_stack, engine, first):
    engine.images.here.remove("chunkwire/sim-client")
    ended = eval_stack(*first, "--no-build")
    assert ended.code == 1
    assert ended.err == (
        "eval-stack: The engine has no image chunkwire/sim-client, and --no-build forbids to make it. Leave --no-build "
        "out, or build it: docker build -f docker/sim_client.Dockerfile -t chunkwire/sim-client .\n"
    )
    assert engine.ever == []


def test_without_a_checkout_a_missing_image_is_pulled_and_build_is_refused(
    eval_stack, engine, first, tmp_path, monkeypatch
):
    for module in ("images", "image_supply"):
        monkeypatch.setattr(f"eval_stack.{module}.CHECKOUT", tmp_path)
    engine.images.here.remove(SERVER)
    assert eval_stack(*first).code == 0
    assert engine.api.pulls == [("chunkwire/policy-server", "cpu")]
    assert eval_stack(*first, "--build").err.endswith(
        f"{SERVER} is built from docker/policy_server.Dockerfile, and {tmp_path} holds none: this is no checkout of "
        "Chunkwire. Run eval-stack from a checkout, or pass --pull.\n"
    )
