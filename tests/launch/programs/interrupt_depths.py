"""An operation on g.comm at each distance from the end of the stack, one by one."""

import sys

import numpy as np
from interrupt_places import BAD, ME, OPERATIONS, WORLD, first_guard, spare

import allraise

NEAREST, FARTHEST = 1, 60  # calls that are left


def descend(n, function, comm):
    """Call a function with so many calls between."""
    return function(comm) if n <= 0 else descend(n - 1, function, comm)


def depth_here():
    """Count the frames of this thread."""
    n, frame = 0, sys._getframe()
    while frame is not None:
        n, frame = n + 1, frame.f_back
    return n


def at_the_end(operation, n_left):
    """Do an operation, on one rank with few calls left; return how it ended."""
    error = None
    spare[:] = [WORLD.Dup() if operation is first_guard else None]
    try:
        with allraise.guard(WORLD, "region") as g:
            comm = g.comm
            if ME == BAD:
                n = sys.getrecursionlimit() - depth_here() - n_left
                descend(n, operation, comm)
            else:
                operation(comm)
    except allraise.CheckpointException as raised:
        error = raised
        assert error.ranks == (BAD,), error.ranks
        if ME == BAD:
            assert isinstance(error.__cause__, RecursionError), repr(error.__cause__)
    if spare[0]:
        spare[0].Free()
    failed = WORLD.allgather(error is not None)
    assert len(set(failed)) == 1, failed
    return failed[0]


if __name__ == "__main__":
    np.ones(1).flags.c_contiguous  # noqa: B018 what is loaded late is loaded
    for name, operation in OPERATIONS.items():
        ends = []
        for n_left in range(FARTHEST, NEAREST - 1, -1):
            if ME == 0:
                print(f"{name}, {n_left} calls left", file=sys.stderr, flush=True)
            ends.append(at_the_end(operation, n_left))
        assert not ends[0], f"{name} never ends well"
        assert ends[-1], f"{name} never fails"
    if ME == 0:
        print("ok", flush=True)
