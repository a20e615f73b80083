"""One rank gives a collective what mpi4py or MPI refuses, the others what is right.

usage: interrupt_arguments.py [CASE...]
"""

import sys

import numpy as np
from mpi4py import MPI
from standin import Interrupted, Regions

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
BAD = P - 1


def a(n=2):
    return np.zeros(n)


def ro():
    array = np.zeros(2)
    array.flags.writeable = False
    return array


STRIDED = np.zeros((2, 2))[:, 0]
ONES = [1] * P
OBJECTS = np.array([1, None], dtype=object)
FIRST = MPI.COMM_WORLD.group.Incl([0])
KINDS = [MPI.DOUBLE] * P


def spec(n=1, kinds=None):
    return [a(n * P), ONES, [0] * P, kinds or KINDS]


# The name, what is wrong, and what is right.
CASES = {
    "buffer by keyword": (
        lambda c: c.Allreduce(sendbuf=STRIDED, recvbuf=a()),
        lambda c: c.Allreduce(sendbuf=a(), recvbuf=a()),
    ),
    "no buffer by keyword": (
        lambda c: c.Bcast(buf=None, root=0),
        lambda c: c.Bcast(buf=a(), root=0),
    ),
    "no datatype": (
        lambda c: c.Allreduce(OBJECTS, a()),
        lambda c: c.Allreduce(a(), a()),
    ),
    "no datatype of that name": (
        lambda c: c.Allreduce([a(), "nosuch"], a()),
        lambda c: c.Allreduce(a(), a()),
    ),
    "null datatype": (
        lambda c: c.Allreduce([a(), MPI.DATATYPE_NULL], a()),
        lambda c: c.Allreduce(a(), a()),
    ),
    "read-only": (
        lambda c: c.Allreduce(a(), ro()),
        lambda c: c.Allreduce(a(), a()),
    ),
    "read-only bcast": (lambda c: c.Bcast(b"abcd"), lambda c: c.Bcast(bytearray(4))),
    "mismatch": (
        lambda c: c.Allreduce(a(), a(3)),
        lambda c: c.Allreduce(a(), a()),
    ),
    "indivisible": (
        lambda c: c.Allgather(a(), a(2 * P + 1)),
        lambda c: c.Allgather(a(), a(2 * P)),
    ),
    "indivisible alltoall": (
        lambda c: c.Alltoall(a(P + 1), a(P)),
        lambda c: c.Alltoall(a(P), a(P)),
    ),
    "op": (
        lambda c: c.Allreduce(a(), a(), op="sum"),
        lambda c: c.Allreduce(a(), a(), op=MPI.SUM),
    ),
    "null op": (
        lambda c: c.Scan(a(), a(), MPI.OP_NULL),
        lambda c: c.Scan(a(), a(), MPI.SUM),
    ),
    "argument missing": (
        lambda c: c.Allreduce(a()),
        lambda c: c.Allreduce(a(), a()),
    ),
    "argument unknown": (
        lambda c: c.Allreduce(a(), a(), comm=1),
        lambda c: c.Allreduce(a(), a()),
    ),
    "root too large": (lambda c: c.Bcast(a(), root=99), lambda c: c.Bcast(a())),
    "root text": (lambda c: c.Bcast(a(), root="0"), lambda c: c.Bcast(a())),
    "root of objects": (lambda c: c.gather(1, root="0"), lambda c: c.gather(1)),
    "root of bcast": (lambda c: c.bcast(1, root=99), lambda c: c.bcast(1)),
    "root of reduce": (
        lambda c: (c.reduce(1, root="0"), c.barrier()),
        lambda c: (c.reduce(1), c.barrier()),
    ),
    "root of scatter": (
        lambda c: c.scatter(None, root=-1),
        lambda c: c.scatter([1] * P if c.rank == 0 else None),
    ),
    "spec of Scatterv": (
        lambda c: c.Scatterv(None, [a(1), "nosuch"], root=0),
        lambda c: c.Scatterv([a(P), ONES] if c.rank == 0 else None, a(1)),
    ),
    "counts of Allgatherv": (
        lambda c: c.Allgatherv(a(1), [a(P), [1] * (P + 1)]),
        lambda c: c.Allgatherv(a(1), [a(P), ONES]),
    ),
    "counts of text": (
        lambda c: c.Allgatherv(a(1), [a(P), ["1"] * P]),
        lambda c: c.Allgatherv(a(1), [a(P), ONES]),
    ),
    "negative counts": (
        lambda c: c.Alltoallv([a(P), [-1] * P], [a(P), ONES]),
        lambda c: c.Alltoallv([a(P), ONES], [a(P), ONES]),
    ),
    "datatypes of Alltoallw": (
        lambda c: c.Alltoallw(spec(), spec(kinds=[None] * P)),
        lambda c: c.Alltoallw(spec(), spec()),
    ),
    "counts of Reduce_scatter": (
        lambda c: c.Reduce_scatter(a(P), a(1), ONES[1:]),
        lambda c: c.Reduce_scatter(a(P), a(1), ONES),
    ),
    "neighbours": (
        lambda c: c.Create_cart([P], [True]).Neighbor_alltoall(a(3), a(2)),
        lambda c: c.Create_cart([P], [True]).Neighbor_alltoall(a(2), a(2)),
    ),
    "persistent": (
        lambda c: c.Allreduce_init(a(), "no buffer"),
        lambda c: c.Allreduce_init(a(), a()).Free(),
    ),
    "persistent hints": (
        lambda c: c.Bcast_init(a(), 0, "no hints"),
        lambda c: c.Bcast_init(a(), 0, MPI.INFO_NULL).Free(),
    ),
    "Split": (lambda c: c.Split(None), lambda c: c.Split(0)),
    "Split negative": (lambda c: c.Split(-5), lambda c: c.Split(0)),
    "Split key": (lambda c: c.Split(0, "0"), lambda c: c.Split(0)),
    "Split_type": (
        lambda c: c.Split_type("shared"),
        lambda c: c.Split_type(MPI.COMM_TYPE_SHARED),
    ),
    "Create": (lambda c: c.Create(None), lambda c: c.Create(c.Get_group())),
    "Create null": (
        lambda c: c.Create(MPI.GROUP_NULL),
        lambda c: c.Create(c.Get_group()),
    ),
    "Create of others": (
        lambda c: c.Split(c.rank == BAD).Create(FIRST) and c.Barrier(),
        lambda c: c.Split(c.rank == BAD).Dup() and c.Barrier(),
    ),
    "Create_cart": (lambda c: c.Create_cart(None), lambda c: c.Create_cart([P])),
    "Create_cart size": (
        lambda c: c.Create_cart([P + 1]),
        lambda c: c.Create_cart([P]),
    ),
    "Create_cart periods": (
        lambda c: c.Create_cart([P], [True] * 2),
        lambda c: c.Create_cart([P]),
    ),
    "Sub": (
        lambda c: c.Create_cart([P]).Sub([True] * 2),
        lambda c: c.Create_cart([P]).Sub([True]),
    ),
    "Create_graph": (
        lambda c: c.Create_graph([1], [99]),
        lambda c: c.Create_graph([1], [0]),
    ),
    "Create_dist_graph": (
        lambda c: c.Create_dist_graph([c.rank], [2], [0]),
        lambda c: c.Create_dist_graph([c.rank], [1], [0]),
    ),
    "Create_dist_graph_adjacent": (
        lambda c: c.Create_dist_graph_adjacent([c.rank], [99]),
        lambda c: c.Create_dist_graph_adjacent([c.rank], [c.rank]),
    ),
    "Dup": (lambda c: c.Dup("no hints"), lambda c: c.Dup()),
    "Dup with too much": (lambda c: c.Dup(None, 1), lambda c: c.Dup()),
}

regions = Regions(WORLD)
for name in sys.argv[1:] or CASES:
    wrong, right = CASES[name]

    def block(c, wrong=wrong, right=right):
        right(c)  # what is right is known, then
        (wrong if ME == BAD else right)(c)

    try:
        exc, n_failed = regions.run(block)
    except NotImplementedError:  # by an MPI without persistent collectives
        continue
    if ME == BAD:
        if not isinstance(exc, (TypeError, ValueError, LookupError, BufferError)):
            print(f"WRONG {name} on rank {ME}: {exc!r}", flush=True)
    elif not isinstance(exc, (Interrupted, type(None))) or not n_failed:
        print(f"WRONG {name} on rank {ME}: {exc!r}", flush=True)
if ME == 0:
    print("ok", flush=True)
