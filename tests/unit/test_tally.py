"""What a rank that waits for a message knows of its peer, without MPI."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from allraise.standing import Gate, Stand, never_open
from allraise.tally import MANY, TO_MEET, TO_RECEIVE, TO_SEND, Tally


def tally(rank):
    return Tally(77, SimpleNamespace(rank=rank))


def opens(waiting, awaited, peer):
    """Whether the peer has entered the gate at which a rank waits."""
    name, number = waiting.gate(*awaited)
    return peer.counts().get(name, 0) >= number


def test_a_message_is_on_its_way_if_more_were_sent_than_received():
    sender, receiver = tally(0), tally(1)
    waits = TO_RECEIVE, 0, 0
    assert not opens(receiver, waits, sender)
    sender.sent[1] += 1
    assert opens(receiver, waits, sender)
    receiver.received[0] += 1
    assert not opens(receiver, waits, sender)
    sender.sent[1] += 1
    assert opens(receiver, waits, sender)


def test_what_is_for_another_rank_opens_nothing():
    sender, receiver = tally(0), tally(1)
    sender.sent[2] += 3
    assert not opens(receiver, (TO_RECEIVE, 0, 0), sender)
    assert not opens(receiver, (TO_RECEIVE, 0, 0), tally(1))


def test_a_persistent_send_may_come_at_any_time():
    sender, receiver = tally(0), tally(1)
    sender.sent[1] += MANY
    receiver.received[0] += 1000
    assert opens(receiver, (TO_RECEIVE, 0, 0), sender)


def test_a_message_has_a_receiver_if_as_many_were_asked_for():
    sender, receiver = tally(0), tally(1)
    second = TO_SEND, 1, 2
    receiver.asked[0] += 1
    assert not opens(sender, second, receiver)
    receiver.asked[0] += 1
    assert opens(sender, second, receiver)
    assert opens(sender, (TO_SEND, 1, 1), receiver)  # it was: counts only grow


def test_messages_of_several_tags_have_no_order():
    sender = tally(0)
    sender.note_tag(1, 5)
    sender.note_tag(2, 6)
    assert sender.has_order(1)
    sender.note_tag(1, 6)
    assert not sender.has_order(1)
    sender.note_tag(1, 6)
    assert not sender.has_order(1)
    assert sender.has_order(2)


@pytest.mark.parametrize("source", [-1, -2])
def test_who_has_asked_anybody_for_a_message_may_take_any(source):
    receiver = tally(1)
    receiver.asked[3] += 1
    assert not receiver.asks_anybody()
    receiver.asked[source] += 1
    assert receiver.asks_anybody()


def test_a_collective_is_met_by_those_who_have_begun_as_many():
    here, there = tally(0), tally(1)
    here.begun = there.begun = 2
    assert opens(here, (TO_MEET, 0, 2), there)
    assert not opens(here, (TO_MEET, 0, 3), there)


def test_an_argument_that_mpi_refused_is_not_counted():
    here = tally(0)
    for given in ("one", None, 1.5):
        here.sent[given] += 1
        here.asked[given] += 1
    assert here.counts() == {}
    assert not here.asks_anybody()


def test_a_number_of_numpy_is_a_rank_too():
    numpy = pytest.importorskip("numpy")
    sender, receiver = tally(0), tally(numpy.int32(1))
    sender.sent[numpy.int32(1)] += 1
    assert opens(receiver, (TO_RECEIVE, numpy.int8(0), 0), sender)


def test_ranks_that_wait_for_messages_of_each_other_never_go_on():
    """Rank 0 has failed and waits for 1, which waits for a message of 2, that for 0's."""
    half = Gate(22, 1, frozenset((0, 1)))
    message = [Gate(40 + n, 1, frozenset((n,)), gives_way=True) for n in range(4)]
    stands = {
        0: Stand(True, (half,), {22: 1}),
        1: Stand(True, (message[2], half), {}),
        2: Stand(True, (message[0],), {}),
    }
    assert never_open(stands) == {half, message[2], message[0]}
    sent = stands[0]._replace(counts={22: 1, 40: 1})
    assert never_open({**stands, 0: sent}) == set()


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
