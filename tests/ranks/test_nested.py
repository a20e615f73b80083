"""Guards in guards: no deadlock, one report, nobody goes on alone."""

import re

import pytest
from mpi4py import MPI

import allraise
from allraise import CheckpointError, StepMismatchError, guard
from ranks.outcomes import check_outcome, fail_if, outcome_of

pytestmark = pytest.mark.mpi


def test_a_failure_passes_through_outer_guards_as_it_is(comm):
    errors = {rank: ValueError(f"of {rank}") for rank in range(comm.size)}
    seen = []

    def block():
        with guard(comm, "outer"), guard(comm, "middle"):
            try:
                with guard(comm, "inner"):
                    raise errors[comm.rank]
            except CheckpointError as error:
                seen.append(error)
                raise

    outcome = outcome_of(block)
    assert outcome is seen[0]
    check_outcome(outcome, comm, errors, step="inner")


def test_a_failure_before_the_inner_guard_meets_the_others_in_it(comm):
    error = ValueError("outside")

    def block():
        with guard(comm, "outer"):
            fail_if(comm.rank == 0, error)
            with guard(comm, "inner"):
                pass

    check_outcome(outcome_of(block), comm, {0: error}, step="outer")


def test_what_is_settled_is_raised_even_if_code_in_between_swallowed_it(comm):
    error = ValueError("outside")
    n_swallowed = 0

    def block():
        nonlocal n_swallowed
        with guard(comm, "outer"):
            fail_if(comm.rank == 0, error)
            for _ in range(3):
                try:
                    with guard(comm, "inner"):
                        pass
                except CheckpointError:
                    n_swallowed += 1

    check_outcome(outcome_of(block), comm, {0: error}, step="outer")
    assert n_swallowed == (0 if comm.rank == 0 else 3)


def test_a_swallowed_inner_failure_is_over_where_all_swallow_it(comm):
    with guard(comm, "outer"):
        with pytest.raises(CheckpointError), guard(comm, "inner"):
            fail_if(comm.rank == 0, ValueError())
        with guard(comm, "inner"):
            pass


def test_a_failure_that_some_swallow_is_told_whole_by_the_others(comm):
    errors = {rank: ValueError(f"of {rank}") for rank in range(comm.size)}

    def block():
        with guard(comm, "outer"):
            try:
                with guard(comm, "inner"):
                    raise errors[comm.rank]
            except CheckpointError:
                if comm.rank == comm.size - 1:
                    raise

    outcome = outcome_of(block)
    assert outcome.ranks == tuple(range(comm.size))
    if comm.rank == 0:
        for rank in range(comm.size):
            assert str(outcome).count(f"ValueError: of {rank}\n") == 1


def test_a_new_failure_joins_one_that_is_passed_on(comm):
    first, second = ValueError("first"), KeyError("second")

    def block():
        with guard(comm, "outer"):
            try:
                with guard(comm, "inner"):
                    fail_if(comm.rank == 0, first)
            except CheckpointError:
                if comm.rank == comm.size - 1 and comm.size > 1:
                    raise second from None
                raise

    errors = {0: first, comm.size - 1: second} if comm.size > 1 else {0: first}
    outcome = outcome_of(block)
    assert outcome.ranks == tuple(sorted(errors))
    assert outcome.__cause__ is errors.get(comm.rank)
    if comm.rank == 0:
        assert "dict_keys" not in str(outcome).partition("\n")[2]


def test_a_failure_made_from_an_outcome_does_not_repeat_it(comm):
    def block():
        with guard(comm, "outer"):
            try:
                with guard(comm, "inner"):
                    fail_if(comm.rank == 0, ValueError("inner one"))
            except CheckpointError as error:
                raise RuntimeError("could not save") from error

    outcome = outcome_of(block)
    assert outcome.ranks == tuple(range(comm.size))
    assert "step 'inner' failed on rank 0, reported where it was raised" in str(outcome)
    assert str(outcome).count("ValueError: inner one\n") == (comm.rank == 0)
    assert "dict_keys" not in str(outcome).partition("\n")[2]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("outer", [0, -1])
