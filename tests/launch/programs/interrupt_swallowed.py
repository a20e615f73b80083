"""A signal's handler raises in an operation on g.comm, and the program goes on.

The rank was at the gate, so it takes part in the operation before it raises: whatever
comes next meets the same operation of the others.
"""

import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from interrupt_places import BAD, ME, OPERATIONS, WORLD, P, first_guard

import allraise

PAUSE_S = 0.01
SIGNALS = [signal.SIGUSR1, signal.SIGUSR2][: int(sys.argv[1])]

# Made of messages, each waited for by itself: what a rank waits for it gives up, and
# its peers learn that if it fails.
GIVEN_UP = {"Sendrecv", "sendrecv", "Iallreduce", "allreduce of objects"}


def handler(*_):
    raise TimeoutError("now")


def is_at_a_gate():
    """Tell whether the main thread has begun one, so that the others count on it."""
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code.co_name != "pass_gate":
        frame = frame.f_back
    return frame is not None and bool(frame.f_locals.get("watched"))


def interrupt(done):
    """Send this rank all the signals at once, when it is at a gate."""
    while not is_at_a_gate():
        time.sleep(PAUSE_S)
    for number in SIGNALS:
        signal.pthread_kill(threading.main_thread().ident, number)
    time.sleep(PAUSE_S)
    done.touch()


def interrupted(operation):
    """Do an operation while signals come on one rank, and the others are late."""
    swallowed = False
    with allraise.guard(WORLD, "region") as g:
        comm = g.comm
        comm.Barrier()
        done = Path(WORLD.bcast(tempfile.mkdtemp() if ME == BAD else None, BAD), "done")
        if ME == BAD:
            threading.Thread(target=interrupt, args=(done,)).start()
        while ME != BAD and not done.exists():
            time.sleep(PAUSE_S)
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
