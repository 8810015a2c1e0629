"""When a free device waits a moment, by a clock that only the test moves; and what comes of it with real threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from policy_server.engine.batcher import Batcher
from policy_server.engine.fair_queue import FairQueue
from policy_server.engine.patience import Patience
from policy_server.engine.waiting_row import WaitingRow

SIZES = (1, 2, 4, 8)


class Afternoon:
    """Clients of one device, whose batches take `base` and `each` milliseconds for every row of their shape."""

    def __init__(self, base=13.0, each=1.3, known=SIZES):
        self.ms = 1000.0
        self.patience = Patience(SIZES, lambda: self.ms / 1e3)
        for size in known:
            self.compute(size, base + each * size, times=3)

    def ask(self, client, expires_in=None):
        expires = None if expires_in is None else (self.ms + expires_in) / 1e3
        row = WaitingRow(0, 0, expires, client, queued=self.ms / 1e3)
        self.patience.asked(row)
        return row

    def compute(self, rows, ms, times=1):
        for _ in range(times):
            self.patience.computed(rows, ms / 1e3)

    def know(self, think, *clients):
        """They have asked and were answered a few times, and thought so long in between."""
        for _ in range(4):
            for client in clients:
                self.ask(client).future.set_result(None)
            self.ms += think

    def answered(self, think, *clients):
        """Clients of that think time, which have just been answered."""
        self.know(think, *clients)
        for row in [self.ask(client) for client in clients]:
            row.future.set_result(None)

    def moment(self, waiting, answering=()):
        """Rows to wait for, and milliseconds at most."""
        moment = self.patience.moment(waiting, answering)
        return moment and (moment.rows, round(moment.seconds * 1e3, 2))


def test_two_rows_wait_for_the_two_clients_that_are_answered_now_and_come_back_at_once():
    afternoon = Afternoon()
    afternoon.know(1.5, "a", "b", "c", "d")
    waiting, done = [afternoon.ask("a"), afternoon.ask("b")], [afternoon.ask("c"), afternoon.ask("d")]
    assert afternoon.moment(waiting, done) == (2, pytest.approx(0.4 * 15.6))


def test_half_of_what_the_device_gains_is_waited_for_at_most():
    afternoon = Afternoon(base=6)
    afternoon.answered(1.5, "a", "b", "c", "d")
    waiting = [afternoon.ask(client) for client in "abc"]
    # 11.2 ms for three and 7.3 for the fourth, or 11.2 for all
    assert afternoon.moment(waiting) == (1, pytest.approx(7.3 / 2))


def test_a_row_of_a_client_that_asks_rarely_waits_only_as_long_as_the_rows_gain_by_it_at_once():
    afternoon = Afternoon()
    afternoon.know(1.5, "c", "d")
    waiting, done = [afternoon.ask("robot"), afternoon.ask("other robot")], [afternoon.ask("c"), afternoon.ask("d")]
    # apart 15.6 and 31.2 ms, in the mean 23.4; together 18.2
    assert afternoon.moment(waiting, done) == (2, pytest.approx(5.2))


def test_the_first_who_is_back_waits_for_the_others():
    afternoon = Afternoon()
    afternoon.answered(1.5, "a", "b", "c", "d")
    afternoon.ms += 1
    assert afternoon.moment([afternoon.ask("a")]) == (3, pytest.approx(0.4 * 14.3))


def test_nothing_is_waited_for_where_nobody_is_on_the_way():
    afternoon = Afternoon()
    afternoon.answered(1.5, "a")
    assert afternoon.moment([afternoon.ask("a")]) is None
    stranger = afternoon.ask("b")
    assert afternoon.moment([afternoon.ask("a")], [stranger]) is None  # whether it comes back at once is not known


def test_a_client_that_asks_rarely_is_waited_for_by_nobody():
    afternoon = Afternoon()
    afternoon.answered(300, "robot")
    assert afternoon.moment([afternoon.ask("a")]) is None


def test_a_client_that_hurries_only_now_and_then_is_waited_for_by_nobody():
    afternoon = Afternoon()
    afternoon.know(300, "robot")
    afternoon.answered(1, "robot")
    assert afternoon.moment([afternoon.ask("a")]) is None


def test_a_client_that_stays_away_is_given_up_and_the_others_are_waited_for():
    afternoon = Afternoon()
    afternoon.answered(1.5, "gone")
    afternoon.ms += 5
    assert afternoon.moment([afternoon.ask("a")]) is None
    afternoon.answered(1.5, "b")
    assert afternoon.moment([afternoon.ask("a")]) == (1, pytest.approx(0.4 * 14.3))


def test_a_client_with_more_rows_on_the_server_is_not_expected():
    afternoon = Afternoon()
    afternoon.know(1, "b")
    done, _ = afternoon.ask("b"), afternoon.ask("b")
    assert afternoon.moment([afternoon.ask("a")], [done]) is None


def test_a_client_comes_back_with_as_many_rows_as_it_was_answered():
    afternoon = Afternoon()
    afternoon.know(1, "b")
    done = [afternoon.ask("b") for _ in range(3)]
    assert afternoon.moment([afternoon.ask("a")], done)[0] == 3


def test_nobody_waits_where_all_together_are_more_than_a_batch():
    afternoon = Afternoon()
    clients = [str(number) for number in range(9)]
    afternoon.know(1, *clients)
    rows = [afternoon.ask(client) for client in clients]
    assert afternoon.moment(rows[:4], rows[4:8])[0] == 4
    assert afternoon.moment(rows[:4], rows[4:]) is None
    assert afternoon.moment(rows[:8]) is None


def test_nobody_waits_where_a_row_costs_as_much_in_any_batch():
    afternoon = Afternoon(base=0, each=20)
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a")]) is None


def test_nobody_waits_longer_than_a_part_of_a_short_batch():
    afternoon = Afternoon(base=2, each=0.1)
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a")]) is None
    afternoon = Afternoon(base=2, each=0.1)
    afternoon.answered(0.5, "b")
    assert afternoon.moment([afternoon.ask("a")]) == (1, pytest.approx(0.4 * 2.1))


def test_nobody_waits_longer_than_eight_milliseconds():
    afternoon = Afternoon(base=1000)
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a")]) == (1, 8.0)


def test_a_row_whose_deadline_is_near_is_not_made_to_wait():
    afternoon = Afternoon()
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a", expires_in=16)]) is None  # 15.6 ms are for the batch
    assert afternoon.moment([afternoon.ask("c", expires_in=17.8)]) == (1, pytest.approx(2.2))


def test_a_shape_that_was_never_seen_is_tried_a_few_times():
    afternoon = Afternoon(known=(1,))
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a")]) is not None
    afternoon.compute(2, 500)  # perhaps something else was in the way
    assert afternoon.moment([afternoon.ask("c")]) is not None
    afternoon.compute(2, 30, times=2)
    assert afternoon.moment([afternoon.ask("d")]) is None


def test_nobody_waits_before_a_batch_was_computed():
    afternoon = Afternoon(known=())
    afternoon.answered(1, "b")
    assert afternoon.moment([afternoon.ask("a")]) is None


def test_rows_that_were_refused_or_given_up_are_not_waited_for_as_unanswered():
    afternoon = Afternoon()
    afternoon.know(1, "b")
    afternoon.ask("b").future.cancel()
    assert afternoon.moment([afternoon.ask("a")])[0] == 1


def test_a_server_that_runs_for_weeks_remembers_a_few_clients_only():
    afternoon = Afternoon()
    for client in range(1000):
        afternoon.know(0, client)
    assert len(afternoon.patience._clients._clients) <= 256


class FixedCost:
    """Computes one batch after the other, each in `base` and `each` seconds for every row of its shape."""

    noise_shape, prompt_lengths = (1, 1), (16,)

    def __init__(self, base, each, replicas=1):
        self.base, self.each, self.replicas = base, each, replicas
        self.batches, self.free_at = [], 0.0

    def launch(self, rows, noise, pad_to, replica=0):
        self.batches.append(len(rows))
        self.free_at = done = max(time.perf_counter(), self.free_at) + self.base + self.each * pad_to
        return SimpleNamespace(
            checkpoint="fixed/cost/0",
            wait=lambda: time.sleep(max(0.0, done - time.perf_counter())),
            actions=lambda: np.zeros((len(rows), 1, 1)),
        )


def closed_loop(policy, clients, seconds):
    """Rows of each batch and moments waited, of clients that ask as soon as they are answered; half of them begin late.

    Of the second half of the time: the first is for getting to know them.
    """
    batcher, end, moments = Batcher(policy, SIZES), time.perf_counter() + seconds, []
    weigh = batcher._patience.moment
    batcher._patience.moment = lambda *rows: moments.append(weigh(*rows)) or moments[-1]
    batcher.start()

    def client(number):
        time.sleep(policy.base / 2 * (number % 2))
        while time.perf_counter() < end:
            batcher.submit(number, 0, client=number).result(10)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 20)
    batcher.stop()
    return policy.batches[len(policy.batches) // 2 : -2], [each for each in moments[len(moments) // 2 : -2] if each]


def test_four_clients_that_ask_as_soon_as_they_are_answered_end_in_batches_of_four():
    batches, _ = closed_loop(FixedCost(0.030, 0.001), clients=4, seconds=1.5)
    assert Counter(batches)[4] > len(batches) / 2  # two groups of two for ever otherwise


def test_sixteen_clients_on_batches_of_eight_stay_in_two_groups_and_no_device_waits_for_them():
    batches, moments = closed_loop(FixedCost(0.030, 0.001), clients=16, seconds=1.5)
    assert Counter(batches)[8] > len(batches) / 2
    assert len(moments) < len(batches) / 4


def test_who_is_answered_is_answered_before_the_others_wait_for_them():
    """Its next row comes from the very thread that answers, so a wait before it could only end by time."""
    policy, left, over = FixedCost(0.030, 0.001), Counter(a=12, b=12), threading.Event()
    batcher = Batcher(policy, SIZES)

    def ask(client):
        left[client] -= 1
        if not left[client]:
            over.set()
        else:
            batcher.submit(0, 0, client=client).add_done_callback(lambda _: ask(client))

    batcher.start()
    ask("a")
    time.sleep(0.01)
    ask("b")
    assert over.wait(20)
    batcher.stop()
    assert Counter(policy.batches[6:-2]) == {2: len(policy.batches) - 8}


def test_of_several_devices_none_waits():
    assert Batcher(FixedCost(0.01, 0.0, replicas=2), SIZES)._patience is None


def test_a_taker_that_waits_for_more_takes_them_as_soon_as_there_are_enough():
    queue, taken = FairQueue(9), []
    taker = threading.Thread(target=lambda: taken.extend(queue.take_soon(2, 8, 30)), daemon=True)
    taker.start()
    queue.put([0], "a")
    time.sleep(0.05)
    assert taken == []
    queue.put([1], "b")
    taker.join(10)
    assert taken == [0, 1]


def test_a_taker_that_waits_for_more_goes_on_with_what_there_is_when_the_time_is_over():
    queue = FairQueue(9)
    assert queue.take_soon(2, 8, 0.01) == []
    queue.put([0], "a")
    assert queue.take_soon(2, 8, 0.01) == [0]
    threading.Timer(0.05, queue.put, ([1], "a")).start()
    assert queue.take(8) == [1]  # and its next sleep has a wake of its own


def test_a_taker_that_waits_for_more_is_told_when_the_queue_closes():
    queue, ended = FairQueue(9), threading.Event()
    threading.Thread(target=lambda: (queue.take_soon(2, 8, 60), ended.set()), daemon=True).start()
    time.sleep(0.05)
    queue.close()
    assert ended.wait(10)