@pytest.mark.parametrize("everywhere", [True, False])
def test_what_one_rank_raises_from_an_outcome_tells_of_its_cause(
    comm, outer, everywhere
):
    """Also where it has failed on another rank, and nobody else goes on from it."""
    outer %= comm.size
    inner = comm.size - 1 - outer

    def block():
        with guard(comm, "outer"):
            try:
                with guard(comm, "inner", everywhere=everywhere):
                    fail_if(comm.rank == inner, ValueError("the real cause"))
            except CheckpointError as error:
                if comm.rank == outer:
                    raise RuntimeError("could not save") from error

    outcome = outcome_of(block)
    assert outcome.ranks == (outer,)
    if comm.rank in {0, outer}:
        assert f"failed on rank {inner}, reported where it was raised\n" in str(outcome)
        assert str(outcome).count("ValueError: the real cause") == 1
        assert (", in fail_if\n" in str(outcome)) == (everywhere or outer == 0)


def test_an_older_outcome_raised_again_loses_nobody(comm):
    """The ranks that failed then are told, though others failed since."""
    old = outcome_of(allraise.agree, ValueError(f"old {comm.rank}"), comm, "old")
    outcome_of(allraise.agree, ValueError("between"), comm, "between")

    def block():
        with guard(comm, "again"):
            fail_if(comm.rank == 0, old)
            fail_if(comm.rank == 1, KeyError("new"))

    outcome = outcome_of(block)
    assert outcome.ranks == tuple(range(comm.size))
    assert outcome.step == ("old" if comm.size == 1 else "again")
    if comm.rank == 0 and comm.size > 1:
        assert "KeyError: 'new'" in str(outcome)
        assert "old 1" not in str(outcome)
        assert "between" not in str(outcome)


@pytest.mark.mpi(min_size=2)
def test_ranks_at_different_steps_are_told_where_each_stands(world):
    def first():
        allraise.agree(None, world, "first")

    def second():
        allraise.agree(None, world, "second")

    outcome = outcome_of(second if world.rank else first)
    assert outcome.ranks == tuple(range(world.size))
    error, _ = outcome.failures[world.rank]
    assert type(error) is StepMismatchError
    others = "rank 1" if world.size == 2 else f"ranks 1-{world.size - 1}"
    rows = str(error).splitlines()
    assert rows[0] == "ranks met at different steps:"
    for who, function in (("rank 0", first), (others, second)):
        row = next(row for row in rows if row.startswith(f"  {who}: "))
        assert f"step {function.__name__!r}, the " in row
        assert row.endswith(f"{__file__}:{function.__code__.co_firstlineno + 1}")
    assert not outcome.is_partial


@pytest.mark.mpi(min_size=2)
def test_where_every_rank_stands_elsewhere_what_is_told_is_bounded(world, monkeypatch):
    """The table on all ranks, and a block of each rank on the root alone."""
    monkeypatch.setattr("allraise.mismatch.MAX_POSITIONS", 1)
    monkeypatch.setattr("allraise.telling.MAX_BLOCKS_ELSEWHERE", 0)
    outcome = outcome_of(allraise.agree, None, world, f"of {world.rank}")
    assert outcome.ranks == tuple(range(world.size))
    assert not outcome.is_partial
    rows = str(outcome.failures[world.rank][0]).splitlines()
    assert len(rows) == 3
    left = world.size - 1
    assert rows[2] == f"  [{left} more {'place' if left == 1 else 'places'}]"
    blocks = [line for line in str(outcome).splitlines() if "(RANK " in line]
    if world.rank:
        assert [line.split()[-1] for line in blocks] == [f"{world.rank})"]
        last = str(outcome).splitlines()[-1]
        hint = f"rank 0 of {world.size} has the whole report"
        assert (
            last == f"[{left} more {'rank' if left == 1 else 'ranks'} failed; {hint}]"
        )
    else:
        assert len(blocks) == world.size


