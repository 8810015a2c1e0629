"""Many clients ask for steps: one is loaded after the other, and whoever leaves is forgotten."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from policy_protocol.errors import Overloaded
from policy_server.follow import Follower

from .conftest import LIBERO


class Slow:
    """A policy whose steps take until they may."""

    def __init__(self, run):
        self.spec, self.loads, self.may_end = LIBERO, [], threading.Event()
        self.follower = Follower(self, run, self._reload, on_request=True)
        for step in range(1, 8):
            (run / str(step) / "params").mkdir(parents=True)

    def _reload(self, step):
        self.loads.append(int(step.name))
        assert self.may_end.wait(30)
        checkpoint = replace(self.spec.policy.checkpoint, step=int(step.name))
        self.spec = replace(self.spec, policy=replace(self.spec.policy, checkpoint=checkpoint))


async def begun(slow):
    while not slow.loads:
        await asyncio.sleep(0.01)


def test_whoever_leaves_while_its_step_waits_is_forgotten(tmp_path):
    async def play():
        slow = Slow(tmp_path)
        first = asyncio.create_task(slow.follower.load(1))
        await begun(slow)
        second, third = (asyncio.create_task(slow.follower.load(step)) for step in (2, 3))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()  # its step is half loaded, and is loaded to its end
        slow.may_end.set()
        spec = await asyncio.wait_for(third, 30)
        return slow.loads, spec.policy.checkpoint.step

    assert asyncio.run(play()) == ([1, 3], 3)


def test_more_clients_than_may_wait_are_turned_away(tmp_path):
    async def play():
        slow = Slow(tmp_path)
        asked = [asyncio.create_task(slow.follower.load(1))]
        await begun(slow)
        asked += [asyncio.create_task(slow.follower.load(step)) for step in (2, 3, 4, 5)]
        await asyncio.sleep(0)
        with pytest.raises(
            Overloaded, match=r"^4 clients wait for steps of theirs already; the server has one policy\.$"
        ):
            await slow.follower.load(6)
        slow.may_end.set()
        await asyncio.wait_for(asyncio.gather(*asked), 30)
        return slow.loads

    assert asyncio.run(play()) == [1, 2, 3, 4, 5]
