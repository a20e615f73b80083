"""Who waits in a region that reaches outside of a failed one passes its failure on.

Where news goes from rank to rank. The last rank but one waits for rank 0, which fails, and
is no neighbour of it; all others of the region are in one on other ranks.
"""

import time

from mpi4py import MPI

import allraise
from allraise import channel

channel.DIRECT_LIMIT = 2  # a dozen ranks as if they were many
WORLD = MPI.COMM_WORLD
ME, LAST = WORLD.rank, WORLD.size - 1
FAILING, WAITING = 0, 5
inner = WORLD.Split(int(ME == LAST))
wider = WORLD.Split(int(ME == FAILING))
for comm in (WORLD, inner, wider):
    allraise.agree(None, comm)
failed = None
try:
    with allraise.guard(WORLD, "around") as w:
        assert w.comm.size == WORLD.size
        with allraise.guard(inner, "inner") as g:
            g.comm.barrier()
            if ME == FAILING:
                time.sleep(1)  # the others are where they wait
                raise OSError
            if ME == WAITING:
                g.comm.recv(source=FAILING)
            with allraise.guard(wider, "wider"):
                pass
except allraise.CheckpointException as error:
    failed = error.ranks
assert failed == (FAILING,), failed
print(f"rank {ME} ok", flush=True)