@pytest.mark.mpi(min_size=2)
def test_a_guard_that_one_rank_skips_is_a_mismatch(world):
    """File and line of each set of ranks are told."""

    def block():
        with guard(world, "outer"):
            if world.rank != 1:
                with guard(world, "inner"):
                    pass

    first = block.__code__.co_firstlineno
    outcome = outcome_of(block)
    assert outcome.step == "outer"
    text = str(outcome.failures[world.rank][0])
    place = re.escape(__file__)
    assert re.search(
        rf"rank 1: step 'outer', the \w+ at depth 1, {place}:{first + 1}\b", text
    )
    assert f"step 'inner', the 1st at depth 2, {__file__}:{first + 3}" in text


@pytest.mark.mpi(min_size=2)
def test_loops_of_different_lengths_are_a_mismatch(world):
    def block():
        with guard(world, "outer"):
            for _ in range(3 if world.rank else 2):
                with guard(world, "inner"):
                    pass

    outcome = outcome_of(block)
    assert {type(error) for error, _ in outcome.failures.values()} == {
        StepMismatchError
    }
    assert "the 3rd at depth 2" in str(outcome)


@pytest.mark.mpi(min_size=2)
def test_collective_steps_of_different_kinds_are_a_mismatch(world):
    steps = allraise.CollectiveSteps(world)
    if world.rank:
        outcome = outcome_of(steps.all_gather, "same", lambda: 1)
    else:
        outcome = outcome_of(steps.broadcast, "same", lambda: 1)
    text = str(outcome.failures[world.rank][0])
    assert "step 'same' (broadcast, coordinator 0)" in text
    assert "step 'same' (all_gather, coordinator 0)" in text


def test_a_guard_on_a_part_fails_in_a_guard_on_all(world):
    """Its outcome is carried into the outer report under the world's ranks."""
    half = world.Split(world.rank % 2, -world.rank)
    error = ValueError("in a half")

    def block():
        with guard(world, "all"), guard(half, "half"):
            fail_if(world.rank == 0, error)

    outcome = outcome_of(block)
    assert outcome.step == "all"
    assert outcome.ranks == (0,)
    if world.rank == 0:
        assert outcome.failures[0][0] is error
        assert outcome.__cause__ is error
        assert "dict_keys" not in str(outcome).partition("\n")[2]
    half.Free()


@pytest.mark.mpi(min_size=3)
def test_a_failure_among_other_ranks_is_told_with_its_cause_and_where_it_was_met(world):
    """Rank 1 is in both, and knows all of the first one."""
    first = world.Split(0 if world.rank > 0 else MPI.UNDEFINED, world.rank)
    second = world.Split(0 if world.rank < 2 else MPI.UNDEFINED, world.rank)

    def meet():
        with guard(first, "first"):
            fail_if(world.rank == 2, OSError("disk full"))

    def meet_within():
        with guard(second, "second"):
            if world.rank == 1:
                meet()

    outcome = outcome_of(meet_within if second else meet)
    assert outcome.ranks == (1,)
    if second:
        text = str(outcome)
        assert "step 'first' failed on another communicator\n  | rank 1:\n" in text
        assert "  | OSError: disk full\n" in text
        assert ", in meet\n" in text.partition("  | ")[0]
    for comm in (first, second):
        if comm:
            comm.Free()


@pytest.mark.mpi(min_size=2)
def test_the_step_has_its_name_where_the_root_asks_for_the_first_g_comm(world):
    """Where it has failed: that of the guard around, which both are in."""
    fresh, met = world.Dup(), []

    def block():
        with guard(fresh, "outer") as g:
            try:
                if world.rank == 1:
                    with guard(fresh, "inner"):
                        raise OSError("disk full")
            except CheckpointError as error:
                met.append(error.step)
                raise
            g.comm.barrier()

    outcome = outcome_of(block)
    assert outcome.ranks == (1,)
    assert [outcome.step, *met] == ["outer"] * (1 + (world.rank == 1))
    fresh.Free()
