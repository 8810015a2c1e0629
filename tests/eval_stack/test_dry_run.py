"""--dry-run tells everything that would be done, to somebody without an engine too."""

from __future__ import annotations

import re

import docker
from docker.errors import DockerException

from eval_stack.images import CHECKOUT, BuildArguments, server_image_for

SIM = "chunkwire/sim-client"


def test_the_plan_names_images_containers_mounts_commands_and_their_order(
    eval_stack, two_by_two, tmp_path, monkeypatch
):
    def no_engine() -> None:
        raise DockerException

    monkeypatch.setattr(docker, "from_env", no_engine)
    monkeypatch.setattr("eval_stack.plan.user_for", lambda folder: "1000:1001")
    ended = eval_stack(*two_by_two, "--sims", 2, "--dry-run", "--", "--video", "all")
    assert ended.code == 0
    text = re.sub(r"chunkwire-[0-9a-f]{8}", "chunkwire-RUN", ended.out).replace(str(tmp_path), "HERE")
    flags = (
        "--env StackCube-v1,PickCube-v1 --episodes 4 --seed 0 --server ws://policy-server:8000 --connect-timeout 600 "
        "--render-backend cpu --out /results/{0} --share --video all"
    )
    assert text == (
        "Checkpoints x tasks x episodes: 2 x 2 x 4 = 16, to HERE/out\n\nImages\n"
        "  chunkwire/policy-server:cpu: built from docker/policy_server.Dockerfile if it is missing "
        "(BASE=debian:bookworm-slim ACCELERATOR=cpu)\n"
        "  chunkwire/sim-client: built from docker/sim_client.Dockerfile if it is missing (BASE=debian:bookworm-slim)\n"
        + "".join(
            f"\n{number}. {name}: network chunkwire-RUN-{name}\n"
            f"   server chunkwire-RUN-{name}-server (chunkwire/policy-server:cpu) as 1000:1001\n"
            "     serve --host 0.0.0.0 --checkpoint /checkpoint\n"
            f"     mounts HERE/runs/{name}/1 at /checkpoint, read-only\n"
            "     mounts chunkwire-cache-1000 at /cache\n"
            "     until it is healthy, then\n"
            + "".join(
                f"   sim chunkwire-RUN-{name}-sim-{sim} (chunkwire/sim-client) as 1000:1001\n"
                f"     sim-client {flags.format(name)}\n"
                f"     mounts HERE/out/{name} at /results/{name}\n"
                for sim in (1, 2)
            )
            + "     until they are done\n"
            for number, name in ((1, "first"), (2, "second"))
        )
        + f"\nAt the end, in containers of {SIM} without a network\n"
        "     sim-client report /results/first/StackCube-v1 --json\n"
        "     sim-client report /results/first/PickCube-v1 --json\n"
        "     sim-client report /results/second/StackCube-v1 --json\n"
        "     sim-client report /results/second/PickCube-v1 --json\n"
        "     sim-client compare /results/first /results/second --out /results/comparison.md --json\n"
        "     and the index HERE/out/report.md\n"
        "\nNothing was started.\n"
    )
    assert not (tmp_path / "out").exists()


def test_gpus_are_given_to_the_server_and_to_rendering(eval_stack, first):
    ended = eval_stack(*first, "--gpu", "--sim-gpu", 1, "--dry-run")
    assert re.search(r"-server \(chunkwire/policy-server\) as \d+:\d+, GPU 0\n", ended.out)
    assert re.search(r"-sim-1 \(chunkwire/sim-client\) as \d+:\d+, GPU 1\n", ended.out)
    assert "ACCELERATOR=cuda12" in ended.out
    assert "--render-backend gpu" in ended.out


def test_a_password_of_the_package_index_is_not_shown(eval_stack, first, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:s3cret@index.example/simple")
    ended = eval_stack(*first, "--dry-run")
    assert "PIP_INDEX_URL=https://…@index.example/simple" in ended.out
    assert "s3cret" not in ended.out


def test_the_defaults_are_those_of_compose():
    lines = (CHECKOUT / "docker/.env").read_text().splitlines()
    compose = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    arguments = BuildArguments()
    assert compose["BASE_IMAGE"] == arguments.base_image
    assert compose["BUILD_NETWORK"] == arguments.network
    assert compose["SERVER_IMAGE"] == server_image_for(gpu=False)
    assert compose["SERVER_GPU_IMAGE"] == server_image_for(gpu=True)
    assert compose["SIM_IMAGE"] == SIM
