"""Room on the stack, given to each block and taken back whole; signals held back."""

from __future__ import annotations

import signal
import sys

import pytest

from allraise.signals import STACK_ROOM, room_on_the_stack, signals_held_back


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


@pytest.fixture(
    params=[signal.SIGINT, signal.SIGALRM, signal.SIGPROF, signal.SIGRTMIN],
    ids=lambda number: number.name,
)
def raising(request):
    """A signal whose handler raises."""

    def handler(*_):
        raise TimeoutError(request.param.name)

    before = signal.signal(request.param, handler)
    yield request.param
    assert signal.signal(request.param, before) is handler


def test_a_handler_runs_at_the_end_of_the_block_whatever_the_signal(raising):
    went_on = False
    with pytest.raises(TimeoutError, match=raising.name), signals_held_back():  # noqa: PT012 it raises at the end
        signal.raise_signal(raising)
        went_on = True
    assert went_on


def test_a_signal_without_a_handler_in_python_is_left_alone():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with signals_held_back():
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, before)
