"""What each rank answers to where it stands, and what the answers make."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import pytest

from allraise import HangError, PeerFailure, leaving, load_report
from allraise.agreement import enter
from allraise.asking import tell_many
from allraise.census import TOKEN_CHARS, Address, Door
from allraise.contribution import kind_of
from allraise.grouping import group_records
from allraise.hang import (
    Case,
    failure_answer,
    headline,
    make_bundle,
    missing_ranks,
    notice,
    publish,
)
from allraise.leaving import told_by
from allraise.nesting import close_region
from allraise.overdue import answer
from allraise.peers import BY_TOKEN, PEERS, WATCHDOG, Peers, TimedRegion, ask_all
from allraise.private import Private
from allraise.rebuild import rebuild
from allraise.stall import StallTimer
from allraise.wire import dump_plain

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
        "rank 3 arrived, ranks 0-2 missing (ranks 0,2 wait for others)"
    )
    del answers[1]
    assert headline(CASE, answers).endswith("rank 3 arrived, ranks 0,2 missing")


def test_a_rank_that_has_finished_its_program_is_told_so():
    left = {"state": "finished", "how": "", "inner": "part"}
    answers = {0: {"state": "arrived"}, 1: left, 2: {**left, "how": "OSError: full"}}
    messages = [
        record.links[0].message for _, record in make_bundle(CASE, answers).records()
    ]
    text = "step 'write' was not at its end within 5 s: the rank has finished its"
    assert messages == [
        f"{text} program, with step 'part' still open",
        f"{text} program by OSError: full, with step 'part' still open",
    ]
    told = headline(CASE, answers)
    assert told.endswith("ranks 1-2 missing (ranks 1-2 have finished the program)")
    assert "of 4 (ranks 1-2: finished the program)" in notice(CASE, 2.5, answers)


def test_who_is_told_of_the_end_of_a_rank():
    assert told_by(0, 1) == set()
    assert told_by(1, 2) == {0}
    assert told_by(2, 4) == {0, 1, 3}
    assert told_by(0, 9) == {1, 2, 4, 8, 7, 5}


def test_news_are_heard_and_nobody_waits_for_an_answer(peers):
    """What a rank told before its end is what others say of it afterwards."""
    door = Door(answer)
    there = Address(os.uname().nodename, os.getpid(), (), 0, 0, -1)
    there = there._replace(port=door.address(-1).port)
    BY_TOKEN[TOKEN] = peers
    peers.addresses[1] = dump_plain(tuple(there))
    news = {"do": "left", "rank": 2, "how": "", "inner": ""}
    began = time.monotonic()
    tell_many([(1, there), (3, there._replace(port=1))], TOKEN, news, 60)
    assert time.monotonic() - began < 30  # nobody has listened yet
    WATCHDOG.start()
    WATCHDOG.listen(door.fileno(), door.serve)
    try:
        while 2 not in peers.left:
            time.sleep(0.01)
        del peers.left[2]
        peers.left[3] = {"how": "", "inner": ""}
        answers = ask_all(peers, (0, 1), 60, stacks=False)
    finally:
        del BY_TOKEN[TOKEN]
    states = [answers[rank]["state"] for rank in range(4)]
    assert states == ["elsewhere", "elsewhere", "silent", "finished"]


def test_a_forked_child_tells_nothing_at_its_end(peers, monkeypatch):
    told = []
    monkeypatch.setattr("allraise.asking.tell_many", lambda *args: told.append(args))
    monkeypatch.setitem(PEERS, peers.private, peers)
    leaving.tell(os.getpid() + 1)
    assert told == []
    leaving.tell(os.getpid())
    assert told[0][2]["rank"] == 0


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


def test_who_was_woken_is_told_from_who_has_failed():
    woken, failed = PeerFailure("rank 1 has failed"), OSError("full")
    answers = {
        rank: {"state": "failed", **failure_answer(exc, kind_of(exc))}
        for rank, exc in enumerate([woken, failed])
    }
    answers[2] = {"state": "inside"}
    text = headline(CASE, answers)
    assert text.endswith("rank 1 failed, rank 0 interrupted, rank 2 missing")
    kinds = {str(r): found.kind for r, found in make_bundle(CASE, answers).records()}
    assert kinds == {"0": "interrupted", "1": "failure", "2": "hang"}


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
