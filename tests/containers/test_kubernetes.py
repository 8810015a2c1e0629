"""The manifests as the cluster's schema reads them, with each overlay's patches applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "docker/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())


def read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def manifests(overlay: str) -> dict[str, dict[str, Any]]:
    """Kind/name -> manifest, patched as kustomize does it."""
    folder = KUBERNETES / "overlays" / overlay
    (kustomization,) = read(folder / "kustomization.yaml")
    (base,) = [(folder / resource).resolve() for resource in kustomization["resources"]]
    (below,) = read(base / "kustomization.yaml")
    found = {}
    for manifest in (one for file in below["resources"] for one in read(base / file)):
        found[f"{manifest['kind']}/{manifest['metadata']['name']}"] = manifest
    for patch in kustomization["patches"]:
        name = f"{patch['target']['kind']}/{patch['target']['name']}"
        found[name] = jsonpatch.apply_patch(found[name], yaml.safe_load(patch["patch"]))
    return found


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid_and_nothing_in_it_is_unknown(overlay):
    found = manifests(overlay)
    assert {"Deployment/chunkwire-server", "Service/policy-server", "Job/chunkwire-sim"} < set(found)
    for manifest in found.values():
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_the_shelf_holds_both_volumes_and_can_write_them():
    (shelf,) = read(KUBERNETES / "shelf.yaml")
    kubernetes_validate.validate(shelf, "1.37", strict=True)
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in shelf["spec"]["volumes"]}
    storage = read(KUBERNETES / "base/storage.yaml")
    assert claims == {claim["metadata"]["name"] for claim in storage}
    assert not any(mount.get("readOnly") for mount in shelf["spec"]["containers"][0]["volumeMounts"])


def test_the_schema_finds_what_is_wrong():
    server = manifests("cpu")["Deployment/chunkwire-server"]
    pod(server)["containers"][0]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="prots"):
        kubernetes_validate.validate(server, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_clients_find_the_server_and_share_one_list(overlay):
    found = manifests(overlay)
    server, job = found["Deployment/chunkwire-server"], found["Job/chunkwire-sim"]
    service = found["Service/policy-server"]
    assert service["spec"]["selector"].items() <= server["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in pod(server)["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    assert job["spec"]["completionMode"] == "Indexed"
    arguments = pod(job)["containers"][0]["args"]
    assert f"--server=ws://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}" in arguments
    assert "--share" in arguments


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_arguments_name_stands_in_the_overlay(overlay):
    (kustomization,) = read(KUBERNETES / "overlays" / overlay / "kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    assert generator["name"] == "evaluation"
    given = {literal.partition("=")[0] for literal in generator["literals"]}
    used = set()
    for name in ("Deployment/chunkwire-server", "Job/chunkwire-sim"):
        container = pod(manifests(overlay)[name])["containers"][0]
        assert container["envFrom"] == [{"configMapRef": {"name": "evaluation"}}]
        used |= {word.split(")")[0] for argument in container["args"] for word in argument.split("$(")[1:]}
    assert used == given == {"CHECKPOINT", "ENV_ID", "EPISODES", "SEED"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_as_nobody_special_on_a_filesystem_they_cannot_write(overlay):
    for name in ("Deployment/chunkwire-server", "Job/chunkwire-sim"):
        spec = pod(manifests(overlay)[name])
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_only_the_gpu_overlay_asks_for_gpus():
    for overlay in OVERLAYS:
        found = manifests(overlay)
        for name in ("Deployment/chunkwire-server", "Job/chunkwire-sim"):
            limits = pod(found[name])["containers"][0]["resources"]["limits"]
            assert ("nvidia.com/gpu" in limits) == (overlay == "gpu")
