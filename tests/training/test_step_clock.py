"""Which time counts as waiting for data, on a device that computes until it is told to stop."""

import threading
import time

import pytest

from training.step_clock import StepClock


@pytest.fixture
def clock():
    return StepClock(batch_size=2)


class Result:
    """What a step computes: it is there once `ended` is set."""

    def __init__(self):
        self.ended = threading.Event()

    def block_until_ready(self):
        assert self.ended.wait(30)


def begin_step(clock):
    result = Result()
    clock.began(result)
    return result.ended


def waited_seconds(clock):
    line = clock.record(0, {})
    return line["data_wait_share"] * line["step_seconds"]


def test_time_in_which_the_device_has_nothing_to_do_is_waiting(clock):
    assert clock.waited(lambda: time.sleep(0.2) or "batch") == "batch"
    assert waited_seconds(clock) == pytest.approx(0.2, abs=0.1)


def test_time_in_which_the_device_computes_is_no_waiting(clock):
    ended = begin_step(clock)
    clock.waited(lambda: time.sleep(0.2))
    ended.set()
    assert waited_seconds(clock) == 0


def test_when_a_step_ends_before_the_next_batch_is_there_the_rest_is_waiting(clock):
    ended = begin_step(clock)

    def take():
        time.sleep(0.5)
        ended.set()
        time.sleep(0.2)

    clock.waited(take)
    assert waited_seconds(clock) == pytest.approx(0.2, abs=0.1)


def test_no_more_than_two_steps_are_under_way(clock):
    first = begin_step(clock)
    second = threading.Thread(target=lambda: begin_step(clock).set())
    second.start()
    time.sleep(0.2)
    assert second.is_alive()
    first.set()
    second.join(30)
    assert not second.is_alive()
