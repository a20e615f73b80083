"""A rank that dies, while the others are where the second argument says.

The first says how it dies, the third which rank.
"""

import ctypes
import os
import signal
import sys
import time

from mpi4py import MPI

import allraise
from allraise.spool import current

HOW, WHERE, VICTIM = sys.argv[1], sys.argv[2], int(sys.argv[3])
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size


def die():
    if rank != VICTIM:
        return
    if HOW == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif HOW == "sigsegv":
        ctypes.string_at(0)
    elif HOW == "abort":
        ctypes.CDLL(None).abort()
    elif HOW == "exit":
        os._exit(0)


def die_when_all_are_here():
    """Nobody is to notice it further out."""
    if rank != VICTIM:
        comm.send(None, VICTIM)
        return
    for _ in range(size - 1):
        comm.recv()
    die()


def agreement():
    with allraise.guard(comm, "write"):
        die()


def barrier():
    with allraise.guard(comm, "write") as g:
        die()
        g.comm.Barrier()


def recv():
    """From a rank that lives, most wait."""
    with allraise.guard(comm, "write") as g:
        die()
        g.comm.recv(source=(rank + 1) % size)


def raw():
    with allraise.guard(comm, "write"):
        die()
        comm.recv(source=(rank + 1) % size)


def nested():
    with allraise.guard(comm, "write"):
        die()
        with allraise.guard(comm, "inner") as g:
            g.comm.Barrier()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def split():
    """The last rank fails after the death, in a guard on a half of the ranks."""
    half = comm.Split(rank % 2)
    victim_pid = comm.bcast(os.getpid(), VICTIM)
    with allraise.guard(comm, "write"), allraise.guard(half, "half") as g:
        die_when_all_are_here()
        if rank == size - 1:
            while is_alive(victim_pid):
                time.sleep(0.01)
            raise OSError("disk full")
        g.comm.Barrier()


def failure():
    """The last rank has failed before the death, and waits for the agreement."""
    with allraise.guard(comm, "write"):
        if rank == size - 1:
            raise OSError("disk full")
        if rank == VICTIM:
            left = current().folder / f"rank-{size - 1}.json"
            while not left.exists():
                time.sleep(0.01)
        die()


def late():
    """One survivor computes meanwhile."""
    with allraise.guard(comm, "write"):
        die()
        if rank == size - 1:
            time.sleep(100)


def first():
    fresh = comm.Dup()
    die()
    with allraise.guard(fresh, "write"):
        pass


def last():
    """When nothing is left that could fail; the others are told at exit."""
    die()
    time.sleep(1)


with allraise.guard(comm, "before"):
    pass
print(f"rank {rank} begins", flush=True)
# Nobody dies before all have said so, and have left the guard above.
if rank == VICTIM:
    for _ in range(size - 1):
        comm.recv()
else:
    comm.send(None, VICTIM)
globals()[WHERE]()
print(f"rank {rank} goes on", flush=True)
