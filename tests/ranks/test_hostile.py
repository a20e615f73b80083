"""Whatever is raised on whichever rank, every rank learns of it."""

import inspect
import sys
import threading

import pytest

import allraise
from allraise import CheckpointError, CheckpointException, RemoteError, guard
from ranks.outcomes import check_outcome, fail_if, outcome_of

pytestmark = pytest.mark.mpi


class WithLock(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, text, more):
        super().__init__(text)


class RaisesWhenPickled(Exception):
    def __reduce__(self):
        raise SystemExit("from __reduce__")


class RaisesWhenShown(Exception):
    def __str__(self):
        raise KeyboardInterrupt("from __str__")

    __repr__ = __str__


class EndsWhenUnpickled(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


class RaisesWhenAskedItsClass(Exception):
    @property
    def __class__(self):
        raise SystemExit("from __class__")


class OutcomeUnmade(CheckpointError):
    """A failure of ours by its class, without what ours have."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


class OutcomeThatIsAsked(OutcomeUnmade):
    @property
    def agreed(self):
        raise RuntimeError("from agreed")


class RaisesWhenHashed(type):
    def __eq__(cls, other):
        raise RuntimeError("from __eq__")

    def __hash__(cls):
        raise RuntimeError("from __hash__")


class ClassRaisesWhenHashed(Exception, metaclass=RaisesWhenHashed):
    """Cannot be looked up by its class."""


HOSTILE = {
    "an outcome that was not made": lambda: OutcomeUnmade("hostile text"),
    "an outcome that is asked": lambda: OutcomeThatIsAsked("hostile text"),
    "class raises when hashed": lambda: ClassRaisesWhenHashed("hostile text"),
    "unpicklable": lambda: WithLock("hostile text"),
    "un-unpicklable": lambda: TwoArguments("hostile text", 2),
    "raises when pickled": lambda: RaisesWhenPickled("hostile text"),
    "raises when shown": lambda: RaisesWhenShown("hostile text"),
    "ends when unpickled": lambda: EndsWhenUnpickled("hostile text"),
    "raises when asked its class": lambda: RaisesWhenAskedItsClass("hostile text"),
    "huge message": lambda: ValueError("hostile text" + "x" * 20_000_000),
    "huge payload": lambda: ValueError("hostile text", b"x" * 20_000_000),
    "lone surrogate": lambda: ValueError("hostile text \udcff"),
    "of no module": lambda: type("Odd", (Exception,), {"__module__": None})(
        "hostile text"
    ),
    "group": lambda: ExceptionGroup("hostile text", [ValueError(1), KeyError(2)]),
}


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(0), SystemExit("text"), GeneratorExit()],
    ids=["KeyboardInterrupt", "sys.exit(0)", "sys.exit(text)", "GeneratorExit"],
)
def test_what_is_no_exception_is_a_failure_on_every_rank(comm, error):
    for rank in {0, comm.size - 1}:

        def block(rank=rank):
            with guard(comm, "exits"):
                fail_if(comm.rank == rank, error)

        outcome = outcome_of(block)
        assert type(outcome) is CheckpointException
        check_outcome(outcome, comm, {rank: error}, step="exits")


def test_one_that_is_no_exception_among_others_makes_all_so(comm):
    errors = {rank: ValueError(f"of {rank}") for rank in range(comm.size)}
    errors[comm.size - 1] = KeyboardInterrupt()

    def block():
        with guard(comm, "mixed"):
            raise errors[comm.rank]

    outcome = outcome_of(block)
    assert not isinstance(outcome, Exception)
    check_outcome(outcome, comm, errors, step="mixed")


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("everywhere", [False, True], ids=["root", "everywhere"])
def test_a_hostile_exception_is_told_and_delays_nobody(comm, make, everywhere):
    """It is on the last rank; rank 0 fails in an ordinary way."""
    error = make()
    last = comm.size - 1

    def block():
        with guard(comm, "hostile", everywhere=everywhere):
            fail_if(comm.rank == last, error)
            fail_if(comm.rank == 0, ValueError("ordinary"))

    outcome = outcome_of(block)
    assert type(outcome) is CheckpointError
    assert outcome.ranks == tuple(sorted({0, last}))
    if comm.rank == last:
        assert outcome.__cause__ is error
        assert outcome.failures[last][0] is error
    if comm.rank == 0 or everywhere:
        text = str(outcome)
        assert len(text) < 100_000
        assert type(error).__name__ in text
        assert "ordinary" in text or last == 0
        if type(error) is not RaisesWhenShown:
            assert "hostile text" in text
        if comm.rank != last:
            seen, summary = outcome.failures[last]
            assert isinstance(seen, (type(error), RemoteError))
            assert [frame.name for frame in summary] == ["block", "fail_if"]


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_exception_that_was_caught_is_told(comm, make):
    error = make()
    outcome = outcome_of(allraise.agree, error if comm.rank == 0 else None, comm)
    assert type(outcome) is CheckpointError
    assert outcome.ranks == (0,)
    assert comm.rank != 0 or outcome.__cause__ is error


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("timeout", [None, 60], ids=["no limit", "time limit"])
def test_a_hostile_exception_wakes_those_blocked_further_in(comm, make, timeout):
    """The last rank fails before an inner region, in which the others wait."""
    error = make()
    last = comm.size - 1

    def block():
        with guard(comm, "outer", timeout=timeout):
            fail_if(comm.rank == last, error)
            with guard(comm, "inner", timeout=timeout) as g:
                g.comm.Barrier()

    outcome = outcome_of(block)
    assert type(outcome) is CheckpointError
    assert last in outcome.ranks
    assert comm.rank != last or outcome.__cause__ is error


def test_all_ranks_hostile_at_once(comm):
    errors = [make() for make in HOSTILE.values()]

    def block():
        with guard(comm, "hostile"):
            raise errors[comm.rank % len(errors)]

    outcome = outcome_of(block)
    assert outcome.ranks == tuple(range(comm.size))
    if comm.rank == 0:
        for rank in range(comm.size):
            assert f"(RANK {rank})" in str(outcome)


def down(n):
    return down(n + 1)


def sink(n, then):
    return sink(n - 1, then) if n > 0 else then()


def test_a_stack_that_ran_out_on_one_rank(comm):
    def block():
        with guard(comm, "recursion"):
            if comm.rank == comm.size - 1:
                down(0)

    outcome = outcome_of(block)
    assert outcome.ranks == (comm.size - 1,)
    assert type(outcome) is CheckpointError
    if comm.rank in {0, comm.size - 1}:
        assert "RecursionError" in str(outcome)


@pytest.mark.parametrize("fails", [True, False], ids=["failing", "going well"])
@pytest.mark.parametrize("way", ["guard", "made before", "agree"])
def test_a_region_near_the_end_of_the_stack(comm, way, fails):
    """One rank enters so deep that there is hardly room to agree.

    It raises at its entry, or agrees as any other: nothing in between, at whatever
    depth.
    """
    last = comm.size - 1
    error = ValueError("deep")
    made_before = guard(comm, "deep")
    entered = []

    def deep():
        if way == "agree":
            allraise.agree(error if fails and comm.rank == last else None, comm, "deep")
            return
        with made_before if way == "made before" else guard(comm, "deep"):
            if comm.rank == last:
                entered.append(True)
            fail_if(fails and comm.rank == last, error)

    def block(room):
        with guard(comm, "shallow"):
            if comm.rank == last:
                left = sys.getrecursionlimit() - len(inspect.stack(0)) - room
                sink(left, deep)
            else:
                deep()

    limit = sys.getrecursionlimit()
    steps = []
    for room in range(1, 40):
        entered.clear()
        outcome = None
        try:
            block(room)
        except CheckpointException as raised:
            outcome = raised
        assert outcome is None or outcome.ranks == (last,)
        steps.append("well" if outcome is None else outcome.step)
        assert not entered or steps[-1] != "shallow"
        assert sys.getrecursionlimit() == limit
    # In between, the body of the block has no room for what it calls.
    kinds = ["shallow", "deep"] if fails else ["shallow", "deep", "well"]
    assert steps == sorted(steps, key=kinds.index)
    assert {kinds[0], kinds[-1]} <= {*steps}
    assert not fails or comm.rank != last or outcome.__cause__ is error


def test_an_outcome_can_be_sent_between_ranks(comm):
    outcome = outcome_of(allraise.agree, ValueError(f"of {comm.rank}"), comm, "sent")
    received = comm.bcast(outcome if comm.rank == 0 else None)
    assert isinstance(received, CheckpointError)
    assert received.ranks == tuple(range(comm.size))
    assert received.step == "sent"
    assert f"ValueError: of {comm.size - 1}\n" in str(received)
