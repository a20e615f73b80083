"""What a rank leaves in a folder, for when nobody is left to report."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from allraise import launcher
from allraise.bundle import Bundle
from allraise.page import page_of
from allraise.remains import load_spool
from allraise.spool import Spool
from unit.test_bundle import record

# A process that holds the GIL, is told to end, and then is killed.
HELD = """
import ctypes, pathlib, signal, sys, threading
from allraise.signals import NEVER_RAISE, signals_held_back
from allraise.spool import Spool

def on_sigterm(number, frame):
    pass

NEVER_RAISE[id(on_sigterm)] = on_sigterm
signal.signal(signal.SIGTERM, on_sigterm)
threading.Thread(target=threading.Event().wait, daemon=True).start()
Spool(pathlib.Path(sys.argv[1]), 3, 4).watch_crashes(sigterm=True)
with signals_held_back():  # as in an agreement that has failed
    pass

def held():
    print("ready", flush=True)
    ctypes.PyDLL(None).usleep(ctypes.c_uint(60_000_000))

held()
"""


@pytest.fixture
def held(tmp_path):
    """A process that runs `HELD`, and where it leaves what."""
    folder = tmp_path / "report.json.d"
    command = [sys.executable, "-c", HELD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process, folder
        process.kill()


def test_sigterm_leaves_the_stack_of_a_rank_that_holds_the_interpreter(held):
    process, folder = held
    process.send_signal(signal.SIGTERM)
    left = folder / "rank-3.txt"
    while "in <module>" not in left.read_text().rpartition("\n\n")[2]:
        assert process.poll() is None
    process.kill()
    ((ranks, record),) = load_spool(folder).bundle.records()
    assert tuple(ranks) == (3,)
    assert (record.kind, record.links[0].type_name) == ("signalled", "SIGTERM")
    assert [frame.name for frame in record.links[0].frames] == ["<module>", "held"]


def test_a_rank_that_was_killed_is_named_beside_what_others_have_left(held):
    process, folder = held
    process.kill()
    process.wait()
    Spool(folder, 2, 4).keep("", Bundle.of(2, record(message="full")))
    report = load_spool(folder)
    found = {tuple(ranks): kept for ranks, kept in report.bundle.records()}
    assert found[2,].links[0].message == "full"
    assert found[3,].kind == "silent"
    assert found[3,].origin.pid == process.pid
    text = report.text("ranks")
    assert "=== rank 3 (1 of 4): silent: left nothing (killed?)\n" in text
    assert 'title="rank 0: nothing known"' in page_of(report)


def test_the_folder_says_how_many_ranks_there_were(held):
    process, folder = held
    process.send_signal(signal.SIGTERM)
    left = folder / "rank-3.txt"
    while "in <module>" not in left.read_text().rpartition("\n\n")[2]:
        assert process.poll() is None
    assert load_spool(folder).size == 4


def test_who_is_only_killed_leaves_its_number_and_place(held):
    process, folder = held
    process.kill()
    process.wait()
    report = load_spool(folder)
    ((ranks, record),) = report.bundle.records()
    assert (str(ranks), record.origin.pid, report.size) == ("3", process.pid, 4)
    assert "left nothing (killed?)" in report.text("ranks")


def test_the_stack_of_a_crash_is_the_programs_without_the_launchers(held):
    process, folder = held
    left = folder / "rank-3.txt"
    head = left.read_text().partition("\n")[0]
    process.kill()
    process.wait()
    frames = [
        ("job.py", 7, "crash"),
        ("job.py", 9, "<module>"),
        ("mpi4py/run.py", 2, "main"),
        (str(Path(launcher.__file__)), 5, "run_program"),
        ("<frozen runpy>", 88, "_run_code"),
    ]
    lines = [f'  File "{file}", line {n} in {name}' for file, n, name in frames]
    crash = "Fatal Python error: Segmentation fault"
    thread = "Current thread 0x0000000000000001 (most recent call first):"
    left.write_text("\n".join([head, crash, "", thread, *lines, ""]))
    ((_, record),) = load_spool(folder).bundle.records()
    assert record.kind == "died"
    assert [frame.name for frame in record.links[0].frames] == ["<module>", "crash"]


def test_a_folder_without_a_file_of_any_rank_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds nothing that a rank has left"):
        load_spool(tmp_path)
