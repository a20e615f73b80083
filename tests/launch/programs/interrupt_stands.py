"""Ranks that wait for each other are found, however much each has to tell of itself."""

import sys

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank
N_MADE = 200
rows, columns = WORLD.Split(ME // 2), WORLD.Dup()
kept = []
for comm in (WORLD, rows, columns):
    allraise.agree(None, comm)
failed = None
try:
    with allraise.guard(WORLD, "world") as w:
        for _ in range(N_MADE):
            if sys.argv[1] == "split":
                kept.append(w.comm.Split(0))
                continue
            part = rows.Dup()
            with allraise.guard(part, "part"):
                pass
            if sys.argv[1] == "freed":
                part.Free()
            else:
                kept.append(part)
        with allraise.guard(rows, "rows") as r:
            assert r.comm.size == rows.size
            if ME == 0:
                raise OSError
            with allraise.guard(columns, "columns"):
                pass
except allraise.CheckpointException as error:
    failed = error.ranks
assert failed == (0,), failed
print(f"rank {ME} ok", flush=True)
