"""Guards in a handler that runs as the process ends, after listening was stopped.

usage: interrupt_exit.py CASE
"""

import atexit
import os
import sys
import time

import numpy as np
from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
BAD = P - 1


def failing(g):
    if ME == BAD:
        raise ValueError("at exit")


def waking(g):
    g.comm.Barrier()
    if ME == BAD:
        time.sleep(0.1)
        raise ValueError("at exit")
    g.comm.recv(source=BAD)


def exchanging(g):
    g.comm.Barrier()
    g.comm.sendrecv(ME, (ME + 1) % P, source=(ME - 1) % P)
    assert g.comm.allreduce(1) == P


def idle(g):
    pass


CASES = {
    "fails": (failing,),
    "wakes": (waking,),
    "exchanges": (exchanging,),
    "nothing": (idle,),
    "all": (idle, exchanging, failing, waking, exchanging, failing, idle),
}


def at_exit():
    for block in CASES[sys.argv[1]]:
        error = None
        try:
            with allraise.guard(WORLD, block.__name__) as g:
                block(g)
        except allraise.CheckpointError as caught:
            error = caught
        should_fail = block in {failing, waking}
        if should_fail != (error is not None and BAD in error.failures):
            print(f"WRONG {block.__name__} on rank {ME}: {error!r}", flush=True)
    os.write(1, b"handled on rank %d\n" % ME)  # whole lines, whoever else writes


atexit.register(at_exit)  # before the first guard, so that it comes after all others
with allraise.guard(WORLD, "first") as g:
    total = np.zeros(1)
    g.comm.Allreduce(np.ones(1), total)
    assert total[0] == P
