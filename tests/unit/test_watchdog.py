"""The helper thread wakes when something is due, and costs nothing before."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import pytest

from allraise.asking import ask, ask_many
from allraise.census import TOKEN_CHARS, Address, Door
from allraise.stall import StallTimer, read_stacks
from allraise.watchdog import NEVER, Watch, Watchdog

LIMIT_S = 60  # what a busy machine may take


class Counted(Watch):
    def __init__(self, due, then=NEVER):
        self.due = due
        self.then = then
        self.happened = threading.Event()
        self.thread = None
        self.count = 0

    def on_due(self):
        self.thread = threading.current_thread()
        self.count += 1
        self.happened.set()
        return self.then


class Stall:
    """Writes down what the watchdog asks of its timer."""

    fd = -1

    def __init__(self):
        self.moved = []

    def move(self, when):
        self.moved.append(when)

    def clear(self):
        pass


@pytest.fixture
def watchdog():
    return Watchdog()


def test_no_thread_runs_before_something_is_watched(watchdog):
    assert watchdog.thread is None


def test_what_is_due_happens_in_the_helper_thread(watchdog):
    watch = Counted(time.monotonic() + 0.01)
    watchdog.add(watch)
    assert watch.happened.wait(LIMIT_S)
    assert watch.thread is watchdog.thread
    assert watch.thread.daemon


def test_what_is_removed_does_not_happen(watchdog):
    early, late = Counted(time.monotonic() + 0.2), Counted(time.monotonic() + 0.4)
    watchdog.add(early)
    watchdog.add(late)
    watchdog.remove(early)
    assert late.happened.wait(LIMIT_S)
    assert early.count == 0


def test_an_earlier_one_wakes_the_thread_from_a_longer_sleep(watchdog):
    watchdog.add(Counted(time.monotonic() + 1000))
    watch = Counted(time.monotonic() + 0.01)
    watchdog.add(watch)
    assert watch.happened.wait(LIMIT_S)


def test_a_later_one_does_not_wake_the_thread(watchdog):
    """It is looked at when the thread wakes anyway."""
    watchdog.stall = stall = Stall()
    watchdog.add(Counted(time.monotonic() + 500))
    # Once by who added it, and by the thread when it begins and when that wakes it.
    while len(stall.moved) < 3 or watchdog._wakes_at == NEVER:
        os.sched_yield()
    n_moved = len(stall.moved)
    for _ in range(1000):
        watch = Counted(time.monotonic() + 1000)
        watchdog.add(watch)
        watchdog.remove(watch)
    assert len(stall.moved) == n_moved


def test_it_is_due_again_when_it_says(watchdog):
    watch = Counted(time.monotonic(), then=time.monotonic() + 0.05)
    watchdog.add(watch)
    other = Counted(time.monotonic() + 0.1)
    watchdog.add(other)
    assert other.happened.wait(LIMIT_S)
    assert watch.count >= 2


def test_an_error_in_one_is_told_and_the_others_go_on(watchdog, capfd):
    class Bad(Counted):
        def on_due(self):
            raise OSError("no threads left")

    watchdog.add(Bad(time.monotonic()))
    watch = Counted(time.monotonic() + 0.05)
    watchdog.add(watch)
    assert watch.happened.wait(LIMIT_S)
    assert "OSError in the helper thread: no threads left" in capfd.readouterr().err


def test_the_timer_is_set_behind_every_awakening(watchdog):
    """By the thread that adds, for it may never let the helper run."""
    watchdog.add(Counted(time.monotonic() + 1000))
    stall = Stall()
    watchdog.attach(stall)
    assert stall.moved
    due = time.monotonic() + 500
    watchdog.add(Counted(due))
    assert any(due < when < due + 10 for when in stall.moved)


def test_a_stack_is_written_while_c_code_holds_the_interpreter():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        timer = StallTimer(thread.native_id)
        timer.move(time.monotonic() + 0.2)
        # Not interrupted by the signal, which goes to the other thread.
        assert ctypes.PyDLL(None).sleep(2) == 0
        found = read_stacks(os.getpid(), timer.fd)
        frames = found[threading.get_ident()]
        assert frames[-1].name.startswith("test_a_stack_is_written")
        assert "sleep(2)" in frames[-1].source
        timer.clear()
        assert read_stacks(os.getpid(), timer.fd) == {}
    finally:
        timer.move(NEVER)
        stop.set()
        thread.join()


def test_no_stack_is_written_where_the_timer_is_moved_in_time():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    timer = StallTimer(thread.native_id)
    try:
        timer.move(time.monotonic() + 1000)
        timer.move(NEVER)
        assert read_stacks(os.getpid(), timer.fd) == {}
    finally:
        stop.set()
        thread.join()


TOKEN = "a" * TOKEN_CHARS


@pytest.fixture
def door(watchdog):
    def answer(token, question):
        return {"heard": question} if token == TOKEN else None

    made = Door(answer)
    watchdog.start()
    watchdog.listen(made.fileno(), made.serve)
    return made


def test_a_question_is_answered(door):
    question = {"do": "state", "ident": [0, 1], "text": "ä\ud800"}
    assert ask(door.address(-1), TOKEN, question, LIMIT_S) == {"heard": question}


def test_who_does_not_know_the_token_learns_nothing(door):
    assert ask(door.address(-1), "b" * TOKEN_CHARS, {}, LIMIT_S) is None
    assert ask(door.address(-1), TOKEN, {}, LIMIT_S) == {"heard": {}}


def test_garbage_does_not_stop_the_door(door):
    import socket

    place = ("127.0.0.1", door.address(-1).port)
    for garbage in (b"", b"\xff" * 100, TOKEN.encode() + b"{", b"x" * 200_000):
        with socket.create_connection(place) as connection:
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
            except OSError:
                pass  # refused while it was still talking
    assert ask(door.address(-1), TOKEN, {}, LIMIT_S) == {"heard": {}}


def test_nobody_there_is_no_answer():
    nobody = Address(os.uname().nodename, 1, (), 1, 0, -1)
    assert ask(nobody, TOKEN, {}, LIMIT_S) is None


def test_many_are_asked_and_the_silent_are_left_out(door):
    there = door.address(-1)
    nobody = there._replace(port=1)
    people = [(rank, nobody if rank == 3 else there) for rank in range(100)]
    found = ask_many(people, TOKEN, {}, LIMIT_S)
    assert sorted(found) == [rank for rank in range(100) if rank != 3]


def test_many_that_never_answer_take_as_long_as_one():
    """The kernel takes connections of a process whose interpreter is held."""
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as held:
        place = Address(os.uname().nodename, 1, (), held.getsockname()[1], 0, -1)
        began = time.monotonic()
        assert ask_many([(rank, place) for rank in range(200)], TOKEN, {}, 1.0) == {}
        assert 1 <= time.monotonic() - began < 4
