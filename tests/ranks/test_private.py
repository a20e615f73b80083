"""The private communicator: ours alone, made once, freed with the user's."""

import re

import pytest
from mpi4py import MPI

import allraise
from allraise import guard
from allraise.creation import private_of
from ranks.outcomes import fail_if, outcome_of

pytestmark = pytest.mark.mpi


@pytest.fixture
def fresh(comm):
    """A communicator that no guard has seen."""
    duplicate = comm.Dup()
    yield duplicate
    if duplicate != MPI.COMM_NULL:
        duplicate.Free()


def test_the_duplicate_is_made_at_the_first_guard_and_kept(fresh):
    allraise.agree(comm=fresh)
    private = private_of(fresh)
    with guard(fresh):
        pass
    assert private_of(fresh) is private
    if fresh.size > 1:
        assert private.comm.Get_name() == "allraise"
        assert MPI.Comm.Compare(private.comm, fresh) == MPI.CONGRUENT
    else:
        assert private.comm is None


def test_another_handle_of_the_same_communicator_finds_it(fresh):
    allraise.agree(comm=fresh)
    other = MPI.Comm.fromhandle(fresh.handle)
    assert private_of(other) is private_of(fresh)


def test_a_duplicate_of_the_users_communicator_has_one_of_its_own(fresh):
    allraise.agree(comm=fresh)
    other = fresh.Dup()
    allraise.agree(comm=other)
    assert private_of(other) is not private_of(fresh)
    other.Free()
    allraise.agree(comm=fresh)


def test_it_is_freed_with_the_users_communicator(fresh):
    allraise.agree(comm=fresh)
    private = private_of(fresh)
    fresh.Free()
    assert private.closed
    if private.comm is not None:
        assert private.comm == MPI.COMM_NULL


def test_a_guard_on_a_freed_communicator_says_so(fresh):
    used = guard(fresh, "used")
    with used:
        pass
    fresh.Free()
    with pytest.raises(ValueError, match=r"comm is COMM_NULL .*freed.*: pass an"):  # noqa: SIM117
        with used:
            pytest.fail("it was entered")
    with pytest.raises(ValueError, match="comm is COMM_NULL"):
        guard(fresh)
    with pytest.raises(ValueError, match="comm is COMM_NULL"):
        allraise.agree(comm=fresh)


def test_many_communicators_come_and_go(comm):
    """More than an MPI has numbers for, were they leaked: MPICH has about 2000."""
    for number in range(2200 if comm.size == 1 else 20):
        short = comm.Dup()
        with guard(short, "short"):
            pass
        if number % 10 == 0:
            outcome_of(allraise.agree, ValueError(), short)
        short.Free()


def test_messages_for_any_source_and_tag_never_meet_ours(comm):
    """A receive that would take anything is open while ranks agree and fail."""
    box = bytearray(8)
    request = comm.Irecv(box, MPI.ANY_SOURCE, MPI.ANY_TAG)
    with guard(comm, "well"):
        pass
    outcome = outcome_of(allraise.agree, ValueError("on all"), comm, "fails")
    assert outcome.ranks == tuple(range(comm.size))
    assert not comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)
    assert not request.Test()
    comm.Barrier()
    comm.Send(b"%8d" % comm.rank, (comm.rank + 1) % comm.size, 7)
    status = MPI.Status()
    request.Wait(status)
    assert int(box) == status.source == (comm.rank - 1) % comm.size


def test_messages_in_flight_pass_through_a_failure(comm):
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    request = comm.isend({"from": comm.rank}, right, 3)
    outcome_of(allraise.agree, ValueError(), comm)
    assert comm.recv(source=left, tag=3) == {"from": left}
    request.wait()


@pytest.mark.parametrize(
    "handler", [MPI.ERRORS_RETURN, MPI.ERRORS_ARE_FATAL], ids=["return", "fatal"]
)
def test_the_users_error_handler_stays_and_does_not_matter(handler, fresh):
    fresh.Set_errhandler(handler)
    allraise.agree(comm=fresh)
    outcome_of(allraise.agree, ValueError(), fresh)
    now = fresh.Get_errhandler()
    assert now == handler
    now.Free()
    private = private_of(fresh)
    if private.comm is not None:
        with pytest.raises(MPI.Exception):
            private.comm.Send(b"", dest=fresh.size + 5)


def test_an_error_of_mpi_in_the_block_is_a_failure_like_any_other(fresh):
    fresh.Set_errhandler(MPI.ERRORS_RETURN)

    def block():
        with guard(fresh, "sends"):
            if fresh.rank == fresh.size - 1:
                fresh.Send(b"", dest=fresh.size + 5)

    outcome = outcome_of(block)
    assert outcome.ranks == (fresh.size - 1,)
    if fresh.rank == 0:
        # As Open MPI and MPICH put it.
        assert re.search("MPI_ERR_RANK|Invalid rank", str(outcome))


def test_two_communicators_do_not_disturb_each_other(comm):
    one, two = comm.Dup(), comm.Dup()
    with guard(one, "one"):
        outcome_of(allraise.agree, ValueError(), two, "two")
        with guard(two, "two"):
            pass

    def block():
        with guard(one, "one"), guard(two, "two"):
            fail_if(comm.rank == 0, ValueError("in both"))

    outcome = outcome_of(block)
    assert outcome.step == "one"
    assert outcome.ranks == (0,)
    one.Free()
    two.Free()
