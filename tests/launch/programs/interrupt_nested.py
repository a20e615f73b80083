"""A failure in an outer region wakes ranks in a region on a part of its ranks."""

import numpy as np
from mpi4py import MPI
from standin import Fault, Interrupted, Regions

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
        outer, inner = Regions(WORLD), Regions(half)
        inner.channel.enclosing = (outer.channel,)
        exc = None
        from allraise.interruptible import communicator

        try:
            communicator(outer.channel).barrier()
            if bad == ME:
                raise Fault
            h = communicator(inner.channel)
            if half.rank == 0:
                communicator(outer.channel).recv(source=bad)
            in_inner(h)
            if bad % 2 != ME % 2:
                communicator(outer.channel).recv(source=bad)
        except (Fault, Interrupted) as error:
            exc = error
        outer.channel.announce([inner.channel])
        if not isinstance(exc, Fault if bad == ME else Interrupted):
            print(f"WRONG on rank {ME}: {exc!r}", flush=True)
        WORLD.Barrier()
        outer.channel.drain()
        inner.channel.abandon()
        assert outer.run(lambda c: c.allreduce(1)) == (None, 0)
if ME == 0:
    print("ok", flush=True)
