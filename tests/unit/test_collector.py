"""When a report is due, whom it asks, and what it says: without threads or MPI."""

from __future__ import annotations

import pytest

from allraise.bundle import Bundle
from allraise.collector import (
    ANSWER_S,
    HOOK_S,
    PATIENCE_S,
    Collector,
)
from allraise.findings import HANDLED_PARTIAL, HANDLED_WHOLE, OWN, PART, PARTIAL, WHOLE
from allraise.record import minimal


class Job:
    """A collector with a clock, and what it has sent and published."""

    def __init__(self, size, grace_s=2.0, **limits):
        self.now = 0.0
        self.sent = []
        self.published = []
        self.collector = Collector(
            size,
            grace_s,
            lambda *sent: self.sent.append(sent),
            self.published.append,
            **limits,
        )

    def say(self, rank, *message):
        self.collector.take(rank, message, self.now)

    def fail(self, rank, name="ValueError", *, code=1, step="", hook=False):
        found = [(OWN, Bundle.of(rank, minimal(name)).encode())]
        self.say(rank, "failed", code, found, step, hook)

    def pass_time(self, seconds):
        self.now += seconds
        self.collector.step(self.now)

    def asked(self):
        """Return whom it has asked since the last look."""
        asked = [rank for rank, message in self.sent if message[0] == "ask"]
        number = max((m[1] for _, m in self.sent if m[0] == "ask"), default=0)
        self.sent.clear()
        return asked, number

    def answer(self, rank, number, *, silent_s=0.0, for_good=False):
        data = Bundle.of(rank, minimal("blocked", kind="blocked")).encode()
        self.say(rank, "state", number, data, silent_s, for_good)

    def told(self):
        (outcome,) = self.published
        return {
            rank: record.links[0].type_name
            for ranks, record in outcome.bundle.records()
            for rank in ranks
        }


def test_ranks_that_a_slow_carrier_reaches_have_longer_to_answer():
    job = Job(2, answer_s=3 * ANSWER_S)
    job.fail(1)
    job.pass_time(2.1)
    _, number = job.asked()
    job.pass_time(2 * ANSWER_S)
    assert job.published == []
    job.answer(0, number)
    job.pass_time(0.1)
    job.pass_time(0.1)
    assert job.told() == {0: "blocked", 1: "ValueError"}


def test_nothing_is_published_while_nothing_happens():
    job = Job(4)
    for _ in range(100):
        job.pass_time(10)
    assert (job.sent, job.published) == ([], [])


def test_the_others_are_asked_after_the_grace_period_and_not_before():
    job = Job(3)
    job.fail(1)
    job.pass_time(1.9)
    assert job.asked()[0] == []
    job.pass_time(0.2)
    ranks, number = job.asked()
    assert ranks == [0, 2]
    job.answer(0, number)
    job.pass_time(0)
    assert job.published == []
    job.answer(2, number)
    job.pass_time(0)
    assert job.told() == {0: "blocked", 1: "ValueError", 2: "blocked"}


def test_a_rank_that_does_not_answer_is_told_as_silent():
    job = Job(2)
    job.fail(0)
    job.pass_time(2)
    job.pass_time(ANSWER_S)
    assert job.told() == {0: "ValueError", 1: "silent"}


def test_all_failed_ends_the_grace_period():
    job = Job(2)
    job.fail(0)
    job.fail(1, "KeyError")
    job.pass_time(0)
    assert job.told() == {0: "ValueError", 1: "KeyError"}
    assert job.published[0].code == 1


def test_a_failure_after_the_question_replaces_the_answer():
    job = Job(2)
    job.fail(0)
    job.pass_time(2)
    _, number = job.asked()
    job.fail(1, "KeyError")
    job.answer(1, number)
    job.pass_time(0)
    assert job.told() == {0: "ValueError", 1: "KeyError"}


def test_the_first_failure_gives_the_code():
    job = Job(2)
    job.fail(1, code=3)
    job.fail(0, code=1)
    job.pass_time(0)
    assert job.published[0].code == 3


