"""What counts as interrupted, and what as a failure of its own.

Rank 1 fails, the others wait on g.comm; then they meet the interruption in some way.
"""

import time

import pytest
from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD
OTHERS = tuple(rank for rank in range(comm.size) if rank != 1)


def wait_for_rank_1(g):
    if comm.rank == 1:
        time.sleep(0.2)  # so that the others wait for it by then
        raise ValueError("of rank 1")
    g.comm.Barrier()


def outcome_of(handle):
    try:
        with allraise.guard(comm, "step") as g:
            handle(g)
    except allraise.CheckpointException as failure:
        return failure
    raise AssertionError


def plainly(g):
    try:
        wait_for_rank_1(g)
    except allraise.PeerFailure:
        woken.append(comm.rank)
        raise


def wrapped(g):
    try:
        wait_for_rank_1(g)
    except allraise.PeerFailure as error:
        raise RuntimeError("of the halo exchange") from error


def and_fails_as_well(g):
    try:
        wait_for_rank_1(g)
    finally:
        if comm.rank == 0:
            raise OSError("in a cleanup")


def retry():
    """Fail anew in a region that is entered where an interruption is handled."""
    try:
        with allraise.guard(comm, "first") as g:
            wait_for_rank_1(g)
    except allraise.CheckpointException:
        with allraise.guard(comm, "retry"):
            if comm.rank == 0:
                raise OSError("no space left") from None
            if comm.rank == 1:
                raise KeyError("of the retry")  # noqa: B904 that is it


def interrupted(failure):
    return {
        rank
        for ranks, record in failure.bundle.records()
        if record.kind == "interrupted"
        for rank in ranks
    }


for handle in (plainly, plainly, wrapped):
    woken = []
    failure = outcome_of(handle)
    assert failure.ranks == (1,), failure
    assert type(failure) is allraise.CheckpointError
    if comm.rank == 0:
        assert interrupted(failure) == set(OTHERS), failure.report.text()
        assert "interrupt_kinds.py" in failure.report.text("groups")
    if handle is plainly:  # at the first use of g.comm on a communicator, too
        assert woken == [comm.rank] * (comm.rank != 1)

failure = outcome_of(and_fails_as_well)
assert failure.ranks == (0, 1), failure
if comm.rank == 0:
    assert "OSError: in a cleanup" in str(failure)
    assert "PeerFailure" in str(failure)  # in the chain, as Python prints it

with pytest.raises(allraise.CheckpointException) as raised:
    retry()
assert raised.value.ranks == (0, 1)
assert comm.rank or "OSError: no space left" in str(raised.value)
print(f"rank {comm.rank} ok", flush=True)
