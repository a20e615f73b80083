"""What a helper thread sees of the main thread, and how helpers talk in files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from allraise import alarm, carrier
from allraise.carrier import FileCarrier
from allraise.record import Frame
from allraise.stacks import Pulse, program_frames, stack_record

ENOUGH_S = 30.0


def seen_while(block, look):
    """Call `look` in another thread, again and again, while `block` runs here."""
    seen = []
    done = threading.Event()

    def watch():
        while not done.is_set() and not seen:
            found = look()
            if found is not None:
                seen.append(found)
        done.set()

    helper = threading.Thread(target=watch)
    helper.start()
    try:
        block(done)
    finally:
        done.set()
        helper.join()
    return seen


def test_the_stack_of_the_main_thread_is_seen_while_it_is_blocked():
    def stuck_here(done):
        done.wait(ENOUGH_S)

    def look():
        record = stack_record("blocked", "blocked", "in a test")
        names = [frame.name for frame in record.links[0].frames]
        return record if "stuck_here" in names else None

    (record,) = seen_while(stuck_here, look)
    assert record.kind == "blocked"
    assert record.links[0].lines == ("blocked: in a test\n",)


def test_a_stack_ends_where_the_handler_of_sigterm_begins():
    def frame(filename, name):
        return Frame(filename, 1, 1, 0, 0, name, "")

    program = (frame("job.py", "<module>"), frame("job.py", "on_sigterm"))
    handler = frame(alarm.__file__, "on_sigterm")
    inside = frame(threading.__file__, "wait")
    assert program_frames((*program, handler, inside)) == program
    assert program_frames((*program, inside)) == (*program, inside)


def stack(*files):
    return tuple(Frame(file, n, n, 0, 0, "f", "f()") for n, file in enumerate(files))


USER, OWN, PYTHON = "job.py", alarm.__file__, threading.__file__


@pytest.mark.parametrize(
    ("files", "n_shown"),
    [
        ([USER, OWN, OWN], 1),
        ([USER, OWN, PYTHON], 1),
        ([USER, OWN, "<frozen importlib._bootstrap>"], 1),
        ([USER, PYTHON, OWN, PYTHON, OWN], 2),
        ([USER, OWN, USER, OWN], 3),  # a function of the user, called by allraise
        ([USER, OWN, USER, PYTHON], 4),
        ([USER, OWN, f"{Path(os.__file__).parent}/site-packages/a.py"], 3),
        ([OWN, OWN], 2),  # there is nothing else
        ([PYTHON, OWN], 2),
        ([], 0),
    ],
)
def test_what_allraise_does_below_the_last_line_of_the_user_is_not_shown(
    files, n_shown
):
    assert program_frames(stack(*files)) == stack(*files)[:n_shown]


def test_a_pulse_is_silent_while_the_main_thread_runs_no_python():
    pulse = Pulse()

    def look():
        silent_s = pulse.silent_s()
        return silent_s if silent_s > 0.2 else None

    # One call into C, longer than it takes to be noticed.
    (silent_s,) = seen_while(lambda _done: time.sleep(1.0), look)
    assert silent_s > 0.2


def test_a_pulse_beats_between_short_calls_at_one_instruction():
    """A stack that never changes is no proof: this one makes progress."""
    pulse = Pulse()
    beats = []

    def busy(done):
        while len(beats) < 5 and not done.is_set():
            time.sleep(0)

    def look():
        if pulse.silent_s() == 0.0:
            beats.append(1)

    assert seen_while(busy, look) == []
    assert len(beats) >= 5


def test_files_carry_bytes_in_the_order_in_which_a_rank_sent_them(tmp_path):
    folder = tmp_path / "carrier"
    one, two, root = (FileCarrier(folder, rank, 3) for rank in (1, 2, 0))
    assert root.receive() == []
    for number in range(12):
        one.send(0, b"%d" % number)
    two.send(0, b"from two")
    two.send(1, b"not for the root")
    received = root.receive()
    assert received == [(1, b"%d" % number) for number in range(12)] + [
        (2, b"from two")
    ]
    assert root.receive() == []
    assert one.receive() == [(2, b"not for the root")]


def test_no_folder_is_made_before_there_is_anything_to_say(tmp_path):
    FileCarrier(tmp_path / "carrier", 0, 2).receive()
    assert not (tmp_path / "carrier").exists()


def test_a_folder_that_was_removed_stays_removed(tmp_path):
    """The job is over; a rank that is being killed may still want to say so."""
    one, root = (FileCarrier(tmp_path / "carrier", rank, 2) for rank in (1, 0))
    one.send(0, b"failed")
    root.receive()
    root.close()
    one.send(0, b"signalled")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_while_the_folder_is_removed_is_removed_with_it(
    tmp_path, monkeypatch
):
    """On a busy machine a rank may write just then, and the folder is not empty."""
    one, root = (FileCarrier(tmp_path / "carrier", rank, 2) for rank in (1, 0))
    one.send(0, b"first")
    rmtree, n_calls = carrier.shutil.rmtree, 0

    def disturbed(folder, **options):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 1:
            rmtree(folder, **options)

    monkeypatch.setattr(carrier.shutil, "rmtree", disturbed)
    root.close()
    assert n_calls == 2
    assert list(tmp_path.iterdir()) == []
