"""The way back to the event loop: in the order of the rows, with one wake for all, and at once when one fails."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest
import uvloop

from policy_server.engine.answers import answers


def asked(count, end):
    """What `answers` gives for futures that `end` ends on another thread, and how often the event loop was woken."""

    async def run():
        futures = [Future() for _ in range(count)]
        waiting = asyncio.ensure_future(answers(futures))
        await asyncio.sleep(0)
        loop, wakes = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *call: (wakes.append(call), wake(*call))
        thread = threading.Thread(target=end, args=(futures,))
        thread.start()
        try:
            return await asyncio.wait_for(waiting, 10), len(wakes)
        finally:
            thread.join(10)

    return asyncio.run(run())


def test_results_come_in_the_order_of_their_futures_with_one_wake_for_all():
    def end(futures):
        for number in reversed(range(100)):
            futures[number].set_result(number)

    assert asked(100, end) == (list(range(100)), 1)


def test_the_first_failure_ends_it_although_others_are_not_done():
    with pytest.raises(ValueError, match="of row 2"):
        asked(5, lambda futures: futures[2].set_exception(ValueError("of row 2")))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_is_cancelled_leaves_futures_that_may_end_after_the_event_loop(run, caplog):
    future = Future()

    async def leave():
        waiting = asyncio.ensure_future(answers([future]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        return waiting.cancelled()

    assert run(leave())
    future.set_result(1)
    assert "exception calling callback" not in caplog.text
