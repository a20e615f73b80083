"""Collective steps on a half of the ranks, while one outside of it fails around them.

That failure must not come between the parts of a step, where one rank may be in the
collective of the next part already.
"""

import random
import sys
import time

from mpi4py import MPI

import allraise

N_CYCLES = 600  # each gives up two communicators, of which MPICH has 2,000
LONGEST_S = 0.003

WORLD = MPI.COMM_WORLD
ME, FAILING = WORLD.rank, WORLD.size - 1
half = WORLD.Split(int(ME == FAILING))
waits = random.Random(int(sys.argv[1]))

with allraise.guard(WORLD), allraise.guard(half):
    pass
for i in range(N_CYCLES):
    wait = waits.random() * LONGEST_S
    ranks = None
    try:
        with allraise.guard(WORLD, "around"):
            if ME == FAILING:
                time.sleep(wait)
                raise OSError(i)
            steps = allraise.CollectiveSteps(half)
            while True:
                assert steps.broadcast("b", lambda: 1) == 1
                assert steps.all_reduce("r", lambda: 1, sum) == half.size
    except allraise.CheckpointException as error:
        ranks = error.ranks
    assert ranks == (FAILING,), ranks
if ME == 0:
    print("ok", flush=True)
