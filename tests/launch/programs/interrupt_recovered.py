"""A failure that all ranks have dealt with, then a guard on some of the ranks.

Nobody fails any more, so the guard around it all ends well. What the failure has given
up is made anew, which takes the ranks of the part alone.
"""

from contextlib import suppress
from functools import partial

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank
N_TIMES = 5
part = WORLD.Split(ME % 2)


def fail():
    if ME == 1:
        raise ValueError


def caught():
    try:
        fail()
    except ValueError as error:
        return error
    return None


def in_a_guard(comm):
    with allraise.guard(comm, "inner") as g:
        g.comm.Barrier()
        fail()


def flaky():
    for attempt in range(3):
        try:
            with allraise.guard(WORLD, "attempt") as g:
                g.comm.Barrier()
                if attempt < 2:
                    fail()
        except allraise.CheckpointException:
            continue
        return


FAILS = {
    "a guard": partial(in_a_guard, WORLD),
    "a guard of a part": partial(in_a_guard, part),
    "agree": lambda: allraise.agree(caught(), WORLD, "agree"),
    "collect": lambda: allraise.collect(caught(), WORLD, "collect"),
    "a step": lambda: allraise.CollectiveSteps(WORLD).all_gather("map", fail),
    "an attempt": flaky,
}
for name, failing in FAILS.items():
    for i in range(N_TIMES):
        again = {
            "the part": part,
            "a new one": WORLD.Dup(),
            "half": WORLD.Split(ME % 2),
        }
        for where, comm in again.items():
            with allraise.guard(WORLD, f"{name}, then {where}, {i}") as g:
                g.comm.Barrier()
                with allraise.guard(WORLD, "all are out of the barrier"):
                    pass  # a revoke would wake those that are in it
                with suppress(allraise.CheckpointException):
                    failing()
                with allraise.guard(comm, "later"):
                    pass
print(f"rank {ME} ok", flush=True)
