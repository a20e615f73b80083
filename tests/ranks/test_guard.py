"""The guarded block: all go on, or all raise."""

import abc
import asyncio
import copy
import itertools
import pickle
import sys
import traceback
from pathlib import Path

import pytest
from mpi4py import MPI

import allraise
from allraise import (
    CheckpointError,
    CheckpointException,
    agree,
    gathering,
    guard,
    methods,
)
from allraise.nesting import open_sides
from allraise.peers import WATCHDOG
from ranks.outcomes import check_outcome, fail_if, outcome_of

pytestmark = pytest.mark.mpi

PACKAGE = str(Path(allraise.__file__).parent)


def sets_of_ranks(comm):
    """One rank, some and all."""
    yield from ({rank} for rank in range(comm.size))
    yield set(range(0, comm.size, 2))
    yield set(range(comm.size))


def errors_on(ranks):
    return {rank: ValueError(f"of rank {rank}\nsecond line") for rank in ranks}


def test_a_block_that_goes_well_ends_as_any_other(comm):
    done = []
    with guard(comm, "well") as entered:
        done.append(entered)
    assert isinstance(done[0], guard)


def test_if_any_rank_raises_every_rank_raises(comm):
    for ranks in sets_of_ranks(comm):
        errors = errors_on(ranks)

        def block(errors=errors):
            with guard(comm, "write"):
                fail_if(comm.rank in errors, errors.get(comm.rank))

        check_outcome(outcome_of(block), comm, errors, step="write")


def test_any_rank_can_be_the_root(comm):
    for root in range(comm.size):
        errors = errors_on({0, comm.size - 1})

        def block(root=root, errors=errors):
            with guard(comm, "write", root=root):
                fail_if(comm.rank in errors, errors.get(comm.rank))

        check_outcome(outcome_of(block), comm, errors, step="write", root=root)


def test_everywhere_gives_every_rank_the_whole_report(comm):
    errors = errors_on(range(comm.size))

    def block():
        with guard(comm, "write", everywhere=True):
            raise errors[comm.rank]

    outcome = outcome_of(block)
    check_outcome(outcome, comm, errors, step="write", everywhere=True)
    assert "whole report" not in str(outcome)


def write_low(error):
    raise error


def write_high(error):
    raise error


WRITERS = (write_low, write_high, fail_if)


def write(rank):
    """Fail in one of three ways."""
    way, error = WRITERS[rank % 3], OSError(28, f"full on rank {rank}")
    way(error) if way is not fail_if else way(error, error)


def last_frames(outcome):
    return {rank: stack[-1].name for rank, (_, stack) in outcome.failures.items()}


@pytest.mark.parametrize("branches", [None, 2, 3, 8])
def test_each_ranks_stack_is_its_own_whoever_has_the_same(comm, monkeypatch, branches):
    if branches is not None:  # down a tree, as where there are many ranks
        monkeypatch.setattr(gathering, "MAX_GATHERED_RANKS", 1)
        monkeypatch.setattr(gathering, "BRANCHES", branches)
    for root in {0, comm.size - 1}:
        for failing in sets_of_ranks(comm):

            def block(root=root, failing=failing):
                with guard(comm, "write", root=root):
                    if comm.rank in failing:
                        write(comm.rank)

            outcome = outcome_of(block)
            text = str(outcome)
            if comm.rank == root:
                names = {rank: WRITERS[rank % 3].__name__ for rank in failing}
                assert last_frames(outcome) == names
                assert text.count("raise error") == len(failing)
                assert text.count("write(comm.rank)") == len(failing)
            elif comm.rank in failing:
                _, own = outcome.failures[comm.rank]
                assert own[-1].name == WRITERS[comm.rank % 3].__name__
                assert text.count("raise error") == 1


def test_the_whole_report_is_everywhere_also_for_who_did_not_ask_for_it(comm):
    """A rank fails before the others come to a guard that wants less."""

    def block():
        with guard(comm, "outer", everywhere=True):
            if comm.rank == comm.size - 1:
                write(comm.rank)
            with guard(comm, "inner"):
                write(comm.rank)

    outcome = outcome_of(block)
    if comm.size > 1:
        assert outcome.step == "outer"
        names = {rank: WRITERS[rank % 3].__name__ for rank in range(comm.size)}
        assert last_frames(outcome) == names
        assert str(outcome).count("raise error") == comm.size


def test_the_ranks_own_exception_is_untouched(comm):
    error = ValueError("mine")
    error.add_note("a note")
    cause = OSError("below")

    def block():
        with guard(comm, "write"):
            raise error from cause

    outcome = outcome_of(block)
    assert outcome.__cause__ is error
    assert error.__cause__ is cause
    assert error.__notes__ == ["a note"]
    assert error.args == ("mine",)
    assert [f.name for f in traceback.extract_tb(error.__traceback__)] == ["block"]
    assert vars(error) == {"__notes__": ["a note"]}


def test_an_ordinary_failure_is_caught_by_except_exception(comm):
    with pytest.raises(Exception, match="ordinary") as caught, guard(comm):
        raise ValueError("ordinary")
    assert type(caught.value) is CheckpointError


