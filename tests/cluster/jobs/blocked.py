"""Rank 3 fails; the others wait in communication, for a message and in a barrier."""

import time

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD

try:
    with allraise.guard(comm, "exchange") as g:
        g.comm.barrier()
        if comm.rank == 3:
            time.sleep(0.5)
            raise RuntimeError("the solver diverged")
        if comm.rank == 0:
            g.comm.recv(source=3)
        g.comm.barrier()
except allraise.CheckpointException as exc:
    print(f"rank {comm.rank} raised for {list(exc.ranks)}", flush=True)
