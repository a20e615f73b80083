"""A message on the outer g.comm outlives a failure within, which was dealt with."""

from contextlib import suppress

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank
row = WORLD.Split(ME // 2)
PAIRS = {
    "of the same ranks": (WORLD, WORLD.Dup()),
    "in a part": (row, WORLD),
    "of a part": (WORLD, row),
}
for name, (outer, inner) in PAIRS.items():
    with allraise.guard(outer, "outer") as g:
        assert g.comm.size == outer.size  # made here, by all ranks
        if outer.rank == 0:
            g.comm.send(name, 1)
        with suppress(allraise.CheckpointError), allraise.guard(inner) as h:
            h.comm.barrier()
            if inner.rank == 0:
                raise OSError
        if outer.rank == 1:
            assert g.comm.recv(source=0) == name
print(f"rank {ME} ok", flush=True)