def test_a_signal_ends_the_job_with_its_number():
    job = Job(2)
    for rank in range(2):
        data = Bundle.of(rank, minimal("SIGTERM", kind="signalled")).encode()
        job.say(rank, "signalled", 15, "SIGTERM", data)
    job.pass_time(0)
    assert job.published[0].code == 143
    assert job.told() == {0: "SIGTERM", 1: "SIGTERM"}


def test_the_job_ends_when_the_hooks_are_done_or_take_too_long():
    for done in (True, False):
        job = Job(1)
        job.fail(0, hook=True)
        job.pass_time(0)
        job.pass_time(HOOK_S / 2)
        assert job.collector.phase == "hooks"
        if done:
            job.say(0, "hooked")
            job.pass_time(0)
        else:
            job.pass_time(HOOK_S)
        assert job.collector.phase == "ended"


def test_the_root_of_a_guard_is_believed_before_the_others():
    """All ranks carry one agreed failure; it is told once, as the root knows it."""
    job = Job(3)
    whole = Bundle.of(2, minimal("OSError", "with its stack")).encode()
    brief = Bundle.of(2, minimal("OSError", "in a line")).encode()
    job.say(1, "failed", 1, [(PARTIAL, brief)], "write", False)
    job.say(0, "failed", 1, [(WHOLE, whole)], "write", False)
    job.say(2, "failed", 1, [(PARTIAL, brief)], "write", False)
    job.pass_time(0)
    ((ranks, record),) = job.published[0].bundle.records()
    assert (list(ranks), record.links[0].message) == ([2], "with its stack")
    assert job.published[0].step == "write"


def say_failed(job, rank, *found, step=""):
    """Say what a rank tells: of what kind, of which ranks which error, agreed where."""
    items = []
    for what, errors, *about in found:
        known = Bundle.merge(
            Bundle.of(of, minimal(*error.split(": "))) for of, error in errors.items()
        )
        items.append((what, known.encode(), *about))
    job.say(rank, "failed", 1, items, step, False)


def all_told(job):
    """Return all that was published of each rank, in order."""
    job.pass_time(0)
    (outcome,) = job.published
    told = {}
    for ranks, record in outcome.bundle.records():
        link = record.links[0]
        for rank in ranks:
            told.setdefault(rank, []).append(f"{record.kind} {link.type_name}")
    return told


def test_what_a_rank_raises_anew_hides_what_it_had_handled_and_nothing_else():
    """Rank 1 raises while it handles the agreed failure that the others let out."""
    job = Job(3)
    say_failed(job, 0, (WHOLE, {1: "ValueError", 2: "KeyError"}, "A"), step="first")
    say_failed(job, 1, (OWN, {1: "OSError"}), (HANDLED_PARTIAL, {1: "ValueError"}, "A"))
    say_failed(job, 2, (PARTIAL, {1: "ValueError"}, "A"), (PART, {2: "KeyError"}, "A"))
    assert all_told(job) == {1: ["failure OSError"], 2: ["failure KeyError"]}
    assert job.published[0].step == "first"


def test_what_was_raised_from_an_agreed_failure_is_told_after_it():
    job = Job(2)
    agreed = {1: "ValueError: x"}
    say_failed(job, 0, (WHOLE, agreed, "A"), (OWN, {0: "RuntimeError"}))
    say_failed(
        job, 1, (PARTIAL, agreed, "A"), (PART, agreed, "A"), (OWN, {1: "OSError"})
    )
    assert all_told(job) == {
        0: ["failure RuntimeError"],
        1: ["failure ValueError", "failure OSError"],
    }


def test_a_failure_that_ended_another_rank_is_told_beside_what_ended_its_own():
    """Of another agreement, of which the rank itself says nothing."""
    job = Job(3)
    say_failed(job, 0, (WHOLE, {1: "ValueError", 2: "KeyError"}, "A"))
    say_failed(job, 1, (WHOLE, {1: "OSError"}, "B"))
    say_failed(job, 2, (OWN, {2: "TypeError"}))
    assert all_told(job) == {
        1: ["failure OSError", "failure ValueError"],
        2: ["failure TypeError", "failure KeyError"],
    }


