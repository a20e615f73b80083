"""Regions that are not alike on all ranks: of one rank here, of several there."""

import sys
from contextlib import suppress

from mpi4py import MPI

import allraise

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
ME = WORLD.rank
part = WORLD.Split(ME % 2)  # of three ranks one has a part for itself
twin = WORLD.Dup()


def parts(fails):
    """World within a part within the world, where nobody fails, or one rank does."""
    for within in (WORLD, twin, WORLD):
        failed = None
        try:
            with allraise.guard(WORLD, "root"):
                with allraise.guard(part), allraise.guard(within) as g:
                    g.comm.barrier()
                    if fails and ME == 1:
                        raise OSError
                with allraise.guard(WORLD) as g:
                    g.comm.barrier()
        except allraise.CheckpointError as error:
            failed = error.ranks
        assert failed == ((1,) if fails else None), failed


def asked_twice():
    """A rank at the end of a region is asked there for one thing, then for another."""
    within = part.Dup()
    with (
        suppress(allraise.CheckpointException),
        allraise.guard(WORLD, "root"),
        allraise.guard(part),
    ):
        try:
            with allraise.guard(SELF):
                if ME == 1:
                    raise OSError
                with allraise.guard(within):
                    pass
        except allraise.CheckpointException:
            if ME != 1:
                raise


def freed_around():
    """What is open around a failure is made anew, though some have freed it."""
    for ranks in ({0, 1, 2, 3}, {1}, {0}):
        around, failed = WORLD.Dup(), None
        try:
            with allraise.guard(WORLD), allraise.guard(around):
                if ME in ranks:
                    around.Free()
                new = WORLD.Split(ME % 2)  # may get the handle of the one freed
                with allraise.guard(WORLD):
                    if ME == 1:
                        raise OSError
        except allraise.CheckpointError as error:
            failed = error.ranks
        assert failed == (1,), failed
        with allraise.guard(new) as g:
            g.comm.barrier()


cases = {
    "go well": lambda: parts(fails=False),
    "fail": lambda: parts(fails=True),
    "asked twice": asked_twice,
    "freed around": freed_around,
}
cases[sys.argv[1]]()
allraise.agree(None, WORLD)
print(f"rank {ME} ok", flush=True)
