"""A signal's handler raises between the gate of a long broadcast and what follows it.

The argument names a function of allraise, at whose entry it does so on one rank. That
rank has passed the gate, so the others count on it: it takes part to the end, and what
comes next meets the same of theirs, though the program swallows what was raised.
"""

import sys
from pathlib import Path

from mpi4py import MPI

import allraise

NAME = sys.argv[1]
WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
BAD = P - 1
PACKAGE = str(Path(allraise.__file__).parent)
n_raised = 0


def handler(frame, event, _argument):
    """Raise once, at the entry of the function."""
    global n_raised  # noqa: PLW0603
    code = frame.f_code
    here = code.co_filename.startswith(PACKAGE) and code.co_name == NAME
    if event == "call" and here:
        n_raised += 1
        sys.setprofile(None)
        raise TimeoutError("now")


with allraise.guard(WORLD, "rest") as g:
    for root in {0, BAD}:
        for n in range(3):
            data = [n, "text" * 500]
            swallowed = False
            if ME == BAD and n == 1:
                sys.setprofile(handler)
            try:
                got = g.comm.bcast(data if root == ME else None, root=root)
            except TimeoutError:
                swallowed, got = True, data
            finally:
                sys.setprofile(None)
            assert got == data, got
            assert swallowed == (ME == BAD and n == 1), (ME, n, swallowed)
            assert g.comm.allgather(n) == [n] * P
assert n_raised == (ME == BAD) * len({0, BAD})
if ME == 0:
    print("ok", NAME, flush=True)
