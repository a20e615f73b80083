"""A failure in an outer region wakes ranks in a region on a part of its ranks."""

import contextlib

import numpy as np
from mpi4py import MPI
from standin import Fault

import allraise

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
half = WORLD.Split(ME % 2)
partner = (half.rank + 1) % half.size

for bad in range(P):
    for in_inner in (
        lambda c: c.barrier(),
        lambda c: c.Allreduce(np.ones(1), np.ones(1)),
        lambda c: c.recv(source=partner),
        lambda c: c.allreduce(1),
        lambda c: c.Irecv(np.ones(1), partner).Wait(),
    ):
        exc = None
        try:
            with allraise.guard(WORLD, "outer") as g:
                try:
                    # A revoke may also end what all ranks have entered.
                    g.comm.barrier()
                    if bad == ME:
                        raise Fault
                    with allraise.guard(half, "inner") as h:
                        if half.rank == 0:
                            g.comm.recv(source=bad)
                        in_inner(h.comm)
                    if bad % 2 != ME % 2:
                        g.comm.recv(source=bad)
                except BaseException as error:
                    exc = error
                    raise
        except allraise.CheckpointException as outcome:
            if outcome.ranks != (bad,):
                print(f"WRONG ranks on rank {ME}: {outcome}", flush=True)
        # A rank that a revoke has woken may come to the inner agreement before it has
        # heard of the outer failure: that one is agreed on then, and is an interruption.
        woken = (allraise.PeerFailure, allraise.CheckpointException)
        if not isinstance(exc, Fault if bad == ME else woken):
            print(f"WRONG on rank {ME}: {exc!r}", flush=True)
        with allraise.guard(WORLD, "after") as g:
            assert g.comm.allreduce(1) == P

# What a rank hands over for an agreement further in is not lost to that failure.
for bad in range(P):
    try:
        with allraise.guard(WORLD, "outer") as g:
            with contextlib.suppress(allraise.PeerFailure):
                # A revoke may also end what all ranks have entered.
                g.comm.barrier()
                if bad == ME:
                    raise Fault
                g.comm.recv(source=bad)
            allraise.agree(ValueError(f"caught on {ME}"), half, "inner")
    except allraise.CheckpointException as outcome:
        told = str(outcome)
        if outcome.ranks != tuple(range(P)):
            print(f"WRONG ranks on rank {ME}: {told}", flush=True)
        if ME == 0 and told.count("ValueError: caught on") != P - 1:
            print(f"WRONG: some were lost: {told}", flush=True)
if ME == 0:
    print("ok", flush=True)
