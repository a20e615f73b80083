"""What each rank answers to where it stands, and what the answers make."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import pytest

from allraise import HangError, load_report
from allraise.agreement import enter
from allraise.census import TOKEN_CHARS, Address, Door
from allraise.grouping import group_records
from allraise.hang import Case, headline, make_bundle, missing_ranks, notice, publish
from allraise.nesting import close_region
from allraise.overdue import answer
from allraise.peers import BY_TOKEN, WATCHDOG, Peers, TimedRegion, ask_all
from allraise.private import Private
from allraise.rebuild import rebuild
from allraise.record import dump_plain
from allraise.stall import StallTimer

TOKEN = "c" * TOKEN_CHARS
CASE = Case("write", 5.0, 4)


@pytest.fixture
def private():
    return Private(None, 0, 4)


@pytest.fixture
def peers(private):
    return Peers(private, TOKEN, [dump_plain(None)] * 4)


@pytest.fixture
def region(private):
    made = TimedRegion(private, "write", 1000.0)
    made.opened = enter(private, "write")
    made.ident = (private.n_failed, *private.counts)
    WATCHDOG.add(made)
    yield made
    WATCHDOG.remove(made)


def close(private):
    close_region(private.innermost, n_within=private.innermost[3])


def test_a_rank_in_the_block_tells_its_stacks(peers, region):
    other = threading.Event()
    thread = threading.Thread(target=other.wait, name="loader")
    thread.start()
    try:
        found = peers.state(region.ident, stacks=True)
    finally:
        other.set()
        thread.join()
    assert found["state"] == "inside"
    assert found["inner"] == ""
    names = [frame[5] for frame in found["frames"]]
    assert "test_a_rank_in_the_block_tells_its_stacks" in names
    assert "loader" in dict(found["threads"])
    assert not any(name.startswith("allraise") for name in dict(found["threads"]))


def test_a_rank_in_an_inner_region_names_it(peers, region):
    enter(peers.private, "inner")
    assert peers.state(region.ident, stacks=False)["inner"] == "inner"


def test_a_rank_at_the_end_has_arrived(peers, region):
    region.arrived = True
    assert peers.state(region.ident, stacks=True)["state"] == "arrived"


def test_a_failed_rank_tells_its_failure(peers, region):
    region.arrived, region.exc = True, OSError("disk full")
    found = peers.state(region.ident, stacks=True)
    records = dict(make_bundle(CASE, {2: found}).records())
    (record,) = records.values()
    assert record.kind == "failure"
    assert record.links[0].message == "disk full"


def test_a_region_without_a_limit_here_is_known_all_the_same(peers, private):
    enter(private, "write")
    assert peers.state((0, 1), stacks=False)["state"] == "inside"


def test_a_rank_that_has_not_come_is_elsewhere(peers, private):
    enter(private, "before")
    close(private)
    found = peers.state((0, 2), stacks=True)
    assert found["state"] == "elsewhere"
    message = make_bundle(CASE, {1: found})
    (record,) = dict(message.records()).values()
    text = "step 'write' was not even entered within 5 s: it is in no guarded region"
    assert record.links[0].message == text


def test_a_region_that_has_ended_is_done(peers, region):
    WATCHDOG.remove(region)
    close(peers.private)
    peers.closed = region.ident
    assert peers.state(region.ident, stacks=False)["state"] == "done"


def test_a_hang_comes_as_the_error_it_is():
    found = {"state": "inside", "frames": [["job.py", 7, 7, None, None, "f", "f()"]]}
    bundle = make_bundle(CASE, {1: found, 3: found, 0: {"state": "arrived"}})
    ((ranks, record),) = bundle.records()
    assert str(ranks) == "1,3"
    exc, summary = rebuild(record)
    assert type(exc) is HangError
    assert summary[0].line == "f()"


def test_a_rank_that_waits_for_others_is_blocked():
    found = {"state": "inside", "waits": "comm.Barrier()", "inner": "part"}
    ((_, record),) = make_bundle(CASE, {1: found}).records()
    assert record.kind == "blocked"
    assert record.links[0].type_name == "allraise.HangError"
    assert record.links[0].message == (
        "step 'write' was not at its end within 5 s: it is in step 'part' within it "
        "and waits in comm.Barrier() for other ranks"
    )
    found = {"state": "elsewhere", "waits": ""}
    ((_, record),) = make_bundle(CASE, {1: found}).records()
    assert record.kind == "blocked"
    assert record.links[0].message.endswith(
        "it is in no guarded region and waits for other ranks"
    )


def test_who_is_elsewhere_is_told_before_who_waits():
    waiting = {"state": "inside", "waits": "comm.Barrier()", "origin": ["h", 1, 1.0]}
    busy = {"state": "inside", "waits": None, "origin": ["h", 2, 2.0]}
    answers = {0: waiting, 1: busy, 2: waiting, 3: {"state": "arrived"}}
    groups = group_records(make_bundle(CASE, answers))
    assert [(str(g.ranks), g.kind) for g in groups] == [
        ("1", "hang"),
        ("0,2", "blocked"),
    ]
    assert headline(CASE, answers).endswith(
        "rank 3 arrived, ranks 0-2 missing, of which ranks 0,2 wait for others"
    )
    del answers[1]
    assert headline(CASE, answers).endswith("rank 3 arrived, ranks 0,2 missing")


def test_where_nobody_is_missing_all_are_told():
    bundle = make_bundle(CASE, {0: {"state": "arrived"}, 1: {"state": "arrived"}})
    assert (
        "did not agree within 5 s" in next(iter(bundle.records()))[1].links[0].message
    )


def test_the_headline_counts_everybody():
    states = ["arrived", "failed", "silent", "inside"]
    answers = {rank: {"state": state} for rank, state in enumerate(states)}
    text = headline(CASE, answers)
    assert text.endswith("rank 0 arrived, rank 1 failed, ranks 2-3 missing")
    assert str(missing_ranks(answers)) == "2-3"


def test_the_notice_names_who_is_waited_for():
    answers = {r: {"state": "arrived"} for r in range(4)}
    assert notice(CASE, 2.5, answers) == ""
    answers[3] = {"state": "silent"}
    text = "allraise: step 'write': 2.5 s of 5 s have passed, waiting for rank 3 of 4"
    assert notice(CASE, 2.5, answers) == f"{text} (rank 3: no answer)\n"
    answers[3] = {"state": "done"}
    assert notice(CASE, 2.5, answers) == ""


def test_the_report_is_shown_and_stored(tmp_path, monkeypatch, capfd):
    path = tmp_path / "hang.json"
    monkeypatch.setenv("ALLRAISE_REPORT", str(path))
    found = {"state": "inside", "frames": [["job.py", 7, 7, None, None, "f", "f()"]]}
    publish(CASE, {0: {"state": "arrived"}, 1: found}, "the title\x1b[2J")
    told = capfd.readouterr().err
    assert "the title" in told
    assert "\x1b" not in told
    assert 'File "job.py", line 7, in f' in told
    assert load_report(path).ranks == (1,)


def test_answers_that_make_no_sense_are_shown_as_they_are(capfd):
    publish(CASE, {1: {"state": "inside", "frames": [["too short"]]}}, "the title")
    assert "too short" in capfd.readouterr().err


def test_a_silent_rank_is_looked_at_by_one_on_its_host(peers, private):
    """Here rank 2 is silent on a host where rank 1 answers."""
    door = Door(answer)
    WATCHDOG.start()
    WATCHDOG.listen(door.fileno(), door.serve)
    timer = StallTimer(WATCHDOG.thread.native_id)
    timer.move(time.monotonic() + 0.5)
    ctypes.PyDLL(None).usleep(900_000)
    ctypes.PyDLL(None).usleep(900_000)
    there = Address(
        "far away",
        os.getpid(),
        ("127.0.0.1",),
        door.address(-1).port,
        threading.get_ident(),
        timer.fd,
    )
    peers.addresses[1] = dump_plain(tuple(there))
    peers.addresses[2] = dump_plain(tuple(there._replace(port=1)))
    BY_TOKEN[TOKEN] = peers
    try:
        answers = ask_all(peers, (0, 1), 60, stacks=True)
    finally:
        del BY_TOKEN[TOKEN]
    assert [answers[rank]["state"] for rank in range(4)] == [
        "elsewhere",
        "elsewhere",
        "stalled",
        "silent",
    ]
    assert answers[2]["frames"][-1][5].startswith("test_a_silent_rank")
    assert answers[2]["origin"][0] == "far away"
