"""The batcher: one thread, batches of what is waiting, nobody forgotten."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from policy_protocol.errors import DeadlineExceeded, InternalError, Overloaded
from policy_server.engine.batcher import Batcher
from policy_server.engine.fair_queue import FairQueue
from training.pi05.released import RELEASED

LIBERO = RELEASED["pi05_libero"].spec


class CountingPolicy:
    """Answers each row with its own number; waits for `gate` and fails on negative rows."""

    noise_shape = (2, 1)
    prompt_lengths = (16, 32)
    spec = LIBERO

    def __init__(self, replicas=1):
        self.replicas = replicas
        self.replicas_used = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches = []
        self.compiled = []

    def compile(self, batch, prompt_length, replica=0):
        self.compiled.append((batch, prompt_length))

    def finish_compiling(self):
        self.compiled.append("finished")

    def launch(self, rows, noise, pad_to=None, replica=0):
        self.batches.append((list(rows), pad_to))
        return CountingBatch(self, list(rows), noise, replica)


class CountingBatch:
    checkpoint = "pi05_libero/openpi/0"

    def __init__(self, policy, rows, noise, replica):
        self.policy, self.rows, self.noise = policy, rows, noise
        policy.replicas_used.add(replica)

    def wait(self):
        self.policy.entered.set()
        assert self.policy.gate.wait(30)
        if min(self.rows) < 0:
            raise RuntimeError("device lost")

    def actions(self):
        return np.array([[[row], [self.noise[index, 0, 0]]] for index, row in enumerate(self.rows)], np.float64)


@pytest.fixture
def policy():
    return CountingPolicy()


@pytest.fixture
def batcher(policy):
    batcher = Batcher(policy, (1, 4), max_waiting=6)
    batcher.start()
    yield batcher
    policy.gate.set()
    batcher.stop()


def blocked(policy, batcher):
    """Occupy the device with one row; returns its future."""
    policy.entered.clear()
    policy.gate.clear()
    first = batcher.submit(0, 1, None)
    assert policy.entered.wait(10)
    return first


def test_every_batch_shape_and_prompt_length_is_compiled_ahead(policy, batcher):
    seen = []
    batcher.compile(lambda done, total, shape: seen.append((done, total)))
    assert policy.compiled == [(1, 16), (4, 16), (1, 32), (4, 32), "finished"]
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)


def test_a_first_run_that_fails_fails_before_anything_is_answered(policy, batcher):
    def finish_compiling():
        raise RuntimeError("out of memory")

    policy.finish_compiling = finish_compiling
    seen = []
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.compile(lambda done, total, shape: seen.append(shape))
    assert "ready" not in seen


def test_what_waits_while_the_device_is_busy_leaves_as_one_batch(policy, batcher):
    first = blocked(policy, batcher)
    waiting = [batcher.submit(row, row, None) for row in (1, 2, 3)]
    policy.gate.set()
    assert [future.result(10).actions[0, 0] for future in (first, *waiting)] == [0, 1, 2, 3]
    assert policy.batches == [([0], 1), ([1, 2, 3], 4)]


def test_a_row_has_the_noise_of_its_seed_alone_or_in_a_batch(policy, batcher):
    alone = batcher.submit(7, 99, None).result(10).actions[1, 0]
    first = blocked(policy, batcher)
    waiting = [batcher.submit(row, seed, None) for row, seed in ((1, 1), (7, 99))]
    policy.gate.set()
    first.result(10)
    assert waiting[1].result(10).actions[1, 0] == alone


def test_a_full_queue_answers_overloaded_at_once(policy, batcher):
    blocked(policy, batcher)
    for row in range(6):
        batcher.submit(row, None, None)
    with pytest.raises(Overloaded, match="6 requests are waiting already"):
        batcher.submit(9, None, None)


def test_rows_that_do_not_all_fit_into_the_queue_leave_it_as_it_is(policy, batcher):
    blocked(policy, batcher)
    batcher.submit_all([(row, None) for row in range(4)])
    with pytest.raises(Overloaded, match="6 requests are waiting already"):
        batcher.submit_all([(row, None) for row in range(3)])
    assert batcher.waiting == 4


def test_a_free_device_begins_with_all_rows_of_a_request(policy, batcher):
    for _ in range(100):  # the device thread wakes for the first row
        for done in batcher.submit_all([(row, None) for row in range(4)]):
            done.result(10)
    assert policy.batches == [([0, 1, 2, 3], 4)] * 100


def test_an_expired_row_is_dropped_before_the_device_sees_it(policy, batcher):
    first = blocked(policy, batcher)
    late = batcher.submit(5, None, time.perf_counter() + 0.001)
    threading.Event().wait(0.05)
    policy.gate.set()
    first.result(10)
    with pytest.raises(DeadlineExceeded, match="deadline passed while the request was waiting"):
        late.result(10)
    assert all(5 not in rows for rows, _ in policy.batches)


def test_a_device_error_costs_its_own_batch_only(policy, batcher):
    with pytest.raises(InternalError, match="the server's log has the reason"):
        batcher.submit(-1, None, None).result(10)
    assert batcher.submit(3, None, None).result(10).actions[0, 0] == 3


def test_a_row_of_nan_costs_that_row_only(policy, batcher):
    first = blocked(policy, batcher)
    broken, healthy = batcher.submit(np.nan), batcher.submit(4)
    policy.gate.set()
    first.result(10)
    with pytest.raises(InternalError, match="NaN or infinite actions; the weights are probably damaged"):
        broken.result(10)
    assert healthy.result(10).actions[0, 0] == 4


def test_stopping_answers_what_waits(policy, batcher):
    blocked(policy, batcher)
    waiting = [batcher.submit(row, None, None) for row in range(5)]
    stopper = threading.Thread(target=batcher.stop)
    stopper.start()
    policy.gate.set()
    stopper.join(10)
    assert [future.result(0).actions[0, 0] for future in waiting] == [0, 1, 2, 3, 4]


def test_times_are_those_of_the_request(policy, batcher):
    first = blocked(policy, batcher)
    second = batcher.submit(1, None, None)
    threading.Event().wait(0.05)
    policy.gate.set()
    assert first.result(10).timing["infer_ms"] >= 40
    assert second.result(10).timing["queue_ms"] >= 40


def test_a_chunk_says_which_checkpoint_computed_it(policy, batcher):
    assert batcher.submit(1).result(10).checkpoint == "pi05_libero/openpi/0"


def test_under_load_a_full_batch_is_launched_while_another_computes(policy, batcher):
    first = blocked(policy, batcher)
    waiting = [batcher.submit(row) for row in range(1, 6)]
    policy.gate.set()
    for future in (first, *waiting):
        future.result(10)
    assert [rows for rows, _ in policy.batches] == [[0], [1, 2, 3, 4], [5]]


def test_every_replica_takes_from_the_one_queue():
    policy = CountingPolicy(replicas=2)
    batcher = Batcher(policy, (1,))
    batcher.compile()
    assert len(policy.compiled) == 2 * 2 + 1  # the shapes of every replica, and the end
    policy.gate.clear()
    batcher.start()
    futures = [batcher.submit(row) for row in range(2)]
    while len(policy.batches) < 2:
        time.sleep(0.01)
    policy.gate.set()
    assert [future.result(10).actions[0, 0] for future in futures] == [0, 1]
    assert policy.replicas_used == {0, 1}
    batcher.stop()


class Counts:
    def __init__(self):
        self.batches, self.waits = [], []

    def batch(self, rows, padded, seconds, replica):
        self.batches.append((rows, padded, replica))

    def queued(self, seconds):
        self.waits.append(seconds)


def test_every_batch_and_every_wait_is_counted(policy):
    counts = Counts()
    batcher = Batcher(policy, (1, 4), metrics=counts)
    batcher.start()
    batcher.submit(0).result(10)
    batcher.stop()
    assert counts.batches == [(1, 1, 0)]
    assert len(counts.waits) == 1


def test_clients_take_turns_however_many_rows_one_of_them_sends():
    queue = FairQueue(100)
    for row in range(5):
        queue.put([f"a{row}"], "a")
    for client in "bc":
        queue.put([f"{client}0"], client)
    assert queue.take(4) == ["a0", "b0", "c0", "a1"]
    queue.put(["b1"], "b")
    assert queue.take(8) == ["a2", "b1", "a3", "a4"]
    assert len(queue) == 0


def test_a_closed_queue_gives_what_it_has_and_then_nothing():
    queue = FairQueue(2)
    assert queue.put([1], None)
    queue.close()
    assert not queue.put([2], None)
    assert queue.take(5) == [1]
    assert queue.take(5) == []


def test_rows_of_clients_that_left_cost_nobody_a_turn_or_a_place():
    gone = {"a0", "a1", "b0"}
    queue = FairQueue(5, wanted=lambda row: row not in gone)
    for row in ("a0", "a1", "a2", "b0"):
        queue.put([row], row[0])
    assert queue.take(1) == ["a2"]
    for row in ("c0", "a0", "c1", "c2", "a1"):
        assert queue.put([row], row[0])
    assert queue.take_ahead(4) == []  # three of them are wanted
    assert queue.take_ahead(3) == ["c0", "c1", "c2"]
    assert len(queue) == 0


def test_a_queue_full_of_rows_that_nobody_wants_takes_new_ones(policy, batcher):
    first = blocked(policy, batcher)
    for left in [batcher.submit(row) for row in range(1, 7)]:
        assert left.cancel()
    wanted = batcher.submit(9)
    assert batcher.waiting == 1
    policy.gate.set()
    assert (first.result(10).actions[0, 0], wanted.result(10).actions[0, 0]) == (0, 9)
    assert policy.batches == [([0], 1), ([9], 1)]


def test_a_taker_does_not_end_for_a_queue_of_rows_that_nobody_wants():
    queue, taken = FairQueue(5, wanted=lambda row: row != "gone"), []
    taker = threading.Thread(target=lambda: taken.extend(queue.take(2)), daemon=True)
    queue.put(["gone"], None)
    taker.start()
    time.sleep(0.05)
    queue.put(["wanted"], None)
    taker.join(10)
    assert taken == ["wanted"]


def test_a_busy_taker_gets_a_full_batch_or_nothing_and_nothing_while_another_is_idle():
    queue = FairQueue(10)
    for row in range(3):
        queue.put([row], row)
    assert queue.take_ahead(4) == []
    queue.put([3], 3)
    assert queue.take_ahead(4) == [0, 1, 2, 3]
    taken, looked = [], threading.Event()
    queue._wakes = SimpleNamespace(put=lambda _: None, get=lambda: looked.wait(10))
    idle = threading.Thread(target=lambda: taken.append(queue.take(1)))
    idle.start()
    while not queue._asleep:  # nothing else tells that it waits
        time.sleep(0.001)
    queue.put([4], 4)
    assert queue.take_ahead(1) == []  # the idle one is woken, and has not looked yet
    looked.set()
    idle.join(10)
    assert taken == [[4]]
