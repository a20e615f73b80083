"""What a rank that waits for a message knows of its peer, without MPI."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from allraise.standing import Gate, Stand, never_open
from allraise.tally import MANY, TO_MEET, TO_RECEIVE, Tally


def tally(rank):
    return Tally(77, SimpleNamespace(rank=rank))


def opens(waiting, awaited, peer):
    """Whether the peer has entered the gate at which a rank waits."""
    name, number = waiting.gate(*awaited)
    return peer.counts().get(name, 0) >= number


def test_a_message_is_on_its_way_if_more_were_sent_than_received():
    sender, receiver = tally(0), tally(1)
    waits = TO_RECEIVE, 0
    assert not opens(receiver, waits, sender)
    sender.note_sent(1)
    assert opens(receiver, waits, sender)
    receiver.received[0] += 1
    assert not opens(receiver, waits, sender)


def test_what_is_for_another_rank_opens_nothing():
    sender, receiver = tally(0), tally(1)
    sender.note_sent(2, 3)
    assert not opens(receiver, (TO_RECEIVE, 0), sender)
    assert not opens(receiver, (TO_RECEIVE, 0), tally(1))


def test_a_persistent_send_may_come_at_any_time():
    sender, receiver = tally(0), tally(1)
    sender.note_sent(1, MANY)
    receiver.received[0] += 1000
    assert opens(receiver, (TO_RECEIVE, 0), sender)


def test_a_collective_is_met_by_those_who_have_begun_as_many():
    here, there = tally(0), tally(1)
    here.begun = there.begun = 2
    assert opens(here, (TO_MEET, 2), there)
    assert not opens(here, (TO_MEET, 3), there)


@pytest.mark.parametrize("given", ["one", None, [0], object()])
def test_what_mpi_has_refused_is_not_counted_and_raises_nothing_else(given):
    here = tally(0)
    here.note_sent(given)
    assert here.counts() == {}


def test_whatever_mpi_takes_for_a_rank_is_that_rank():
    numpy = pytest.importorskip("numpy")
    sender, receiver = tally(0), tally(1)
    for given in (1, 1.0, numpy.int32(1), numpy.float64(1), numpy.array(1)):
        sender.note_sent(given)
    receiver.received[0] += 4
    assert opens(receiver, (TO_RECEIVE, 0), sender)
    receiver.received[0] += 1
    assert not opens(receiver, (TO_RECEIVE, 0), sender)


def chain(*, sent):
    """Rank 0 has failed and waits for 1, which waits for a message of 2, that for 0's."""
    half = Gate(22, 1, frozenset((0, 1)))
    message = [Gate(40 + n, 1, frozenset((n,)), gives_way=True) for n in range(4)]
    stands = {
        0: Stand(True, (half,), {22: 1, 40: sent}),
        1: Stand(True, (message[2], half), {}),
        2: Stand(True, (message[0],), {}),
    }
    return stands, {half, message[2], message[0]}


def test_ranks_that_wait_for_messages_of_each_other_never_go_on():
    stands, gates = chain(sent=0)
    assert never_open(stands) == gates
    stands, _ = chain(sent=1)
    assert never_open(stands) == set()


def test_a_rank_that_waits_for_several_messages_comes_when_all_are_there():
    stands, _ = chain(sent=0)
    free = Gate(49, 1, frozenset((3,)), gives_way=True)
    first, half = stands[1].gates
    stands[1] = stands[1]._replace(gates=(free, first, half))
    stands[3] = Stand(False, (), {})
    asks = Gate(50, 1, frozenset((1,)), gives_way=True)
    stands[4] = Stand(True, (asks,), {})
    assert asks in never_open(stands)  # rank 1 is stuck, and not at the first of them


def test_a_failure_around_ends_a_wait_for_a_message_whoever_tells_of_it():
    """Unlike a gate of a collective, which those who have not entered it close."""
    message = Gate(40, 1, frozenset((1,)), ((9, 1),), gives_way=True)
    half = Gate(22, 1, frozenset((0, 1)))
    stands = {
        0: Stand(True, (message, half), {}),
        1: Stand(True, (half,), {22: 1}),
        2: Stand(True, (half,), {}),
    }
    assert message in never_open(stands)
    stands[2] = stands[2]._replace(failed=((9, 1),))
    assert message not in never_open(stands)
