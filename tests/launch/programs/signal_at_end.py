"""A timer's signal comes in C code, and a guard's block ends right behind.

Run with "well" or "fails"; on rank 1 the handler raises.
"""

import signal
import sys

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD
N_BYTES = 100_000_000  # to compare them takes longer than the timer


def handler(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, handler)
this, other = bytes(N_BYTES), bytes(N_BYTES)
with allraise.guard(comm, "compare"):  # from the second time on, it is plain
    pass
told = "nothing"
try:
    with allraise.guard(comm, "compare"):
        if comm.rank == 1:
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
        elif comm.rank == 0 and sys.argv[1] == "fails":
            raise ValueError
        this == other  # noqa: B015 the last thing is done by C code
except BaseException as error:
    told = f"{type(error).__name__} of {type(error.__context__).__name__}"
comm.Barrier()  # all have left the block
print(f"rank {comm.rank}: {told}", flush=True)
