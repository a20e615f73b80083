"""A rank that has come to a meeting in vain is not taken to come to a later one.

Before a communicator is made within a region, its ranks meet by messages. Where one gives
up, those it has sent stay: nobody receives them. A later meeting may have the same tag.
"""

import time

from mpi4py import MPI

import allraise
from allraise import rendezvous

WORLD = MPI.COMM_WORLD
ME, LAST = WORLD.rank, WORLD.size - 1
WAIT_S = 0.05  # the other rank is in the meeting by then

rendezvous.N_TAGS = 1
for failing in (LAST, 0, LAST):
    part = WORLD.Split(int(ME not in (0, LAST)))  # not known yet: it takes a meeting
    failed = None
    try:
        with allraise.guard(WORLD, "around"):
            if failing == ME:
                time.sleep(WAIT_S)
                raise OSError(failing)
            if ME in (0, LAST):
                with allraise.guard(part, "part"):
                    pass
    except allraise.CheckpointException as error:
        failed = error.ranks
    assert failed == (failing,), failed
    with allraise.guard(WORLD, "part again"), allraise.guard(part, "part") as g:
        assert g.comm.allreduce(1) == part.size
if ME == 0:
    print("ok", flush=True)
