"""Ranks stuck on g.comm past the time limit are woken, and the job goes on."""

import sys

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank
STUCK = {int(rank) for rank in sys.argv[1].split(",")}
SWALLOW = "swallow" in sys.argv


def block(comm, how):
    if how == "recv":
        comm.recv(source=(ME + 1) % WORLD.size, tag=9)
    else:
        comm.barrier()  # the others do not come to it


for how in ("recv", "barrier"):
    try:
        with allraise.guard(WORLD, "write", timeout=4, everywhere=True) as g:
            if ME in STUCK:
                try:
                    block(g.comm, how)
                except allraise.PeerFailure:
                    if not SWALLOW:
                        raise
    except allraise.CheckpointException as error:
        assert set(error.ranks) == STUCK, error.ranks  # noqa: PT017
        kinds = {record.kind for _, record in error.report.bundle.records()}
        assert kinds == {"hang"}, kinds
        for exc, summary in error.failures.values():
            assert isinstance(exc, allraise.HangError), repr(exc)
            assert str(exc) == "step 'write' was not at its end within 4 s"
            innermost = summary[-1] if SWALLOW else summary[1]
            assert innermost.name == ("<module>" if SWALLOW else "block")
    else:
        print("WRONG nothing was raised", flush=True)
        sys.exit(1)
    with allraise.guard(WORLD, "after", timeout=1000) as g:
        assert g.comm.allreduce(1) == WORLD.size
print(f"rank {ME} went on", flush=True)
