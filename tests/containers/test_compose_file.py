"""The eval stack as Compose reads it, without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SCHEMA = ROOT / "tests/data/compose/compose_spec.json"
VARIABLE = re.compile(r"\$\{(\w+)\}")


def defaults() -> dict[str, str]:
    lines = (DOCKER / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def stack() -> dict[str, Any]:
    """With the defaults in the places of the variables."""
    text = (DOCKER / "compose.yaml").read_text()
    return yaml.safe_load(VARIABLE.sub(lambda found: defaults()[found[1]], text))


SERVICES = stack()["services"]


def on(profile: str) -> set[str]:
    return {name for name, service in SERVICES.items() if profile in service["profiles"]}


def test_it_is_what_the_compose_specification_allows():
    schema = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    schema.validate(stack())
    mistaken = stack()
    mistaken["services"]["sim"]["comand"] = "--env StackCube-v1"
    assert [error.message for error in schema.iter_errors(mistaken)] == [
        "'comand' does not match any of the regexes: '^x-'"
    ]


def test_every_variable_has_a_default_and_every_default_is_used():
    used = set(VARIABLE.findall((DOCKER / "compose.yaml").read_text()))
    assert used == set(defaults()) - {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}


def test_the_profiles_hold_a_server_and_its_clients():
    assert on("cpu") == {"server", "sim"}
    assert on("suite") == {"server", "suite"}
    assert on("gpu") == {"server-gpu", "sim-gpu"}
    assert on("suite-gpu") == {"server-gpu", "suite-gpu"}
    assert on("train") == {"train"}
    assert on("train-gpu") == {"train-gpu"}
    assert defaults()["COMPOSE_PROFILES"] == "cpu"


@pytest.mark.parametrize("name", ["sim", "suite", "sim-gpu", "suite-gpu"])
def test_clients_start_when_the_server_is_ready(name):
    (server, condition), *others = SERVICES[name]["depends_on"].items()
    assert not others
    assert condition == {"condition": "service_healthy"}
    assert set(SERVICES[name]["profiles"]) <= set(SERVICES[server]["profiles"])
    assert "policy-server" in SERVICES[server]["networks"]["default"]["aliases"]
    assert "ws://policy-server:8000" in SERVICES[name]["entrypoint"]
    dockerfile = (DOCKER / "policy_server.Dockerfile").read_text()
    assert "HEALTHCHECK" in dockerfile
    assert "/readyz" in dockerfile


@pytest.mark.parametrize("name", SERVICES)
def test_containers_can_write_into_their_folders_only_and_have_no_privileges(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["SETUID", "SETGID", "SETPCAP"]  # as-owner gives them up
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    folders = [mount["target"] for mount in service["volumes"] if isinstance(mount, dict)]
    assert service["entrypoint"][:2] == ["as-owner", folders[-1]]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_built_from_files_that_are_there(name):
    build = SERVICES[name]["build"]
    context = DOCKER / build["context"]
    assert context.resolve() == ROOT
    dockerfile = (context / build["dockerfile"]).read_text()
    declared = set(re.findall(r"^ARG (.+)$", dockerfile, re.MULTILINE))
    names = {argument.partition("=")[0] for line in declared for argument in line.split()}
    assert set(build["args"]) <= names


def test_ports_are_published_on_the_loopback_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_gpu_services_ask_for_a_gpu_each():
    on_gpus = on("gpu") | on("suite-gpu") | on("train-gpu")
    for name, service in SERVICES.items():
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        # More capabilities would replace those that the image asks for: "graphics" alone leaves CUDA out.
        assert all(device["capabilities"] == ["gpu"] for device in devices)
        assert [device["driver"] for device in devices] == (["nvidia"] if name in on_gpus else [])
