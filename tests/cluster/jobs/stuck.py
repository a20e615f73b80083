"""Ranks 0 to 2 wait in a barrier for rank 3, which never comes.

usage: stuck.py [killed]   rank 3 is killed
"""

import os
import signal
import sys
import time

from mpi4py import MPI

comm = MPI.COMM_WORLD

comm.barrier()
print("waiting", flush=True)
if comm.rank == 3:
    if sys.argv[1:] == ["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)
comm.barrier()
