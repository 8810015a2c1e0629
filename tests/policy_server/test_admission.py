"""How many rows a client may have unanswered, by itself and beside others."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from policy_protocol.errors import Overloaded
from policy_server import admission as module
from policy_server.admission import Admission


@pytest.fixture
def admission():
    return Admission(10, lambda rows: None)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def test_a_client_that_is_alone_may_have_every_row(admission, stack):
    stack.enter_context(admission.connected("one"))
    for _ in range(10):
        stack.enter_context(admission.holding("one", 1))
    with pytest.raises(Overloaded, match="10 rows are waiting already and this server takes 10"):
        stack.enter_context(admission.holding("one", 1))


def test_beside_others_a_client_may_have_half_and_the_others_the_rest(admission, stack):
    for client in ("one", "other"):
        stack.enter_context(admission.connected(client))
    stack.enter_context(admission.holding("one", 5))
    with pytest.raises(Overloaded, match="5 rows of this client are waiting already. Others are connected too"):
        stack.enter_context(admission.holding("one", 1))
    stack.enter_context(admission.holding("other", 5))
    assert admission.rows == 10


def test_one_request_may_be_larger_than_half_when_its_client_has_nothing_waiting(admission, stack):
    for client in ("one", "other"):
        stack.enter_context(admission.connected(client))
    stack.enter_context(admission.holding("one", 8))
    assert admission.rows == 8


def test_a_client_that_left_leaves_its_room_to_the_others(admission, stack):
    stack.enter_context(admission.connected("one"))
    with admission.connected("other"), admission.holding("other", 3):
        assert admission.rows == 3
    stack.enter_context(admission.holding("one", 4))
    stack.enter_context(admission.holding("one", 6))


def test_between_its_calls_a_client_counts_as_connected_for_a_while(admission, stack, monkeypatch):
    with pytest.raises(Overloaded), admission.calling("other"):
        raise Overloaded("as any call may end")
    stack.enter_context(admission.holding("one", 5))
    with pytest.raises(Overloaded):
        stack.enter_context(admission.holding("one", 1))
    monkeypatch.setattr(module, "_BETWEEN_CALLS_S", 0.0)
    stack.enter_context(admission.holding("one", 1))


@pytest.mark.parametrize(("seconds", "pause"), [(None, 1000), (0.0, 10), (3.0, 1500), (1e6, 60_000)])
def test_who_is_refused_is_told_when_half_of_the_rows_will_be_answered(stack, seconds, pause):
    admission = Admission(2, lambda rows: seconds)
    stack.enter_context(admission.holding("one", 2))
    with pytest.raises(Overloaded) as error:
        stack.enter_context(admission.holding("one", 1))
    assert error.value.retry_after_ms == pause


def test_clients_that_call_once_are_forgotten_although_none_is_refused(admission, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(1000):
        with admission.calling(f"10.0.0.1:{number}"):
            now += 1
    assert len(admission._left) <= 11
