"""Having every server load another step of the run that it follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from policy_protocol import PolicySpec
from policy_protocol.errors import ProtocolViolation, ServerUnavailable, SpecMismatch, StepNotServed
from policy_protocol.steps import STEPS_FEATURE, StepsReply, StepsRequest
from sim_client.wire.link import Link, LinkLost
from sim_client.wire.same_policy import differences

__all__ = ["ask_steps", "require_step"]


def ask_steps(links: Sequence[Link], request: Callable[[], StepsRequest], timeout_s: float) -> list[StepsReply]:
    """The reply of each server, all asked at the same time: loading takes seconds to minutes.

    Raises:
        StepNotServed: a server loads nothing on request, or not this step.
        ServerUnavailable: a server did not answer within `timeout_s`, or its connection was lost.
        ChunkwireError: what a server answered with.
    """
    for link in links:
        _require_feature(link)
    questions = [request() for _ in links]
    pool = ThreadPoolExecutor(len(links))
    try:
        asked = [pool.submit(_ask, link, question, timeout_s) for link, question in zip(links, questions, strict=True)]
        replies = [one.result() for one in asked]
    except LinkLost:
        wait(asked)  # the caller asks again, and a link takes one question at a time
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C must not wait for a server that loads
    for reply in replies:
        if reply.error is not None:
            raise reply.error
    return replies


def require_step(url: str, before: PolicySpec, reply: StepsReply, step: int) -> None:
    """Check that a server serves the step that it was told to, and that the policy is otherwise the same.

    Package versions may differ: a run may have gone on with newer ones.

    Raises:
        ProtocolViolation: it serves another step.
        SpecMismatch: the step expects or gives something else than the one before; names the fields.
    """
    assert reply.spec is not None, "errors are raised before"
    if reply.spec.policy.checkpoint.step != step:
        raise ProtocolViolation(
            f"The policy server at {url} was asked to load step {step} and serves {reply.spec.policy.checkpoint}. "
            "Another client probably asked it for that one meanwhile."
        )
    checkpoint = replace(reply.spec.policy.checkpoint, step=before.policy.checkpoint.step)
    policy = replace(reply.spec.policy, checkpoint=checkpoint, versions=before.policy.versions)
    if fields := differences(before, replace(reply.spec, policy=policy)):
        raise SpecMismatch(
            f"Step {step} at {url} is another policy than {before.policy.checkpoint}: {fields}. Start anew with it."
        )


def _require_feature(link: Link) -> None:
    if STEPS_FEATURE not in link.greeting.features:
        raise StepNotServed(
            f"The policy server at {link.url} loads no steps on request. "
            "Start it with `serve --follow RUN --follow-on-request`."
        )


def _ask(link: Link, question: StepsRequest, timeout_s: float) -> StepsReply:
    try:
        return link.ask_steps(question, timeout_s)
    except TimeoutError as error:
        raise ServerUnavailable(
            f"The policy server at {link.url} did not load the step within {timeout_s:g} s. "
            "See its log; raise --reply-timeout if loading takes that long."
        ) from error
