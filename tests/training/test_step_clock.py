"""Which time counts as waiting for data, on a device that computes until it is told to stop."""

import threading

import pytest

from training.step_clock import StepClock


class Time:
    """Passes as it is told."""

    def __init__(self):
        self.now, self.reader = 0.0, threading.get_ident()
        self.read_elsewhere = threading.Event()
        """Set when another thread has read the time: the one that waits for a step's end."""

    def __call__(self):
        now = self.now
        if threading.get_ident() != self.reader:
            self.read_elsewhere.set()
        return now

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def clock(time):
    return StepClock(batch_size=2, clock=time)


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


def test_time_in_which_the_device_has_nothing_to_do_is_waiting(clock, time):
    assert clock.waited(lambda: time.passes(2) or "batch") == "batch"
    time.passes(6)
    line = clock.record(0, {})
    assert line == {"step": 0, "step_seconds": 8, "samples_per_second": 0.25, "data_wait_share": 0.25}


def test_time_in_which_the_device_computes_is_no_waiting(clock, time):
    ended = begin_step(clock)
    clock.waited(lambda: time.passes(2))
    ended.set()
    assert waited_seconds(clock) == 0


def test_when_a_step_ends_before_the_next_batch_is_there_the_rest_is_waiting(clock, time):
    ended = begin_step(clock)

    def take():
        time.passes(5)
        ended.set()
        assert time.read_elsewhere.wait(30)
        time.passes(2)

    clock.waited(take)
    assert waited_seconds(clock) == pytest.approx(2)


def test_no_more_than_two_steps_are_under_way(clock):
    first = begin_step(clock)
    second = threading.Thread(target=lambda: begin_step(clock).set())
    second.start()
    second.join(0.2)
    assert second.is_alive()
    first.set()
    second.join(30)
    assert not second.is_alive()


def test_a_step_that_runs_when_a_validation_begins_counts_and_the_validation_does_not(clock, time):
    clock.waited(lambda: None)
    ended = begin_step(clock)

    def end():
        time.passes(3)
        ended.set()

    threading.Timer(0.2, end).start()
    with clock.untimed():
        assert ended.wait(30)  # a validation reads the state, which waits for the step
        time.passes(10)
    assert clock.record(0, {})["step_seconds"] == 3
