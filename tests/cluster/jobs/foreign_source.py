"""Rank 3 fails in a module that lies on its node alone."""

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD

try:
    with allraise.guard(comm, "solve"):
        if comm.rank == 3:
            import only_here

            only_here.solve()
except allraise.CheckpointException as exc:
    if comm.rank == 0:
        print(exc)
