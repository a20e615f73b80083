"""One rank ends a region whose time has passed, whoever can."""

from __future__ import annotations

import os

import pytest

from allraise import leading
from allraise.census import Address
from allraise.leading import Claims, find_leader, rounds
from allraise.peers import Peers
from allraise.private import Private
from allraise.wire import dump_plain

IDENT = (0, 1)
SIZE = 100


def lead(rank, claims):
    """Do what a rank does that leads; whoever drives it chooses when."""
    yield
    if not claims[rank].claim(IDENT):
        return False
    for other, there in enumerate(claims):
        if other != rank:
            yield
            if there.hear(IDENT, rank):
                return False
    yield
    return claims[rank].make_final(IDENT)


def play(schedule, n_ranks):
    """Run one order of steps; return which ranks end the region."""
    claims = [Claims(rank) for rank in range(n_ranks)]
    running = {rank: lead(rank, claims) for rank in range(n_ranks)}
    ending = []
    for rank in schedule:
        if rank in running:
            try:
                next(running[rank])
            except StopIteration as stop:
                del running[rank]
                if stop.value:
                    ending.append(rank)
    assert not running
    return ending


def schedules(left):
    """Go through all orders in which the ranks can make their steps."""
    if not any(left):
        yield ()
    for rank, n_steps in enumerate(left):
        if n_steps:
            rest = (*left[:rank], n_steps - 1, *left[rank + 1 :])
            for schedule in schedules(rest):
                yield (rank, *schedule)


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_one_rank_ends_the_region_in_whatever_order_they_lead(n_ranks):
    n_steps = n_ranks + 2
    orders = list(schedules((n_steps,) * n_ranks))
    assert all(len(play(order, n_ranks)) == 1 for order in orders)


def test_who_leads_does_not_lead_again():
    claims = Claims(3)
    assert claims.claim(IDENT)
    assert not claims.claim(IDENT)
    assert claims.claim((0, 2))


def test_every_lower_rank_is_asked_once_in_few_rounds():
    for rank in (0, 1, 2, 8, 9, 4096):
        asked = list(rounds(rank))
        assert [r for ranks in asked for r in ranks] == list(range(rank))
        assert len(asked) <= 5
    assert [len(ranks) for ranks in rounds(70)] == [1, 7, 56, 6]


@pytest.fixture
def asked(monkeypatch):
    """Have ranks 5, 6 and 7 answer, and write down what each is asked."""
    found = []

    def ask_many(addresses, _token, question, _limit_s):
        ranks = [rank for rank, _ in addresses]
        found.append((question["do"], ranks))
        return {rank: {} for rank in ranks if rank in (7, 6, 5)}

    def ask(address, _token, question, _limit_s):
        found.append((question["do"], address.port))
        return {"done": True} if address.port in (5, 6, 7) else None

    monkeypatch.setattr("allraise.asking.ask_many", ask_many)
    monkeypatch.setattr("allraise.asking.ask", ask)
    return found


def peers_of(rank):
    there = [Address("far away", 1, (), r, 0, -1) for r in range(SIZE)]
    addresses = [dump_plain(tuple(address)) for address in there]
    return Peers(Private(None, rank, SIZE), "", addresses)


def test_the_lowest_that_answers_leads(asked):
    assert find_leader(peers_of(50), {"do": "overdue"}, lambda: True) == 5
    assert asked == [("overdue", 0), ("ping", [*range(1, 8)]), ("overdue", 5)]


def test_where_no_lower_one_answers_the_rank_leads_itself(asked):
    assert find_leader(peers_of(4), {"do": "overdue"}, lambda: True) == 4
    assert asked == [("overdue", 0), ("ping", [1, 2, 3])]


def test_nobody_is_asked_when_the_region_has_ended(asked):
    find_leader(peers_of(50), {"do": "overdue"}, lambda: False)
    assert asked == []


def test_who_is_known_to_hold_the_interpreter_is_not_waited_for(asked, monkeypatch):
    monkeypatch.setattr(leading, "is_held", lambda address: address.port < 4)
    assert find_leader(peers_of(8), {"do": "overdue"}, lambda: True) == 5
    assert asked == [("ping", [4, 5, 6, 7]), ("overdue", 5)]


def test_a_process_of_this_host_is_known_to_be_held_by_what_it_wrote():
    file = os.memfd_create("written")
    there = Address(os.uname().nodename, os.getpid(), (), 1, 0, file)
    assert not leading.is_held(there)
    os.write(file, b"Thread 0x1")
    assert leading.is_held(there)
    assert not leading.is_held(there._replace(host="far away"))
    assert not leading.is_held(there._replace(stall=-1))
    os.close(file)
