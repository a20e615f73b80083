"""Where nothing fails, g.comm gives what mpi4py's communicator gives."""
# ruff: noqa: B023, PLW0603 - a program, whose blocks run where they stand

import enum
import math
import operator

import numpy as np
from mpi4py import MPI
from standin import Regions

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
NEXT, LAST = (ME + 1) % P, (ME - 1) % P
ONES = [1] * P
rng = np.random.default_rng(ME)
DATA = [1, "x" * ME, {"rank": ME}, b"y" * 600 * ME, rng.random(40_000 * (ME % 2))]


class Level(enum.IntEnum):
    """A whole number that is more than that."""

    LOW, HIGH = 0, 1


def out(n):
    return np.full(n, -1)


MINE = np.arange(P) + 10 * ME
ONE = MINE[:1].copy()
MATRIX = np.arange(6.0).reshape(2, 3) + 10 * ME
CASES = {
    "Bcast": lambda c: [c.Bcast(b := MINE.copy(), P - 1), b][1],
    "Gather": lambda c: [c.Gather(ONE, b := out(P), P - 1), b][1],
    "Gatherv": lambda c: [c.Gatherv(ONE, [b := out(P), ONES], 0), b][1],
    "Scatter": lambda c: [c.Scatter(MINE, b := out(1), P - 1), b][1],
    "Scatterv": lambda c: [c.Scatterv([MINE, ONES], b := out(1)), b][1],
    "Allgather": lambda c: [c.Allgather(ONE, b := out(P)), b][1],
    "Allgatherv": lambda c: [c.Allgatherv(ONE, [b := out(P), ONES]), b][1],
    "Alltoall": lambda c: [c.Alltoall(MINE, b := out(P)), b][1],
    "Alltoallv": lambda c: [c.Alltoallv([MINE, ONES], [b := out(P), ONES]), b][1],
    "Reduce": lambda c: [c.Reduce(MINE, b := out(P), MPI.MAX, P - 1), b][1],
    "Allreduce": lambda c: [c.Allreduce(MINE, b := out(P)), b][1],
    "Allreduce in place": lambda c: [c.Allreduce(MPI.IN_PLACE, b := MINE.copy()), b][1],
    "Reduce_scatter": lambda c: [c.Reduce_scatter(MINE, b := out(1), ONES), b][1],
    "Reduce_scatter_block": lambda c: [c.Reduce_scatter_block(MINE, b := out(1)), b][1],
    "Scan": lambda c: [c.Scan(MINE, b := out(P)), b][1],
    "Exscan": lambda c: (
        [c.Exscan(MINE, b := out(P)), b][1] if ME else c.Exscan(MINE, out(P))
    ),
    "Sendrecv": lambda c: [c.Sendrecv(MINE, NEXT, 3, b := out(P), LAST, 3), b][1],
    "Sendrecv_replace": lambda c: [
        c.Sendrecv_replace(b := MINE.copy(), NEXT, 3, LAST, 3),
        b,
    ][1],
    "Sendrecv_replace spec": lambda c: [
        c.Sendrecv_replace([b := MINE.copy(), 1, MPI.INT64_T], NEXT, 3, LAST, 3),
        b,
    ][1],
    "Sendrecv_replace Fortran": lambda c: [
        c.Sendrecv_replace(b := np.asfortranarray(MATRIX), NEXT, 3, LAST, 3),
        b,
    ][1],
    "Sendrecv_replace Fortran spec": lambda c: [
        c.Sendrecv_replace([b := np.asfortranarray(MATRIX), "d"], NEXT, 3, LAST, 3),
        b,
    ][1],
    "Allreduce Fortran": lambda c: [
        c.Allreduce(np.asfortranarray(MATRIX), b := np.zeros((3, 2), order="F")),
        b,
    ][1],
    "Sendrecv Fortran": lambda c: [
        c.Sendrecv(np.asfortranarray(MATRIX), NEXT, 3, b := np.zeros((2, 3)), LAST, 3),
        b,
    ][1],
    "PROC_NULL": lambda c: (c.recv(source=MPI.PROC_NULL), c.send(1, MPI.PROC_NULL)),
    "reduce": lambda c: c.reduce([ME], root=P - 1),
    "reduce op": lambda c: c.reduce(str(ME), operator.add),
    "allreduce": lambda c: c.allreduce(ME, op=MPI.MAX),
    "allreduce order": lambda c: c.allreduce(str(ME), operator.add),
    "allreduce keyword": lambda c: c.allreduce(sendobj=ME),
    "allreduce big": lambda c: c.allreduce(b"x" * 9000),
    "allreduce large": lambda c: c.allreduce(1 << 60 + ME % 4),
    "allreduce kinds": lambda c: c.allreduce(ME if ME % 2 else 0.5),
    "allreduce function": lambda c: c.allreduce(ME + 1, lambda a, b: 10 * a + b),
    "allreduce two ops": lambda c: c.allreduce(ME, MPI.SUM if ME % 2 else MPI.MAX),
    "allreduce some": lambda c: c.allreduce(ME, max if ME == P - 1 else MPI.SUM),
    "allreduce numpy": lambda c: c.allreduce(np.float64(ME)),
    "allreduce enum": lambda c: c.allreduce(Level(ME % 2), MPI.MAX),
    "allreduce nan": lambda c: c.allreduce(math.nan if ME == 1 else -0.0),
    "allreduce minus": lambda c: c.allreduce(-ME - 1, MPI.MIN),
    "scan": lambda c: c.scan(str(ME)),
    "exscan": lambda c: c.exscan(str(ME)),
    "MINLOC": lambda c: c.allreduce((-ME, ME), MPI.MINLOC),
}
CASES |= {
    "scatter array": lambda c: c.scatter(MINE),
    "scatter None": lambda c: c.scatter(None),
    "scatter iterator": lambda c: c.scatter(iter(MINE)),
    "alltoall None": lambda c: c.alltoall(None),
    "alltoall array": lambda c: c.alltoall(MINE),
}
for op in ("SUM", "PROD", "MAX", "MIN", "LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR"):
    CASES |= {
        f"allreduce {op} int": lambda c, op=op: c.allreduce(ME + 3, getattr(MPI, op)),
        f"allreduce {op} bool": lambda c, op=op: c.allreduce(ME > 0, getattr(MPI, op)),
    }
    if op[0] != "B":  # the bits of a float are none of Python's
        number = 0.1 * (ME + 1) ** 3  # the order of the sum tells in the last bit
        CASES[f"allreduce {op} float"] = lambda c, op=op, number=number: c.allreduce(
            number, getattr(MPI, op)
        )
