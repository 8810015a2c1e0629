"""What the images hold, and what they can do without."""

from __future__ import annotations

import os
import subprocess

import pytest
from stacks import run


def inside(image: str, *command: str, **options: str) -> subprocess.CompletedProcess[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    (program, *arguments) = command
    return subprocess.run(
        ["docker", "run", "--rm", *flags, "--entrypoint", program, image, *arguments], capture_output=True, text=True
    )


def missing(image: str, module: str) -> bool:
    found = inside(image, "python3", "-c", f"import importlib.util; print(importlib.util.find_spec('{module}'))")
    return found.stdout == "None\n"


def test_model_and_simulator_never_share_an_image(images):
    for module in ("torch", "mani_skill", "sapien", "sim_client"):
        assert missing(images.server, module), module
        assert missing(images.train, module), module
    for module in ("jax", "flax", "orbax", "policy_server", "training"):
        assert missing(images.sim, module), module
    assert not missing(images.server, "jax")
    assert not missing(images.sim, "mani_skill")


def test_an_image_holds_the_one_command_that_can_run_in_it(images):
    for image, command in ((images.server, "serve"), (images.sim, "sim-client"), (images.train, "train")):
        assert inside(image, "ls", "/opt/project/bin").stdout == f"{command}\n"


@pytest.mark.parametrize("image", ["server", "sim", "train"])
def test_an_image_holds_no_build_tools_and_its_user_is_not_root(images, image):
    name = getattr(images, image)
    assert inside(name, "id", "-u").stdout == "1000\n"
    tools = inside(name, "sh", "-c", "command -v gcc cc make pip pip3 git curl || true")
    assert tools.stdout == ""
    assert missing(name, "pip")


@pytest.mark.parametrize(("image", "program"), [("server", "serve"), ("sim", "sim-client"), ("train", "train")])
def test_the_root_filesystem_may_be_read_only(images, image, program):
    ended = inside(getattr(images, image), program, "--help", read_only="true", tmpfs="/tmp", cap_drop="ALL")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Usage:") or "Usage:" in ended.stdout


def test_the_simulator_renders_without_a_gpu(images):
    ended = inside(images.sim, "python3", "-m", "sim_client.simulator", read_only="true", tmpfs="/tmp", cap_drop="ALL")
    assert ended.returncode == 0, ended.stderr
    assert "llvmpipe" in ended.stdout + ended.stderr


@pytest.mark.parametrize("image", ["server", "sim", "train"])
def test_an_image_says_what_it_is(engine, images, image):
    labels = engine.images.get(getattr(images, image)).labels
    assert labels["org.opencontainers.image.title"].startswith("Chunkwire ")
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize("owner", ["0", "12345"])
def test_who_becomes_a_folders_owner_keeps_no_capability(images, tmp_path, owner):
    folder = tmp_path / "results"
    folder.mkdir()
    os.chown(folder, int(owner), -1)
    flags = ["--user", "0:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    flags += [word for capability in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", capability)]
    mount = ("--volume", f"{folder}:/results")
    command = ("as-owner", "/results", "sh", "-c", "id -u; grep Cap /proc/self/status")
    ended = run("docker", "run", "--rm", *flags, *mount, "--entrypoint", command[0], images.sim, *command[1:])
    user, *capabilities = ended.stdout.splitlines()
    assert user == owner
    assert {line.split()[1] for line in capabilities} == {"0000000000000000"}
