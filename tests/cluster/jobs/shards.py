"""Ranks 1 and 3 fail in a guard; every rank tells what it raised.

usage: shards.py [SECONDS]   rank 3 fails so much later than rank 1
"""

import sys
import time

from mpi4py import MPI

import allraise

comm = MPI.COMM_WORLD
later_s = float(sys.argv[1]) if sys.argv[1:] else 0.0


def write_shard():
    if comm.rank == 3:
        # Not time.sleep: under libfaketime that raises OSError in Debian bookworm.
        until = time.monotonic() + later_s
        while time.monotonic() < until:
            pass
        raise ValueError("shard 3 is malformed")
    if comm.rank == 1:
        raise OSError(28, "No space left for shard 1")


try:
    with allraise.guard(comm, "write shards"):
        write_shard()
except allraise.CheckpointException as exc:
    print(f"rank {comm.rank} raised for {list(exc.ranks)}", flush=True)
    if comm.rank == 0:
        exc.report.save("report.json")
        print(exc.report.text("groups"))