def test_a_guard_is_used_again_and_again(comm):
    used = guard(comm, "again")
    for number in range(6):
        if number % 2:
            with pytest.raises(CheckpointError), used:
                fail_if(comm.rank == 0, ValueError(number))
        else:
            with used:
                pass


class Labelled(guard):
    """Of a user's: it has a slot, and attributes."""

    __slots__ = ("number",)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_guard_of_its_own(comm, how, everywhere):
    root = comm.size - 1
    used = Labelled(comm, "copied", root=root, everywhere=everywhere, timeout=600)
    used.label, used.number = ["kept"], 3
    with used:
        made = how(used)
        with pytest.raises(RuntimeError, match="was not entered"):
            made.__exit__(None, None, None)
    assert (made.label, made.number) == (["kept"], 3)

    def block():
        with made:
            fail_if(comm.rank == 0, ValueError("of rank 0"))

    outcome = outcome_of(block)
    assert (outcome.step, outcome.ranks) == ("copied", (0,))
    assert outcome.is_partial == (not everywhere and comm.rank != root)
    if not outcome.is_partial:
        assert str(outcome.failures[0][0]) == "of rank 0"


def test_a_guard_of_all_ranks_can_be_pickled(world):
    with pickle.loads(pickle.dumps(guard(None, "pickled", timeout=600))):
        pass
    used = pickle.loads(pickle.dumps(guard(step="pickled")))
    with pytest.raises(CheckpointError) as caught, used:
        fail_if(world.rank == 0, ValueError("of rank 0"))
    assert caught.value.step == "pickled"


def test_a_guard_holds_itself(comm):
    used = guard(comm, "itself")
    with used, used:
        pass
    with pytest.raises(CheckpointError), used, used:
        fail_if(comm.rank == comm.size - 1, ValueError())
    with used:
        pass


def test_a_decorated_function_is_guarded_at_each_call(comm):
    @guard(comm, "call")
    def add(a, b=1):
        """Add."""
        fail_if(b == "bad" and comm.rank == comm.size - 1, ValueError("bad b"))
        return a + b

    assert add(1) == 2
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."
    outcome = outcome_of(lambda: add("a", b="bad"))
    assert outcome.ranks == (comm.size - 1,)
    assert add(1, b=2) == 3


def test_a_decorated_function_may_recurse(comm):
    @guard(comm, "recursion")
    def down(n, fails):
        fail_if(n == 0 and fails and comm.rank == 0, ValueError("at the bottom"))
        return n if n == 0 else 1 + down(n - 1, fails)

    assert down(3, fails=False) == 3
    outcome = outcome_of(lambda: down(3, fails=True))
    assert outcome.ranks == (0,)
    assert str(outcome).count("ValueError: at the bottom") == 1
    assert down(2, fails=False) == 2


def test_a_decorated_coroutine_is_guarded_until_it_ends(comm):
    @guard(comm, "coroutine")
    async def work(fails):
        await asyncio.sleep(0)
        fail_if(fails and comm.rank == 0, ValueError("in a coroutine"))
        return "done"

    assert asyncio.run(work(fails=False)) == "done"
    assert outcome_of(lambda: asyncio.run(work(fails=True))).ranks == (0,)


@pytest.mark.parametrize("is_failing", [False, True])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_guards_of_coroutines_that_overlap_are_refused_and_leave_nothing_open(
    world, is_failing, is_elsewhere
):
    """They would end in the order of each rank's own events."""
    comm = world.Dup()
    other = world.Dup() if is_elsewhere else comm
    may_end = asyncio.Event()

    async def first():
        with guard(comm, "first"):
            await asyncio.sleep(0)
            world.Barrier()  # every rank is in both now
            fail_if(is_failing and comm.rank == 0, ValueError("in the first"))

    async def second():
        with guard(other, "second"):
            await may_end.wait()
            raise KeyError("in the second")

    async def both():
        tasks = [asyncio.create_task(work()) for work in (first, second)]
        await asyncio.wait(tasks[:1])
        may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcome, refusal = asyncio.run(both())
    assert (outcome.ranks == (0,)) if is_failing else outcome is None
    assert type(refusal) is RuntimeError
    assert "step 'second' ends after one that was entered before it" in str(refusal)
    assert str(refusal.__context__) == "'in the second'"
    assert not open_sides()
    for used in [comm, other][: 1 + is_elsewhere]:
        agree(None, used, "afterwards")
        later = outcome_of(lambda used=used: agree(ValueError(), used, "later"))
        assert later.ranks == tuple(range(world.size))
        used.Free()


