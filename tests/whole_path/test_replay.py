"""Nothing between a demonstration and the controller bends an action.

`benchmarks/replay.py` does the same for four tasks and many demonstrations.
"""

from __future__ import annotations

import hashlib

import pytest
from both_environments import evaluate, records, serving

from policy_server.policies.recorded_files import read_recording

pytestmark = pytest.mark.timeout(1_200)  # whichever comes first waits for the policy


def test_demonstrations_that_are_served_again_succeed_by_the_very_same_actions(
    dataset, demonstrations, workspace, environment
):
    out = workspace / "replay"
    which = ("--on-demonstrations", "--episodes", 2, "--settle", 0, "--workers", 1)
    with serving("--policy", f"replay:{dataset}", environment=environment) as server:
        output = evaluate(server, out, *which, env=environment)
    assert "success_once 2/2 = 100%" in output
    recorded = read_recording(demonstrations).actions  # of the collected file: converting it may bend nothing either
    for record in records(out):
        executed = recorded[record["seed"]][: record["steps"]]
        assert record["action_hash"] == hashlib.blake2b(executed.tobytes(), digest_size=8).hexdigest()
