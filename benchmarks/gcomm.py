"""What ``g.comm`` costs above the plain communicator, and how fast it wakes.

Run by ``benchmarks/run.py`` under mpiexec; prints one line of JSON on rank 0.
Operations are timed in interleaved blocks, the slowest rank's time counts, the
least of all blocks is shown. Waking: from the moment rank 0 raises to the moment
the last of the others, blocked in a barrier, has its `PeerFailure`.
"""

import json
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI

import allraise

world = MPI.COMM_WORLD
comm = world.Dup()
blocks, loops = int(sys.argv[1]), int(sys.argv[2])
small, out = np.ones(1), np.zeros(1)
large, large_out = np.ones(1 << 20), np.zeros(1 << 20)
right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size

OPERATIONS = {
    "Barrier": lambda c: c.Barrier(),
    "Allreduce 8 B": lambda c: c.Allreduce(small, out),
    "Bcast 8 B": lambda c: c.Bcast(small),
    "allreduce(int)": lambda c: c.allreduce(1),
    "bcast(int)": lambda c: c.bcast(1),
    "Sendrecv 8 B": lambda c: c.Sendrecv(small, right, 0, out, left),
    "Allreduce 8 MB": lambda c: c.Allreduce(large, large_out),
}


def block(function, c, n):
    world.Barrier()
    began = time.perf_counter()
    for _ in range(n):
        function(c)
    took = (time.perf_counter() - began) / n * 1e6
    return world.allreduce(took, MPI.MAX)


prices = {}
with allraise.guard(comm, "prices") as g:
    for name, function in OPERATIONS.items():
        n = max(1, loops // 1000) if "MB" in name else loops
        times = {"plain": [], "g.comm": []}
        for c in (comm, g.comm):  # the first lowercase reduction duplicates
            function(c)
        for _ in range(blocks):
            times["plain"].append(block(function, comm, n))
            times["g.comm"].append(block(function, g.comm, n))
        prices[name] = {key: min(values) for key, values in times.items()}

# Clocks of one machine: MPI_Wtime is not global everywhere, this one is.
delays = []
for _ in range(20):
    woken = raised = 0.0
    try:
        with allraise.guard(comm, "wake") as g:
            if comm.rank == 0:
                time.sleep(0.02)
                raised = time.clock_gettime(time.CLOCK_MONOTONIC)
                raise ValueError
            try:
                g.comm.Barrier()
            except allraise.PeerFailure:
                woken = time.clock_gettime(time.CLOCK_MONOTONIC)
                raise
    except allraise.CheckpointException:
        pass
    last, began = world.allreduce(woken, MPI.MAX), world.bcast(raised)
    delays.append((last - began) * 1e3)
if world.rank == 0:
    print(
        json.dumps(
            {
                "ranks": world.size,
                "prices": prices,
                "wake_median_ms": statistics.median(delays),
                "wake_max_ms": max(delays),
            }
        )
    )
