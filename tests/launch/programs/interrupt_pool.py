"""Guards in a pool of threads: which thread does what differs between the ranks.

Each communicator is used by one thread at a time, in one order on all ranks.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank


def work(comm, *, fails=False, lingers_s=0.0):
    with allraise.guard(comm):
        if fails:
            raise OSError
    time.sleep(lingers_s)


def other_workers(fails):
    """On rank 0 the first worker is busy still, so the second job gets another one."""
    first, second = WORLD.Dup(), WORLD.Dup()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(work, first, lingers_s=0 if ME else 1)
        if ME:
            one.result()
        time.sleep(0.5)
        failed = fails and ME == 1
        with suppress(allraise.CheckpointError):
            pool.submit(work, second, fails=failed).result()
        one.result()
        for comm in (first, second):
            with allraise.guard(comm, "again"):
                pass


def in_the_background():
    """A step fails while one rank has begun to save, and the others have not."""
    saved = WORLD.Dup()
    for comm in (WORLD, saved):
        allraise.agree(None, comm)  # in this thread, at first

    def save(waits_s):
        time.sleep(waits_s)
        with allraise.guard(saved, "save"):
            time.sleep(0.5)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(save, 1 if ME else 0)
        time.sleep(0.3)
        failed = None
        try:
            with allraise.guard(WORLD, "step") as g:
                g.comm.barrier()
                if ME == 1:
                    raise OSError
                g.comm.barrier()
        except allraise.CheckpointError as error:
            failed = error.ranks
        assert failed == (1,), failed
        job.result()
    allraise.agree(None, saved)


def used_elsewhere_before():
    """Rank 1 fails before it comes to what it was in last in another thread."""
    within = WORLD.Dup()
    with allraise.guard(WORLD):
        barrier(within)
    with ThreadPoolExecutor(1) as pool:
        if ME == 1:
            pool.submit(barrier, within).result()
        else:
            barrier(within)
    failed = None
    try:
        with allraise.guard(WORLD):
            if ME == 1:
                time.sleep(0.5)  # the others wait by then
                raise OSError
            barrier(within)
    except allraise.CheckpointError as error:
        failed = error.ranks
    assert failed == (1,), failed
    barrier(within)


def barrier(comm):
    with allraise.guard(comm) as g:
        g.comm.barrier()


if sys.argv[1] == "background":
    in_the_background()
elif sys.argv[1] == "within":
    used_elsewhere_before()
else:
    other_workers(sys.argv[1] == "fails")
print(f"rank {ME} ok", flush=True)
