"""Quick transforms run at once; slow ones and large requests never hold up the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

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


def question(*observations):
    return Question(observations, None, len(observations) > 1, None, None, 1)


def threads_of(preparation, asked, times=3):
    async def ask():
        return [set(await preparation.rows(asked)) for _ in range(times)]

    return asyncio.run(ask())


SMALL = {"image": np.zeros((8, 8, 3), np.uint8), "prompt": "go"}


def test_the_first_request_goes_to_a_thread_and_quick_ones_then_run_at_once():
    here = {threading.current_thread()}
    first, *later = threads_of(Preparation(Transforming(0)), question(SMALL))
    assert first != here
    assert later == [here, here]


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
