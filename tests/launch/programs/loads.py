"""Fail, and print what was loaded only then."""

import sys

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD
with allraise.guard(comm, "first"):
    pass
before = set(sys.modules)
outcome = allraise.collect(OSError("late") if comm.rank else None, comm, "second")
text = f"{outcome} {outcome.report}"
loaded = sorted(set(sys.modules) - before)
comm.Barrier()
print(f"rank {comm.rank} loaded {loaded}", flush=True)
