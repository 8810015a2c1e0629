"""The policy server: a policy's action chunks over the wire.

On the command line it is `serve --checkpoint …/29999`. From Python:

    from policy_server import load_policy

    chunk = load_policy("runs/…/29999")(observation)   # the same policy in this process, without a server

Names are loaded when first used: `serve --help` need not wait for jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policy_server.session import Question, Session
    from training.pi05.load import load_policy
    from training.pi05.policy import Policy

__all__ = ["Policy", "Question", "Session", "load_policy"]

_HOMES = {
    "Policy": "training.pi05.policy",
    "Question": "policy_server.session",
    "Session": "policy_server.session",
    "load_policy": "training.pi05.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
