"""MPI has no communicator left when a guard is first used on one."""

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
other = WORLD.Dup()
kept = []
try:
    while True:
        kept.append(WORLD.Dup())
except MPI.Exception as error:
    text = str(error)
try:
    with allraise.guard(other):
        pass
except MPI.Exception as error:
    print("raised", "communicators" in text, *error.__notes__, flush=True)
