"""Who runs the episodes, and what the options for it refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_environment import FakeEnvironment, make_settings

from sim_client.crew.inline import InlineCrew
from sim_client.episode.keepsakes import Keepsakes
from sim_client.episode.video import VideoRules
from sim_client.errors import InvalidOption, SimulationError
from sim_client.evaluation.dial import Dial
from sim_client.evaluation.staff import Staff, require_recordable
from sim_client.evaluation.workshop import EpisodeWorkshop
from sim_client.simulator import SimulationSettings

FILMED = Keepsakes(Path("/results/run"), VideoRules("all"))


def workshop(servers: str, keepsakes: Keepsakes = FILMED) -> EpisodeWorkshop:
    return EpisodeWorkshop(make_settings(), None, keepsakes, Dial(servers), 2, FakeEnvironment)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, r"^--workers must be at least 0, not -1\.$"),
        ({"workers": 0, "launcher": "ray"}, r"^--workers must be at least 1, not 0\.$"),
        ({"num_envs": 0}, r"^--num-envs must be at least 1, not 0\.$"),
        ({"launcher": "slurm"}, r"^--launcher must be one of local, ray, not 'slurm'\.$"),
        ({"silence_s": 0.0}, r"^--watchdog must be a number of seconds above 0, not 0\.$"),
        (
            {"ray_address": "auto"},
            r"^--ray-address auto has no effect with --launcher local\. Pass --launcher ray, or leave it out\.$",
        ),
    ],
)
def test_staff_that_cannot_be_is_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        Staff(**options)


def test_no_workers_work_in_this_process(tmp_path):
    assert isinstance(Staff(workers=0).hire(workshop("a:1"), 3, tmp_path, retries=2), InlineCrew)


def test_on_other_machines_loopback_and_folders_are_not_what_they_are_here():
    staff = Staff(launcher="ray", ray_address="ray://head:10001")
    assert staff.notices(workshop("ws://127.0.0.1:8000,ws://gpu:8000")) == [
        "Each worker asks for the policy at ws://127.0.0.1:8000 of its own machine.",
        "Films and observations are written by the workers to /results/run of their own machines; they arrive here "
        "only if that folder is shared.",
    ]
    assert staff.notices(workshop("ws://gpu:8000", Keepsakes())) == []
    assert Staff(launcher="ray").notices(workshop("ws://127.0.0.1:8000")) == []


def test_a_gpu_is_looked_for_on_this_machine_only_where_this_machine_simulates(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = SimulationSettings("StackCube-v1", sim_backend="gpu", render_backend="gpu")
    with pytest.raises(SimulationError, match=r"^--sim-backend gpu needs an NVIDIA GPU"):
        require_recordable(settings, Staff(num_envs=4), VideoRules("none"))
    elsewhere = Staff(num_envs=4, launcher="ray", ray_address="ray://head:10001")
    require_recordable(settings, elsewhere, VideoRules("none"))
    with pytest.raises(InvalidOption, match=r"^--render-backend cpu cannot show"):
        require_recordable(replace(settings, render_backend="cpu"), elsewhere, VideoRules("none"))
