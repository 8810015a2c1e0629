"""Quick transforms run at once; slow ones and large requests never hold up the event loop."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from policy_protocol.errors import DeadlineExceeded, InvalidObservation
from policy_protocol.jpeg import JpegImage
from policy_server import short_work
from policy_server.policies.prepare import Preparation
from policy_server.session import Question


class Transforming:
    """Says on which thread it was called."""

    spec = SimpleNamespace(observation=SimpleNamespace(cameras=()))  # no camera, hence no JPEG to decode

    def __init__(self, seconds):
        self.seconds = seconds

    def transform(self, observation):
        time.sleep(self.seconds)
        return threading.current_thread()


NEVER = math.inf


class Gated(Transforming):
    """Holds each row until `gate` is set."""

    def __init__(self):
        self.gate, self.entered, self.rows = threading.Event(), threading.Event(), []

    def transform(self, observation):
        self.rows.append(observation)
        self.entered.set()
        assert self.gate.wait(10)


def question(*observations):
    return Question(observations, None, len(observations) > 1, None, None, 1)


def threads_of(preparation, asked, times=3):
    async def ask():
        return [set(await preparation.rows(asked, NEVER)) for _ in range(times)]

    return asyncio.run(ask())


SMALL = {"image": np.zeros((8, 8, 3), np.uint8), "prompt": "go"}


def test_the_first_request_goes_to_a_thread_and_quick_ones_then_run_at_once():
    here = {threading.current_thread()}
    first, *later = threads_of(Preparation(Transforming(0)), question(SMALL), times=60)
    assert first != here
    assert later[-1] == here  # and not the second already: it may seem slow on a machine that others use


@pytest.mark.parametrize(
    ("seconds", "asked"),
    [
        (0.002, question(SMALL)),
        (0, question({**SMALL, "image": np.zeros((1024, 1024, 3), np.uint8)})),
        (0, question({**SMALL, "prompt": "go " * 500_000})),
        (0, question({**SMALL, "prompt": b"go " * 500_000})),
        (0, question({**SMALL, "images": {"left": np.zeros((8, 8, 3), np.uint8)}})),
    ],
)
def test_what_may_take_long_goes_to_a_thread_every_time(seconds, asked):
    here = {threading.current_thread()}
    assert here not in threads_of(Preparation(Transforming(seconds)), asked)


def test_who_leaves_during_a_row_is_prepared_no_more_rows_and_counts_until_that_one_is_done():
    policy = Gated()

    async def leave():
        preparing = asyncio.create_task(Preparation(policy).rows(question(*[SMALL] * 5), NEVER))
        await asyncio.to_thread(policy.entered.wait, 10)
        for _ in range(3):  # a connection that closes while the server ends cancels more than once
            preparing.cancel()
            await asyncio.wait({preparing}, timeout=0.05)
            assert not preparing.done()
        policy.gate.set()
        await asyncio.wait({preparing}, timeout=10)
        return preparing.cancelled()

    assert asyncio.run(leave())
    assert len(policy.rows) == 1


def test_who_leaves_before_a_thread_is_free_is_not_prepared_at_all(monkeypatch):
    monkeypatch.setattr(short_work, "_THREADS", ThreadPoolExecutor(1))
    first, second = Gated(), Gated()

    async def leave():
        one = asyncio.create_task(Preparation(first).rows(question(SMALL), NEVER))
        await asyncio.to_thread(first.entered.wait, 10)
        other = asyncio.create_task(Preparation(second).rows(question(SMALL), NEVER))
        await asyncio.sleep(0.05)
        other.cancel()
        await asyncio.wait({other}, timeout=10)
        first.gate.set()
        await one
        return other.cancelled()

    assert asyncio.run(leave())
    assert second.rows == []


def test_the_deadline_is_looked_at_before_every_row():
    policy = Transforming(0.2)
    with pytest.raises(DeadlineExceeded) as error:
        asyncio.run(Preparation(policy).rows(question(*[SMALL] * 50), time.perf_counter() + 0.3))
    assert error.value.message == "The deadline passed while the request was being prepared."


def test_a_row_is_transformed_before_the_next_ones_images_are_decoded():
    seen = []
    policy = SimpleNamespace(spec=Transforming.spec, transform=seen.append)
    with pytest.raises(InvalidObservation, match="is a JPEG, but the policy has no camera of this name"):
        asyncio.run(Preparation(policy).rows(question(SMALL, {"image": JpegImage(b"")}), NEVER))
    assert seen == [SMALL]