def test_a_handled_failure_is_told_of_a_rank_that_has_not_failed_since():
    """Beside where that rank stands, and not as a failure."""
    job = Job(4)
    handled = {1: "ValueError", 2: "KeyError"}
    say_failed(job, 0, (OWN, {0: "OSError"}), (HANDLED_WHOLE, handled, "A"))
    say_failed(job, 2, (OWN, {2: "TypeError"}), (HANDLED_PARTIAL, handled, "A"))
    for rank in (1, 3):
        leave(job, rank)
    assert all_told(job) == {
        0: ["failure OSError"],
        1: ["finished finished", "handled ValueError"],
        2: ["failure TypeError"],
        3: ["finished finished"],
    }


def test_that_a_rank_was_interrupted_elsewhere_is_not_told_beside_its_failure():
    job = Job(2)
    interrupted = Bundle.of(1, minimal("PeerFailure", kind="interrupted")).encode()
    job.say(0, "failed", 1, [(WHOLE, interrupted, "A")], "", False)
    say_failed(job, 1, (OWN, {1: "OSError"}))
    assert all_told(job) == {1: ["failure OSError"]}


def test_bytes_that_are_no_record_are_told_not_raised():
    job = Job(1)
    job.say(0, "failed", 1, [(OWN, b"garbage")], "", False)
    job.pass_time(0)
    assert job.told() == {0: "<unknown>"}


def leave(job, rank):
    kind = minimal("finished", kind="finished")
    job.say(rank, "left", Bundle.of(rank, kind).encode())


def watch(job, seconds, **state):
    """Answer every question alike while time passes; return whether it ended."""
    for _ in range(int(seconds)):
        job.pass_time(1)
        ranks, number = job.asked()
        for rank in ranks:
            silent_s = state.get("silent_s", job.now)
            job.answer(rank, number, silent_s=silent_s, for_good=state["for_good"])
        if job.published:
            return True
    return False


def test_all_ranks_leave_and_nothing_is_said():
    job = Job(3)
    for rank in range(3):
        leave(job, rank)
        job.pass_time(0.1)
    assert job.collector.all_left
    assert job.published == []
    assert job.asked()[0] == []


def test_ranks_that_wait_for_ever_for_one_that_has_left_are_ended():
    job = Job(3)
    leave(job, 1)
    assert watch(job, 10 * PATIENCE_S, for_good=True)
    assert job.now > PATIENCE_S
    assert job.told() == {0: "blocked", 1: "finished", 2: "blocked"}
    assert job.published[0].code == 1


@pytest.mark.parametrize(
    "state",
    [
        {"for_good": True, "silent_s": 0.0},  # it runs Python: it makes progress
        {"for_good": False},  # blocked, but not on a rank that has left
    ],
)
def test_a_job_that_may_be_healthy_is_never_ended(state):
    job = Job(3)
    leave(job, 1)
    assert not watch(job, 2000, **state)


def test_one_rank_that_works_keeps_the_job():
    job = Job(3)
    leave(job, 0)
    for _ in range(1000):
        job.pass_time(1)
        ranks, number = job.asked()
        for rank in ranks:
            busy = rank == 2
            silent_s = 0.0 if busy else job.now
            job.answer(rank, number, silent_s=silent_s, for_good=not busy)
    assert job.published == []


def test_a_rank_that_does_not_answer_keeps_the_job_too():
    """It may hold the GIL in C code that works."""
    job = Job(3)
    leave(job, 0)
    for _ in range(1000):
        job.pass_time(1)
        _, number = job.asked()
        job.answer(1, number, silent_s=job.now, for_good=True)
    assert job.published == []


def test_questions_become_rare():
    job = Job(2)
    leave(job, 0)
    n_asked = 0
    for _ in range(3600):
        job.pass_time(1)
        ranks, number = job.asked()
        n_asked += len(ranks)
        for rank in ranks:
            job.answer(rank, number)
    assert 10 < n_asked < 100
