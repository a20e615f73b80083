"""Ranks free a communicator within a guard on it, as a cleanup may do."""

import sys
from contextlib import nullcontext

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank
who, what = sys.argv[1:3]
N_TIMES = int(sys.argv[3])


def end(comm, g):
    """Free it on the rank named, or on all, and fail there or not."""
    try:
        if what == "fails" and ME == 1:
            raise OSError("full")
        if what == "is woken":
            if ME == 1:
                raise OSError("full")
            g.comm.barrier()
    finally:
        if who == "all" or ME == 1:
            comm.Free()


for around in (nullcontext, lambda: allraise.guard(WORLD)):
    for _ in range(N_TIMES):
        comm = WORLD.Dup()
        failed = ()
        try:
            with around(), allraise.guard(comm, "outer") as g, allraise.guard(comm):
                end(comm, g)
        except allraise.CheckpointException as error:
            failed = error.ranks
        assert failed == (() if what == "goes well" else (1,)), failed
        if comm != MPI.COMM_NULL:
            comm.Free()
print(f"rank {ME} ok", flush=True)
