"""Random programs with random faults, region after region.

usage: interrupt_cycles.py N_CYCLES [SEED]
"""
# ruff: noqa: B023 - a program, whose blocks run where they stand

import random
import sys
import time

import numpy as np
from mpi4py import MPI
from standin import Fault, Interrupted, Regions

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
N, SEED = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1


def same(got, expected):
    if not np.array_equal(got, expected):
        raise AssertionError(
            f"corrupt: {np.ravel(got)[:4]} instead of {np.ravel(expected)[:4]}"
        )


def allreduce(c, cycle, n):
    out = np.empty(n)
    c.Allreduce(np.full(n, cycle + c.rank, float), out)
    same(out, np.full(n, P * cycle + P * (P - 1) / 2))


def bcast(c, cycle, n):
    buf = np.full(n, cycle if c.rank == cycle % P else -1, float)
    c.Bcast(buf, cycle % P)
    same(buf, np.full(n, cycle))


def ring(c, cycle, n):
    into = np.empty(n)
    right, left = (c.rank + 1) % P, (c.rank - 1) % P
    c.Sendrecv(np.full(n, cycle + c.rank, float), right, 5, into, left, 5)
    same(into, np.full(n, cycle + left))


def halo(c, cycle, n):
    near = sorted({(c.rank + 1) % P, (c.rank - 1) % P})
    into = [np.empty(n) for _ in near]
    requests = [c.Irecv(into[i], r) for i, r in enumerate(near)]
    requests += [c.Isend(np.full(n, cycle + c.rank, float), r) for r in near]
    c.Waitall(requests)
    for i, r in enumerate(near):
        same(into[i], np.full(n, cycle + r))


def anyone(c, cycle, n):
    # from any source with any tag: a stale message would be taken
    # (the tag is not that of master: who comes next may be here already)
    c.isend((cycle, bytes(n)), (c.rank + 1) % P, 10 + cycle % 100)
    got, data = c.recv()
    same((got, len(data)), (cycle, n))
    c.barrier()  # or the next operation's message would do as well


def objects(c, cycle, n):
    same(c.allreduce(cycle + c.rank), P * cycle + P * (P - 1) // 2)
    same(c.allgather((cycle, c.rank)), [(cycle, r) for r in range(P)])
    same(len(c.bcast(bytes(n), cycle % P)), n)


def master(c, cycle, n):
    # ranks take part in different numbers of operations
    if c.rank == cycle % P:
        for _ in range(P - 1):
            same(c.recv(source=MPI.ANY_SOURCE, tag=7), cycle)
    else:
        c.send(cycle, cycle % P, 7)


OPS = [allreduce, bcast, ring, halo, anyone, objects, master, lambda c, *_: c.barrier()]

regions = Regions(WORLD)
shared, own = random.Random(SEED), random.Random(SEED * 1000 + ME)
n_faults = 0
for cycle in range(N):
    program = [
        (shared.choice(OPS), shared.choice([1, 100, 10_000, 100_000]))
        for _ in range(shared.randint(1, 8))
    ]
    failing = shared.sample(
        range(P), shared.choice([0, 1, 1, 1, min(2, P), min(3, P), P])
    )
    where = own.randrange(len(program) + 1)  # each its own

    def block(c):
        for i, (op, n) in enumerate(program):
            if ME in failing and i == where:
                if own.random() < 0.3:
                    time.sleep(own.random() * 1e-3)
                raise Fault(cycle)
            op(c, cycle, n)
        if ME in failing:
            raise Fault(cycle)

    exc, n_failed = regions.run(block)
    if exc is not None and not isinstance(exc, (Fault, Interrupted)):
        print(f"WRONG cycle {cycle} rank {ME}: {exc!r}", flush=True)
        WORLD.Abort(3)
    if n_failed < len(failing) or (n_failed and not failing):
        print(
            f"WRONG cycle {cycle} rank {ME}: {n_failed} failed, {failing}", flush=True
        )
        WORLD.Abort(3)
    n_faults += bool(failing)
if ME == 0:
    print(
        f"ok {N} cycles, {n_faults} failed, {regions.channel.generation} lanes",
        flush=True,
    )
