"""A program that knows nothing of allraise: rank 3 fails, the others wait for it."""

import time

from mpi4py import MPI

comm = MPI.COMM_WORLD

if comm.rank == 3:
    time.sleep(0.5)
    raise RuntimeError("the solver diverged")
comm.barrier()
