"""Room on the stack, given to each block and taken back whole; signals held back."""

from __future__ import annotations

import _signal
import asyncio
import ctypes
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading

import pytest

from allraise.signals import (
    STACK_ROOM,
    handler_of,
    room_on_the_stack,
    signals_held_back,
)


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


@pytest.fixture
def two_raising():
    """Two signals whose handlers note themselves, and raise."""
    ran = []

    def handler(number, _frame):
        ran.append(number)
        raise TimeoutError(number)

    numbers = signal.SIGUSR1, signal.SIGUSR2
    before = {number: signal.signal(number, handler) for number in numbers}
    yield numbers, ran
    for number, was in before.items():
        signal.signal(number, was)


@pytest.mark.parametrize("is_let_through", [False, True])
def test_no_signal_is_lost_where_the_handler_of_another_raises(
    two_raising, is_let_through
):
    numbers, ran = two_raising
    held = signals_held_back()
    held.__enter__()
    for number in numbers:
        signal.raise_signal(number)
    with pytest.raises(TimeoutError) as caught:
        held.let_through(pytest.fail) if is_let_through else held._end()
    held._end()
    assert tuple(ran) == numbers
    assert caught.value.args == (numbers[1],)
    assert caught.value.__context__.args == (numbers[0],)


def test_what_has_come_is_not_lost_where_another_comes_as_the_block_ends(
    two_raising, monkeypatch
):
    (first, second), ran = two_raising
    put_back = _signal.signal

    def signal_as_it_is_put_back(number, handler):
        put_back(number, handler)
        if number == second:
            signal.raise_signal(second)

    held = signals_held_back()
    held.__enter__()
    signal.raise_signal(first)
    monkeypatch.setattr(_signal, "signal", signal_as_it_is_put_back)
    with pytest.raises(TimeoutError):
        held._end()
    assert sorted(ran) == [first, second]


def test_a_handler_that_puts_the_default_in_its_place_ends_the_process_at_the_next():
    """As programs do it that clean up at the first signal, and end at the second."""
    program = """
import signal
from allraise.signals import signals_held_back
def once(number, frame):
    signal.signal(number, signal.SIG_DFL)
    print("cleaned up", flush=True)
signal.signal(signal.SIGUSR1, once)
with signals_held_back():
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    print("held back", flush=True)
print("never", flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGUSR1
    assert ended.stdout.split("\n") == ["held back", "cleaned up", ""]


def test_a_timer_that_comes_again_and_again_costs_nothing(handled):
    number, calls = handled
    garbage = []
    for _ in range(3):  # other threads, of the test runner, may leave some as well
        gc.collect()
        for _ in range(20):
            with signals_held_back():
                for _ in range(sys.getrecursionlimit()):
                    signal.raise_signal(number)
                assert not calls
            assert 1 <= len(calls) <= 2
            calls.clear()
        garbage.append(gc.collect())
    assert min(garbage) == 0


def test_the_handler_behind_nested_blocks_is_known():
    def handler(*_):
        pass

    number = signal.SIGUSR1  # not SIGINT, which a job in the background may ignore
    before = signal.signal(number, handler)
    try:
        assert handler_of(number) is handler
        with signals_held_back(), signals_held_back():
            assert signal.getsignal(number) is not handler
            assert handler_of(number) is handler
        assert handler_of(number) is handler
        assert handler_of(signal.SIGUSR2) == signal.getsignal(signal.SIGUSR2)
    finally:
        signal.signal(number, before)


def is_interrupting(number):
    """Tell whether a signal interrupts a call in which C code waits."""
    reading, writing = os.pipe()
    thread = threading.get_ident()
    timers = [
        threading.Timer(0.1, signal.pthread_kill, (thread, number)),
        threading.Timer(0.3, os.write, (writing, b"x")),
    ]
    for timer in timers:
        timer.start()
    n_read = ctypes.CDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
    for timer in timers:
        timer.join()
    os.close(reading)
    os.close(writing)
    return n_read != 1


@pytest.fixture
def handled():
    """A signal with a handler in Python, which notes that it was called."""
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda *_: calls.append("handled"))
    yield signal.SIGUSR2, calls
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("interrupts", [False, True])
def test_what_a_signal_interrupts_stays_as_it_was_set(handled, interrupts):
    number, calls = handled
    signal.siginterrupt(number, interrupts)
    with signals_held_back() as held:
        assert is_interrupting(number) == interrupts
        held.let_through(lambda: None)
        assert calls == ["handled"]
    assert is_interrupting(number) == interrupts


def test_stacks_that_c_code_writes_at_a_signal_are_written_when_it_comes(
    handled, tmp_path
):
    number, calls = handled
    with (tmp_path / "stacks").open("w+") as file:
        faulthandler.register(number, file=file, chain=True)
        try:
            with signals_held_back():
                signal.raise_signal(number)
                written = file.seek(0, 2)
                assert written > 0
                assert not calls
            assert calls == ["handled"]
            signal.raise_signal(number)
            assert file.seek(0, 2) > written
        finally:
            faulthandler.unregister(number)


def test_a_callback_of_an_event_loop_is_called_once_for_a_signal_that_was_held_back():
    async def main():
        calls = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, calls.append, "called")
        try:
            with signals_held_back():
                signal.raise_signal(signal.SIGUSR2)
            await asyncio.sleep(0.05)
        finally:
            loop.remove_signal_handler(signal.SIGUSR2)
        return calls

    assert asyncio.run(main()) == ["called"]
