"""Ranks fail while the others are blocked, in each kind of operation in turn.

usage: interrupt_each.py GROUP FAILING_RANK...
"""
# ruff: noqa: B008, SIM300 - a program, whose blocks run where they stand

import sys
import time
from itertools import pairwise

import numpy as np
from mpi4py import MPI
from standin import Fault, Interrupted, Regions

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
FAILING = [int(word) for word in sys.argv[2:]]
BAD = FAILING[0]
ONES = [1] * P
BIG = 1 << 21


def ints(n=1):
    return np.arange(n)


def w(n):
    return [ints(n * P), (ONES, [8 * i for i in range(P)]), [MPI.INT64_T] * P]


UPPER = {
    "Barrier": lambda c: c.Barrier(),
    "Bcast": lambda c: c.Bcast(ints(8)),
    "Reduce": lambda c: c.Reduce(ints(), ints()),
    "Allreduce": lambda c: c.Allreduce(ints(), ints()),
    "Allreduce big": lambda c: c.Allreduce(ints(BIG // 8), ints(BIG // 8)),
    "Scan": lambda c: c.Scan(ints(), ints()),
    "Exscan": lambda c: c.Exscan(ints(), ints()),
    "Gather": lambda c: c.Gather(ints(), ints(P)),
    "Gatherv": lambda c: c.Gatherv(ints(), [ints(P), ONES]),
    "Scatter": lambda c: c.Scatter(ints(P), ints()),
    "Scatterv": lambda c: c.Scatterv([ints(P), ONES], ints()),
    "Allgather": lambda c: c.Allgather(ints(), ints(P)),
    "Allgatherv": lambda c: c.Allgatherv(ints(), [ints(P), ONES]),
    "Alltoall": lambda c: c.Alltoall(ints(P), ints(P)),
    "Alltoallv": lambda c: c.Alltoallv([ints(P), ONES], [ints(P), ONES]),
    "Alltoallw": lambda c: c.Alltoallw(w(1), w(1)),
    "Reduce_scatter": lambda c: c.Reduce_scatter(ints(P), ints()),
    "Reduce_scatter_block": lambda c: c.Reduce_scatter_block(ints(P), ints()),
}
LOWER = {
    "barrier": lambda c: c.barrier(),
    "bcast": lambda c: c.bcast("x"),
    "gather": lambda c: c.gather("x"),
    "scatter": lambda c: c.scatter(ONES),
    "allgather": lambda c: c.allgather("x"),
    "alltoall": lambda c: c.alltoall(ONES),
    # The first of these makes the hidden communicator, behind a gate.
    "allreduce": lambda c: c.allreduce(1),
    "allreduce 2": lambda c: (c.allreduce(1) and None, c.allreduce(1)),
    "scan": lambda c: everyone(c.scan, 1),
    "exscan": lambda c: everyone(c.exscan, 1),
    "reduce": lambda c: everyone(c.reduce, 1),
}


def everyone(operation, value):
    # Ranks that need nothing of the failing one may leave it: that is right.
    operation(value)
    operation(value)
    time.sleep(0.05)
    raise Interrupted(BAD, "was not blocked")


def halo(c):
    n = 100_000
    near = [(c.rank - 1) % P, BAD]
    out, into = np.ones(n), [np.zeros(n) for _ in near]
    requests = [c.Irecv(into[i], rank) for i, rank in enumerate(near)]
    requests += [c.Isend(out, rank) for rank in near]
    c.Waitall(requests)


def spin(look):
    while not look():
        pass


P2P = {
    "Recv": lambda c: c.Recv(ints(), BAD),
    "Recv any": lambda c: c.Recv(ints()),
    "recv": lambda c: c.recv(source=BAD),
    "recv any": lambda c: c.recv(),
    "Send": lambda c: c.Send(ints(BIG), BAD),
    "send": lambda c: c.send(bytes(8 * BIG), BAD),
    "Ssend": lambda c: c.Ssend(ints(), BAD),
    "ssend": lambda c: c.ssend("x", BAD),
    "Sendrecv": lambda c: c.Sendrecv(ints(), BAD, 0, ints(), BAD),
    "Sendrecv_replace": lambda c: c.Sendrecv_replace(ints(), BAD, 0, BAD),
    "sendrecv": lambda c: c.sendrecv("x", BAD, source=BAD),
    "Probe": lambda c: c.Probe(BAD),
    "probe": lambda c: c.probe(BAD),
    "Mprobe": lambda c: c.Mprobe(BAD),
    "mprobe": lambda c: c.mprobe(BAD),
    "Iprobe loop": lambda c: spin(lambda: c.Iprobe(BAD)),
    "improbe loop": lambda c: spin(lambda: c.improbe(BAD)),
}
REQUESTS = {
    "Irecv Wait": lambda c: c.Irecv(ints(), BAD).Wait(),
    "irecv wait": lambda c: c.irecv(source=BAD).wait(),
    "Isend Wait": lambda c: c.Isend(ints(BIG), BAD).Wait(),
    "issend wait": lambda c: c.issend("x", BAD).wait(),
    "Test loop": lambda c: spin(c.Irecv(ints(), BAD).Test),
    "test loop": lambda c: spin(lambda r=c.irecv(source=BAD): r.test()[0]),
    "Ibarrier": lambda c: c.Ibarrier().Wait(),
    "Iallreduce": lambda c: c.Iallreduce(ints(), ints()).Wait(),
    "Recv_init": lambda c: started(c.Recv_init(ints(), BAD)).Wait(),
    "Waitany": lambda c: c.Waitany([c.Irecv(ints(), BAD)]),
    "waitany": lambda c: c.waitany([c.irecv(source=BAD)]),
    "Waitsome": lambda c: c.Waitsome([c.Irecv(ints(), BAD)]),
    "waitall": lambda c: c.waitall([c.irecv(source=BAD), c.isend("x", c.rank)]),
    "halo": halo,
}


def started(request):
    request.Start()
    return request


def derived_p2p(c):
    half = c.Split(c.rank % 2, -c.rank)
    half.Barrier()
    if c.rank in FAILING:
        raise Fault
    if BAD % 2 == c.rank % 2:
        half.Barrier()  # the failing rank is in this half
    else:
        c.Recv(ints(), BAD)


def derived_cart(c):
    ring = c.Create_cart([P], [True])
    ring.neighbor_allgather(ring.rank)
    if c.rank in FAILING:
        raise Fault
    ring.neighbor_alltoall([1, 2])


def derived_chain(c):
    # Rank by rank: each waits for the next in a pair, the last for the failing one.
    order = [r for r in range(P) if r not in FAILING] + [BAD]
    pairs = [
        c.Split(0 if c.rank in pair else MPI.UNDEFINED) for pair in pairwise(order)
    ]
    if c.rank in FAILING:
        raise Fault
    for pair in reversed([pair for pair in pairs if pair]):
        pair.barrier()
        pair.Allreduce(ints(), ints())


DERIVED = {
    "Dup": lambda c: c.Dup(),
    "Split": lambda c: c.Split(0),
    "Create_cart": lambda c: c.Create_cart([P]),
    "half": derived_p2p,
    "cart": derived_cart,
    "chain": derived_chain,
}
GROUPS = {
    "upper": UPPER,
    "lower": LOWER,
    "p2p": P2P,
    "requests": REQUESTS,
    "derived": DERIVED,
}
LATE = {"half", "cart", "chain"}  # fail inside

regions = Regions(WORLD)
for name, operation in GROUPS[sys.argv[1]].items():

    def block(c, name=name, operation=operation):
        c.Barrier()
        if ME in FAILING and name not in LATE:
            time.sleep(0.02)  # let the others block: the point of the test
            raise Fault(name)
        operation(c)
        if regions.channel.revokes:
            # A root has nothing to wait for, and a revoked Ssend may return.
            c.Barrier()

    began = time.perf_counter()
    exc, n_failed = regions.run(block)
    took = time.perf_counter() - began
    right = Fault if ME in FAILING else Interrupted
    if type(exc) is not right:
        print(f"WRONG {name} on rank {ME}: {exc!r}", flush=True)
    elif right is Interrupted and exc.rank not in (*FAILING, None):
        print(f"WRONG {name} on rank {ME}: blames {exc!r}", flush=True)
    slowest = WORLD.allreduce(took, MPI.MAX)
    if ME == 0:
        print(f"ok {name} {1e3 * slowest:.0f} ms", flush=True)
    total = WORLD.allreduce(1)
    assert total == P
