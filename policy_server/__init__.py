"""The policy server: a checkpoint's action chunks over the wire.

On the command line it is `serve --checkpoint …/29999`. From Python:

    from policy_server import load_policy

    chunk = load_policy("runs/…/29999")(observation)   # the same policy in this process, without a server
"""

from policy_server.session import Question, Session
from training.pi05.load import load_policy
from training.pi05.policy import Policy

__all__ = ["Policy", "Question", "Session", "load_policy"]
