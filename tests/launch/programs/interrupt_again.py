"""A handler raises in the first guard on a communicator; its rank comes again.

The others are in the same meeting still, where that communicator is made.
"""

import signal
import time

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME, LAST = WORLD.rank, WORLD.size - 1


def handler(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, handler)
n_raised = 0
with allraise.guard(WORLD, "world") as w:
    for _ in range(3):
        new = WORLD.Dup()
        w.comm.barrier()
        if ME == LAST:
            time.sleep(0.5)
        if ME == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        while True:
            guard = allraise.guard(new, "new")
            try:
                guard.__enter__()
            except TimeoutError:
                n_raised += 1
            else:
                break
        guard.__exit__(None, None, None)
assert n_raised == (3 if ME == 0 else 0), n_raised
print(f"rank {ME} ok", flush=True)
