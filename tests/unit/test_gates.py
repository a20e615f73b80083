"""The arithmetic of numbered gates, and of who is told."""

from __future__ import annotations

import pytest

from allraise.channel import DIRECT_LIMIT, told_ranks
from allraise.gates import Announced, Gates, new_ident


def test_a_gate_closes_when_somebody_stopped_before_it():
    announced = Announced()
    announced.learn({7: 2})
    assert announced.closes(Gates(7, entered=3))
    assert not announced.closes(Gates(7, entered=2))
    assert not announced.closes(Gates(8, entered=3))


def test_only_lower_numbers_are_news():
    announced = Announced()
    assert announced.learn({7: 5, 8: 1}) == {7: 5, 8: 1}
    assert announced.learn({7: 5, 8: 2}) == {}
    assert announced.learn({7: 4, 8: 1}) == {7: 4}
    assert announced.lowest == {7: 4, 8: 1}


def test_names_of_communicators_fit_an_int64_and_differ():
    names = {new_ident() for _ in range(100)}
    assert len(names) == 100
    assert all(0 <= name < 2**62 for name in names)


@pytest.mark.parametrize("size", [1, 2, 3, DIRECT_LIMIT])
def test_few_ranks_tell_all_others(size):
    assert told_ranks(0, size) == list(range(1, size))


@pytest.mark.parametrize("size", [DIRECT_LIMIT + 1, 100, 512])
def test_many_ranks_tell_few_and_reach_all(size):
    told = [told_ranks(rank, size) for rank in range(size)]
    assert max(map(len, told)) <= 2 * size.bit_length()
    assert all(rank not in told[rank] for rank in range(size))
    reached, new = {5}, {5}
    while new:
        new = {other for rank in new for other in told[rank]} - reached
        reached |= new
    assert len(reached) == size
