"""Two halves of the ranks, whose deadlines pass one soon after the other.

Rank 1 has failed, and its half alone knows; the other half waits for it in a guard on
all ranks, and is the first whose time is over.
"""

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
half = WORLD.Split(WORLD.rank % 2)
for comm in (WORLD, half):
    allraise.agree(None, comm, "ready")
LATER_S = 1.0  # than the others; more than a report takes, less than they are given

with allraise.guard(half, "half", timeout=3 + LATER_S * (WORLD.rank % 2)):
    if WORLD.rank == 1:
        raise ValueError("broken on rank 1")
    with allraise.guard(WORLD, "all"):
        pass