def test_wherever_a_handler_raises_as_a_timed_guard_opens_nothing_stays_open():
    """On one rank: the others would wait for it, and it for what is due there."""
    with guard(MPI.COMM_SELF, "what is loaded late is loaded", timeout=60):
        pass
    place, has_raised = 0, True
    while has_raised:
        place += 1
        events = itertools.count(1)
        has_raised = False

        def raise_there(frame, event, _argument, place=place, events=events):
            nonlocal has_raised
            here = frame.f_code.co_filename.startswith(PACKAGE)
            if event in {"call", "c_return"} and here and next(events) == place:
                sys.setprofile(None)
                has_raised = True
                raise KeyboardInterrupt("now")

        timed = guard(MPI.COMM_SELF, "timed", timeout=60)
        sys.setprofile(raise_there)
        try:
            timed.__enter__()
        except KeyboardInterrupt:
            assert not open_sides(), f"at place {place}"
        else:
            sys.setprofile(None)
            assert timed.__exit__(None, None, None) is None
        finally:
            sys.setprofile(None)
    assert place > 5
    # Nor does its deadline end the job a minute later.
    assert not any(watch.is_open() for watch in WATCHDOG.watches())


def test_generators_are_refused(comm):
    def generator():
        yield

    async def async_generator():
        yield

    for function in (generator, async_generator):
        with pytest.raises(TypeError, match=r"is a generator: .* in the body"):
            guard(comm)(function)
    with pytest.raises(TypeError, match="guard decorates functions, got int"):
        guard(comm)(5)


def test_a_failure_on_one_communicator_is_none_on_another(world):
    half = world.Split(world.rank % 2, -world.rank)

    def block():
        with guard(half, "half"):
            fail_if(world.rank == 0, ValueError("of world rank 0"))

    if world.rank % 2 == 0:
        outcome = outcome_of(block)
        assert outcome.ranks == (half.size - 1,)  # numbered backwards
    else:
        block()
    half.Free()


def test_comm_none_is_all_ranks(world):
    def block():
        with guard(step="all"):
            fail_if(world.rank == world.size - 1, ValueError("last"))

    assert outcome_of(block).ranks == (world.size - 1,)


def test_the_frames_of_a_traceback_are_the_users(comm):
    def block():
        with guard(comm, "frames"):
            raise ValueError("here")

    outcome = outcome_of(block)
    names = [f.name for f in traceback.extract_tb(outcome.__traceback__)]
    assert names == ["outcome_of", "block", "__exit__"]
    assert [frame.name for frame in outcome.failures[comm.rank][1]] == ["block"]


def test_agreeing_on_nothing_returns_nothing(comm):
    assert allraise.agree(comm=comm) is None
    assert allraise.collect(None, comm, "nothing") is None


def test_agree_raises_what_any_rank_has_caught(comm):
    for ranks in sets_of_ranks(comm):
        errors = errors_on(ranks)
        for rank in errors:
            try:
                raise errors[rank]
            except ValueError:
                pass  # it has a traceback now
        outcome = outcome_of(allraise.agree, errors.get(comm.rank), comm, "agree")
        check_outcome(outcome, comm, errors, step="agree")


def test_collect_returns_what_agree_would_raise(comm):
    root = comm.size - 1
    errors = errors_on({0})
    try:
        raise errors[0]
    except ValueError:
        outcome = allraise.collect(
            errors.get(comm.rank), comm, "collect", root=root, everywhere=True
        )
    assert isinstance(outcome, CheckpointException)
    check_outcome(outcome, comm, errors, step="collect", root=root, everywhere=True)


def test_an_exception_that_was_never_raised_can_be_agreed_on(comm):
    error = ValueError("never raised") if comm.rank == 0 else None
    outcome = allraise.collect(error, comm)
    assert outcome.ranks == (0,)
    assert "never raised" in str(outcome)


def test_one_rank_communicates_nothing():
    from mpi4py import MPI

    from allraise.creation import private_of

    alone = MPI.COMM_SELF.Dup()
    with guard(alone, "alone"):
        pass
    assert private_of(alone).comm is None
    error = ValueError("alone")

    def block():
        with guard(alone, "alone"):
            raise error

    check_outcome(outcome_of(block), alone, {0: error}, step="alone")
    alone.Free()


def test_a_class_derived_from_guard_is_made_as_any_class(comm):
    class MadeByObject(guard):
        def __new__(cls, *_):
            return object.__new__(cls)

    class MadeAsAny(guard):
        def __new__(cls, *_):
            return super().__new__(cls)

    class GivenTooMuch(guard):
        def __new__(cls, *args):
            return super().__new__(cls, *args)

    class Abstract(guard, abc.ABC):
        @abc.abstractmethod
        def work(self): ...

    for derived in (MadeByObject, MadeAsAny):
        with derived(comm, "step") as made, copy.copy(made) as copied:
            assert type(copied) is derived
    for refused in (GivenTooMuch, Abstract):
        with pytest.raises(TypeError):
            refused(comm, "step")


def test_an_exception_that_is_raised_twice_comes_from_itself_in_no_circle(monkeypatch):
    """A handler raises the one that is handled, and the collective fails as well."""
    late = KeyboardInterrupt("late")
    monkeypatch.setitem(methods.LOOKS, "Barrier", lambda _comm: None)

    class Communicator:
        def gate(self, *_):
            return late

        def Barrier(self):
            raise ValueError("of the collective")

    barrier = methods._gated(Communicator, "Barrier")
    found = []
    try:
        raise late
    except KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt) as caught:
            barrier(Communicator())
    error = caught.value
    while error is not None and error not in found:
        found.append(error)
        error = error.__context__
    assert (error, len(found)) == (None, 2)
