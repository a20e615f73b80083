"""Communicators that are freed while what was done on them may still matter."""

import sys
import time
from contextlib import suppress

from mpi4py import MPI

import allraise
from allraise import reducing

WORLD = MPI.COMM_WORLD
ME = WORLD.rank


def messages():
    """What a rank has sent to a meeting that was given up reaches no user."""
    around = WORLD.Dup()
    part = WORLD.Split(int(ME == 2))
    with suppress(allraise.CheckpointException), allraise.guard(around) as g:
        assert g.comm.size == 3
        if ME:
            time.sleep((0, 1, 0.3)[ME])
            raise OSError(ME)
        with allraise.guard(part):
            pass  # its other rank never comes
    around.Free()
    for _ in range(6):  # MPICH gives numbers again
        new = WORLD.Dup()
        new.Barrier()
        time.sleep(0.1)
        status = MPI.Status()
        assert not new.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status), status.tag


def counts():
    """Who has passed the last agreement of a communicator is not taken to wait."""
    optional, last = WORLD.Dup(), WORLD.Dup()
    for comm in (WORLD, optional, last):
        allraise.agree(None, comm)
    stalls = []
    start = reducing._Reduction.start

    def start_and_stall(reduction):
        is_new, request = reduction.request is None, start(reduction)
        if is_new and stalls:  # the others go on: this rank has no core
            request.Test()
            time.sleep(stalls.pop())
        return request

    reducing._Reduction.start = start_and_stall
    with allraise.guard(WORLD) as g:
        g.comm.barrier()
        with suppress(allraise.CheckpointError), allraise.guard(optional) as within:
            within.comm.barrier()
            if ME == 1:
                raise OSError
        g.comm.barrier()
        with allraise.guard(last):
            if ME == 1:
                time.sleep(1)
                stalls.append(3)
            if ME == 2:
                time.sleep(2)
        last.Free()
        g.comm.barrier()


def cleanup():
    """A rank fails, and frees what the others wait for it on."""
    for on_lane in (False, True, False, True):
        failed = None
        try:
            with allraise.guard(WORLD):
                part = WORLD.Dup()
                try:
                    for turn in range(2):
                        if turn and ME == 1:
                            raise OSError
                        with allraise.guard(part) as g:
                            if on_lane:
                                g.comm.barrier()
                finally:
                    part.Free()
        except allraise.CheckpointError as error:
            failed = error.ranks
        assert failed == (1,), failed


{"messages": messages, "counts": counts, "cleanup": cleanup}[sys.argv[1]]()
print(f"rank {ME} ok", flush=True)
