"""What one rank alone gets wrong in a collective does not leave the others in it.

Also: a signal at a gate, stale communicators, regions that fail one after the other.
"""
# ruff: noqa: SIM300 - a program, whose blocks run where they stand

import signal
import threading
import time

import numpy as np
from mpi4py import MPI
from standin import Fault, Interrupted, Regions

from allraise import broadcast, objects

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
BAD = P - 1


def add(a, b):
    if ME == 0:
        raise Fault  # in the middle of a reduction
    return a + b


CASES = {
    "unpicklable gather": (
        lambda c: c.gather(threading.Lock() if ME == BAD else 1),
        BAD,
    ),
    "unpicklable bcast": (lambda c: c.bcast(threading.Lock(), root=BAD), BAD),
    "unpicklable allreduce": (
        lambda c: c.allreduce(threading.Lock() if ME == BAD else 1),
        BAD,
    ),
    "short scatter": (lambda c: c.scatter([1]), 0),
    "short alltoall": (lambda c: c.alltoall([1] * (1 if ME == BAD else P)), BAD),
    "op raises": (lambda c: c.allreduce(1, add), 0),
    "not contiguous": (
        lambda c: c.Allreduce(np.ones(8)[:: 2 if ME == BAD else 1][:4], np.ones(4)),
        BAD,
    ),
    "no buffer": (lambda c: c.Bcast(object() if ME == BAD else np.ones(1)), BAD),
    "no dest": (lambda c: c.send(1, P + 5) if ME == BAD else c.recv(source=BAD), BAD),
}


def without_room(operation):
    """One rank has no memory for what comes, which it learns behind the first gate."""

    def no_room(n):
        if ME == BAD and n > 1000:
            raise MemoryError(f"no {n} bytes")
        return bytearray(n)

    def run(c):
        for module in (objects, broadcast):
            module.bytearray = no_room
        try:
            operation(c)
        finally:
            for module in (objects, broadcast):
                del module.bytearray

    return run


LONG = "text" * 1000
if P > 1:
    for of_long in (
        lambda c: c.bcast(LONG, root=0),
        lambda c: c.gather(LONG, root=BAD),
        lambda c: c.scatter([LONG] * P),
        lambda c: c.allgather(LONG),
        lambda c: c.alltoall([LONG] * P),
    ):
        name = of_long.__code__.co_names[0]
        CASES[f"no room in {name}"] = (without_room(of_long), BAD)

regions = Regions(WORLD)
for name, (operation, bad) in CASES.items():
    exc, n_failed = regions.run(operation)
    if ME == bad:
        if exc is None or isinstance(exc, Interrupted):
            print(f"WRONG {name} on rank {ME}: {exc!r}", flush=True)
    elif not isinstance(exc, (Interrupted, type(None))) or not n_failed:
        print(f"WRONG {name} on rank {ME}: {exc!r}", flush=True)


# A signal while a rank waits at a gate that opens later: the others are in the
# collective then, so the rank takes part before it raises.
def handler(*_):
    raise Fault("signal")


signal.signal(signal.SIGALRM, handler)


def at_gate(c):
    total = np.zeros(1)
    if ME == BAD:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    else:
        time.sleep(0.2)
    c.Allreduce(np.ones(1), total)
    assert total[0] == P
    c.Barrier()


exc, n_failed = regions.run(at_gate)
if not isinstance(exc, Fault if ME == BAD else Interrupted):
    print(f"WRONG signal on rank {ME}: {exc!r}", flush=True)

# A communicator, and a request, taken before a failure raise at once after it.
kept = []


def keep(c):
    kept.extend((c, c.Irecv(bytearray(1), ME), c.Dup()))
    raise Fault


regions.run(keep)
stale, request, dup = kept
for call in (
    stale.Barrier,
    lambda: stale.recv(source=ME),
    request.Wait,
    dup.barrier,
    lambda: stale.allreduce(1),
    lambda: stale.bsend(1, ME),
    lambda: stale.Bsend(b"1", ME),
):
    try:
        call()
    except Interrupted as error:
        if error.rank is None and "region that is over" in str(error):
            continue
        print(f"WRONG: a stale {call} blames a rank: {error!r}", flush=True)
        continue
    print(f"WRONG: a stale {call} was not refused", flush=True)

# Failed regions in a row; the lane stays where nothing but gates took place on it.
generations = []
for i in range(100):

    def block(c, i=i):
        assert c.allgather(i) == [i] * P  # gates only
        if i % P == ME:
            raise Fault
        if i % 2:
            c.Recv(np.zeros(1), i % P)  # also a message

    lane = regions.channel.lane
    exc, n_failed = regions.run(block)
    assert n_failed >= 1
    assert isinstance(exc, (Fault, Interrupted, type(None))), exc
    if not regions.channel.revokes:
        assert (lane == regions.channel.lane) == (not i % 2 or P == 1), i

# A buffered message of a region that has failed is met in no later one.
MPI.Attach_buffer(bytearray(100_000))
for name, plainly in (
    ("bsend", "send"),
    ("Bsend", "Send"),
    ("ibsend", "send"),
    ("Ibsend", "Send"),
):

    def send_and_fail(c, name=name):
        if ME == 0:
            sent = getattr(c, name)(b"old", BAD)
            if sent is not None:
                sent.Wait()
        c.Barrier()
        raise Fault  # on all ranks, so that all have entered every gate

    def meet(c, name=name, plainly=plainly):
        if ME == 0:
            getattr(c, plainly)(b"new", BAD)
        if ME == BAD:
            got = bytearray(3)
            if plainly == "send":
                got = c.recv(source=0)
            else:
                c.Recv(got, 0)
            if got != b"new":
                print(f"WRONG {name}: {got} was received", flush=True)
        c.Barrier()

    regions.run(send_and_fail)
    exc, n_failed = regions.run(meet)
    if exc is not None:
        print(f"WRONG {name}: {exc!r}", flush=True)

exc, n_failed = regions.run(lambda c: c.barrier())
assert (exc, n_failed) == (None, 0)
regions.comm.Free()
if ME == 0:
    print("ok", flush=True)
