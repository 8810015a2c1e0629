"""Policies by the name that `--policy` takes."""

from __future__ import annotations

from pathlib import Path

from policy_protocol.errors import ChunkwireError, did_you_mean
from policy_server.log import log
from policy_server.policies.dummy import DummyPolicy, random_policy, zeros_policy
from policy_server.policies.recorded_files import read_recording
from policy_server.policies.replay import ReplayPolicy
from training.pi05.released import RELEASED, find_spec

__all__ = ["PolicyUnknown", "named_policy"]

_BY_NAME = {"random": random_policy, "zeros": zeros_policy}


class PolicyUnknown(ChunkwireError):
    """`--policy` does not say which policy."""

    code = "policy_unknown"


def named_policy(name: str, spec: str | None = None) -> DummyPolicy:
    """The policy of `--policy`: `random`, `zeros` or `replay:DATASET`.

    Args:
        spec: name or file of the spec that the policy stands in for; a replay has its own without it.

    Raises:
        PolicyUnknown: no such policy, or it needs a spec.
        SpecInvalid, SpecMismatch, RecordingInvalid: the spec or the recording cannot be used.
    """
    kind, _, source = name.partition(":")
    if kind == "replay" and source:
        recording = read_recording(Path(source))
        log.info("replaying %d episodes of %s", len(recording.actions), source)
        return ReplayPolicy(recording, None if spec is None else find_spec(spec))
    if kind == "replay":
        raise PolicyUnknown("--policy replay does not say what to replay. Pass --policy replay:DATASET.")
    if name not in _BY_NAME:
        raise PolicyUnknown(f"There is no policy {name!r}.{did_you_mean(name, [*_BY_NAME, 'replay:DATASET'])}")
    if spec is None:
        raise PolicyUnknown(
            f"--policy {name} needs to know what to pretend to be. Pass --spec with the name of a released policy "
            f"({', '.join(RELEASED)}) or with a file such as CHECKPOINT/assets/policy_spec.json."
        )
    return _BY_NAME[name](find_spec(spec))
