"""What the engine is asked for: containers that can do nothing but their work."""

from __future__ import annotations

import os

from docker.types import EndpointConfig, NetworkingConfig

from eval_stack.container_plan import user_for
from eval_stack.output import make_output


def host_config(container):
    return container.created["host_config"]


def test_every_container_is_confined(eval_stack, engine, two_by_two):
    assert eval_stack(*two_by_two).code == 0
    assert {container.role for container in engine.ever} == {"server", "sim", "report"}
    for container in engine.ever:
        config = host_config(container)
        assert container.created["user"] == f"{os.getuid()}:{os.getgid()}"
        assert config["ReadonlyRootfs"] is True
        assert config["Tmpfs"] == {"/tmp": "exec"}
        assert config["CapDrop"] == ["ALL"]
        assert config["SecurityOpt"] == ["no-new-privileges:true"]
        assert "PortBindings" not in config
        assert "DeviceRequests" not in config or config["DeviceRequests"] == []


def test_on_a_rootless_engine_everything_runs_as_its_root_who_is_the_caller(eval_stack, engine, first):
    engine.security_options = ["name=seccomp,profile=builtin", "name=rootless"]
    assert eval_stack(*first).code == 0
    assert {container.created["user"] for container in engine.ever} == {"0:0"}


def test_a_server_reads_its_checkpoint_and_keeps_what_it_compiles_for_its_user(eval_stack, engine, first, tmp_path):
    assert eval_stack(*first).code == 0
    (server,) = engine.role("server")
    assert host_config(server)["Mounts"] == [
        {"Target": "/checkpoint", "Source": str(tmp_path / "runs/a/1"), "Type": "bind", "ReadOnly": True},
        {"Target": "/cache", "Source": f"chunkwire-cache-{os.getuid()}", "Type": "volume", "ReadOnly": False},
    ]


def test_a_simulator_writes_to_the_folder_of_its_checkpoint_alone(eval_stack, engine, first, tmp_path):
    assert eval_stack(*first).code == 0
    (sim,) = engine.role("sim")
    assert host_config(sim)["Mounts"] == [
        {"Target": "/results/first", "Source": str(tmp_path / "out/first"), "Type": "bind", "ReadOnly": False}
    ]


def test_each_checkpoint_has_a_network_in_which_its_server_has_one_name(eval_stack, engine, two_by_two):
    assert eval_stack(*two_by_two).code == 0
    networks = [server.created["host_config"]["NetworkMode"] for server in engine.role("server")]
    assert [name.rpartition("-")[2] for name in networks] == ["first", "second"]
    assert [sim.created["host_config"]["NetworkMode"] for sim in engine.role("sim")] == networks
    for server, network in zip(engine.role("server"), networks, strict=True):
        endpoint = EndpointConfig("1.41", aliases=["policy-server"])
        assert server.created["networking_config"] == NetworkingConfig({network: endpoint})
    assert {report.created["host_config"]["NetworkMode"] for report in engine.role("report")} == {"none"}


def test_one_task_and_several_lie_in_folders_of_the_same_shape(eval_stack, engine, first, two_by_two, tmp_path):
    assert eval_stack(*first).code == 0
    (alone,) = engine.role("sim")
    assert alone.command[alone.command.index("--out") + 1] == "/results/first/StackCube-v1"
    assert eval_stack(*two_by_two, "--out", tmp_path / "other").code == 0
    several = engine.role("sim")[-1]
    assert several.command[several.command.index("--out") + 1] == "/results/second"
    assert (tmp_path / "out/first/StackCube-v1/run.json").exists()
    assert (tmp_path / "other/second/StackCube-v1/run.json").exists()


def test_gpus_go_to_the_server_and_to_rendering(eval_stack, engine, first):
    assert eval_stack(*first, "--gpu", "--server-gpu", 2, "--sim-gpu", 3).code == 0
    (server,), (sim,) = engine.role("server"), engine.role("sim")
    shared = {"Driver": "nvidia", "Count": 0, "Options": {}}
    # More capabilities here would replace those that the image asks for: "graphics" alone leaves CUDA out.
    assert host_config(server)["DeviceRequests"] == [{**shared, "DeviceIDs": ["2"], "Capabilities": [["gpu"]]}]
    assert host_config(sim)["DeviceRequests"] == [{**shared, "DeviceIDs": ["3"], "Capabilities": [["gpu"]]}]


def test_containers_and_networks_say_whose_they_are(eval_stack, engine, first, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "on_start", lambda container: seen.append(dict(engine.networks.all[0].labels)))
    engine.lives["sim"] = [[1]]
    eval_stack(*first)
    (server,) = engine.role("server")
    assert server.labels["chunkwire.role"] == "server"
    assert seen[0]["chunkwire.role"] == "network"
    assert seen[0]["chunkwire.stack"] == server.labels["chunkwire.stack"]
    assert server.labels["chunkwire.owner.pid"] == str(os.getpid())
    assert server.labels["chunkwire.owner.host"] == os.uname().nodename


def test_root_gives_way_to_the_owner_of_the_folder(tmp_path, monkeypatch):
    """As whom the containers write, and whose the folders are that root makes for them."""
    if os.getuid() != 0:
        assert user_for(tmp_path) == f"{os.getuid()}:{os.getgid()}"
        return
    os.chown(tmp_path, 1234, 5678)
    out = tmp_path / "results/out"
    assert user_for(out) == "1234:5678"
    make_output(out, ("first",))
    assert user_for(out / "first") == "1234:5678"
