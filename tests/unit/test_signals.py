"""Room on the stack is given to each block, and taken back whole."""

from __future__ import annotations

import sys

import pytest

from allraise.signals import STACK_ROOM, room_on_the_stack


@pytest.fixture(autouse=True)
def limit():
    before = sys.getrecursionlimit()
    yield before
    after = sys.getrecursionlimit()
    sys.setrecursionlimit(before)
    assert after == before


def test_each_open_block_has_its_room(limit):
    with room_on_the_stack():
        assert sys.getrecursionlimit() == limit + STACK_ROOM
        with room_on_the_stack():
            assert sys.getrecursionlimit() == limit + 2 * STACK_ROOM


def test_blocks_that_end_in_the_order_they_began_leave_the_limit_as_it_was():
    """Two threads, whose blocks overlap, do that."""
    first, second = room_on_the_stack(), room_on_the_stack()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)


def test_the_largest_limit_is_left_alone(limit):
    sys.setrecursionlimit(2**31 - 1)
    with room_on_the_stack():
        assert sys.getrecursionlimit() == 2**31 - 1
    sys.setrecursionlimit(limit)


def test_room_that_a_deep_stack_still_needs_is_taken_back_later(limit):
    def down(depth):
        if depth:
            return down(depth - 1)
        return sys.getrecursionlimit()

    def at_the_limit():
        try:
            at_the_limit()
        except RecursionError:
            with room_on_the_stack():
                down(STACK_ROOM // 2)
            if sys.getrecursionlimit() != limit:  # refused: the stack is too deep
                return

    at_the_limit()
    with room_on_the_stack():
        pass
    assert sys.getrecursionlimit() == limit
