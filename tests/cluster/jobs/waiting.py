"""Every rank is inside a guard; ranks 2 and 3 never come to its end.

usage: waiting.py [TIMEOUT]
"""

import sys
import time

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD
timeout = float(sys.argv[1]) if sys.argv[1:] else None

try:
    comm.barrier()
    with allraise.guard(comm, "publish", timeout=timeout):
        print("inside", flush=True)
        if comm.rank >= 2:
            time.sleep(3600)
except BaseException as exc:
    print(f"rank {comm.rank} raised {type(exc).__name__}", flush=True)
    if comm.rank == 0:
        print(exc, flush=True)
    raise
print(f"rank {comm.rank} went on", flush=True)
