"""A signal's handler raises in an operation on g.comm, and the program goes on.

The rank was at the gate, so it takes part in the operation before it raises: whatever
comes next meets the same operation of the others.
"""

import signal
import sys
import threading
import time

import numpy as np
from interrupt_places import BAD, ME, OPERATIONS, WORLD, P, first_guard

import allraise

AFTER_S = 0.05
SIGNALS = [signal.SIGUSR1, signal.SIGUSR2][: int(sys.argv[1])]

# Made of messages, each waited for by itself: what a rank waits for it gives up, and
# its peers learn that if it fails.
GIVEN_UP = {"Sendrecv", "sendrecv", "Iallreduce", "allreduce"}


def handler(*_):
    raise TimeoutError("now")


def interrupt():
    """Send this rank all the signals at once."""
    for number in SIGNALS:
        signal.pthread_kill(threading.main_thread().ident, number)


def interrupted(operation):
    """Do an operation while a timer runs on one rank, and the others are late."""
    swallowed = False
    with allraise.guard(WORLD, "region") as g:
        comm = g.comm
        comm.Barrier()
        if ME == BAD:
            threading.Timer(AFTER_S, interrupt).start()
        else:
            time.sleep(3 * AFTER_S)
        try:
            operation(comm)
        except TimeoutError:
            swallowed = True
        assert comm.allgather("text" * ME) == ["text" * i for i in range(P)]
        total = np.zeros(1)
        comm.Allreduce(np.ones(1), total)
        assert total[0] == P
    return swallowed


if __name__ == "__main__":
    for number in SIGNALS:
        signal.signal(number, handler)
    for name, operation in {**OPERATIONS, "Dup": lambda c: c.Dup()}.items():
        if name in GIVEN_UP or operation is first_guard:
            continue
        if ME == 0:
            print(name, flush=True)
        swallowed = WORLD.allgather(interrupted(operation))
        assert swallowed == [rank == BAD for rank in range(P)], (name, swallowed)
    if ME == 0:
        print("ok", flush=True)