for i, obj in enumerate(DATA):
    CASES |= {
        f"bcast {i}": lambda c, o=obj: c.bcast(o, root=P - 1),
        f"bcast obj= {i}": lambda c, o=obj: c.bcast(obj=o),
        f"gather {i}": lambda c, o=obj: c.gather(o, P - 1),
        f"scatter {i}": lambda c, o=obj: c.scatter([o] * P if ME == 0 else None),
        f"allgather {i}": lambda c, o=obj: c.allgather(o),
        f"alltoall {i}": lambda c, o=obj: c.alltoall([(o, r) for r in range(P)]),
        f"sendrecv {i}": lambda c, o=obj: c.sendrecv(o, NEXT, source=LAST),
    }


def probed(c):
    request = c.isend(["obj", ME], NEXT, 9)
    status = MPI.Status()
    c.probe(LAST, 9, status)
    message = c.mprobe(LAST, 9)
    got = message.recv()
    request.wait()
    return got, status.source, status.tag


def statuses(c):
    bufs = [out(P), out(1)]
    requests = [c.Irecv(bufs[0], LAST, 1), c.Irecv(bufs[1], LAST, 2)]
    requests += [c.Isend(MINE, NEXT, 1), c.Isend(ONE, NEXT, 2)]
    found = [MPI.Status() for _ in requests]
    (c if c is not PLAIN else MPI.Request).Waitall(requests, found)
    return bufs, [(s.source, s.tag, s.Get_count(MPI.INT64_T)) for s in found[:2]]


def objects(c):
    requests = [c.irecv(source=LAST, tag=4), c.isend(DATA[1:3], NEXT, 4)]
    return (c if c is not PLAIN else MPI.Request).waitall(requests)


def some(c):
    requests = [c.irecv(source=LAST, tag=4), c.isend(ME, NEXT, 4)]
    found = set()
    while any(requests):
        found.add((c if c is not PLAIN else MPI.Request).waitany(requests))
    return sorted(found, key=repr)


def persistent(c):
    buf = out(P)
    requests = [c.Recv_init(buf, LAST), c.Send_init(MINE, NEXT)]
    for _ in range(3):
        MPI.Prequest.Startall(requests)
        (c if c is not PLAIN else MPI.Request).Waitall(requests)
    # Not started: nothing to wait for.
    (c if c is not PLAIN else MPI.Request).Waitall(requests)
    assert (c if c is not PLAIN else MPI.Request).Waitany(requests) == MPI.UNDEFINED
    assert (c if c is not PLAIN else MPI.Request).Waitsome(requests) is None
    for request in requests:
        request.Free()
    return buf


def nonblocking(c):
    buf = out(P)
    request = c.Iallreduce(MINE, buf)
    while not request.Test():
        pass
    return buf


def derived(c):
    half = c.Split(ME % 2, -ME)
    ring = c.Dup().Create_cart([P], [True])
    some = c.Create(c.group.Incl([0]))
    found = (
        half.allgather(ME),
        ring.neighbor_allgather(ME),
        ring.neighbor_alltoall([(ME, b"z" * 700), "to the right"]),
        ring.neighbor_alltoall(None),
        ring.Shift(0, 1),
        ring.Sub([True]).allreduce(1),
        some.allgather(ME) if some else None,
    )
    ring.Free()
    half.Free()
    return found


CASES |= {
    f.__name__: f
    for f in (probed, statuses, objects, some, persistent, nonblocking, derived)
}

regions = Regions(WORLD)
PLAIN = WORLD.Dup()
for name, case in CASES.items():
    expected = case(PLAIN)
    got = None

    def block(c):
        global got
        got = case(c)
        got = case(c)  # twice: what the first call sets up is there

    exc, n_failed = regions.run(block)
    if exc is not None:
        raise exc
    if not (n_failed == 0 and repr(got) == repr(expected)):
        print(f"WRONG {name} on rank {ME}: {got} is not {expected}", flush=True)

if ME == 0:
    print("ok", len(CASES), flush=True)
