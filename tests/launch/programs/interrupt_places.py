"""A signal's handler raises at each place of an operation on g.comm, one by one.

That is where Python runs handlers: where a function begins, and after each call of
one written in C. Whatever the place, all ranks end alike, and nobody waits for ever.
"""

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import allraise
from allraise import creation, interruptible, methods, rendezvous

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
BAD = P - 1
PACKAGE = str(Path(allraise.__file__).parent)

one, total = np.ones(1), np.zeros(1)
right, left = (ME + 1) % P, (ME - 1) % P

spare = []  # a communicator that no guard was on before


def first_guard(_comm):
    """Open a guard where the private communicator is to be made first."""
    with allraise.guard(spare[0], "first"):
        pass


OPERATIONS = {
    "Barrier": lambda c: c.Barrier(),
    "Allreduce": lambda c: c.Allreduce(one, total),
    "Bcast": lambda c: c.Bcast(one),
    "bcast": lambda c: c.bcast("text", root=0),
    "bcast from the rank itself": lambda c: c.bcast("text", root=BAD),
    "bcast of much": lambda c: c.bcast("text" * 500, root=0),
    "allgather": lambda c: c.allgather(ME),
    "allgather of much": lambda c: c.allgather("text" * 500),
    "gather of much": lambda c: c.gather("text" * 500, root=BAD),
    "scatter of much": lambda c: c.scatter(["text" * 500] * P),
    "alltoall of much": lambda c: c.alltoall(["text" * 500] * P),
    "gather": lambda c: c.gather(ME),
    "scatter": lambda c: c.scatter(range(P)),
    "alltoall": lambda c: c.alltoall(range(P)),
    "allreduce": lambda c: c.allreduce(ME),
    "allreduce of objects": lambda c: c.allreduce([ME]),
    "Sendrecv": lambda c: c.Sendrecv(one, right, 0, total, left),
    "sendrecv": lambda c: c.sendrecv(ME, right, 0, None, left),
    "Iallreduce": lambda c: c.Iallreduce(one, total).Wait(),
    "Dup": lambda c: c.Dup().Barrier(),
    "first guard": first_guard,
}


class Handler:
    """A signal whose handler raises at the n-th of the places."""

    def __init__(self, place):
        self.place = place
        self.n_places = self.n_held = 0
        self.is_due = self.has_raised = False

    def __call__(self, frame, event, _argument):
        here = frame.f_code.co_filename.startswith(PACKAGE)
        if event in {"call", "c_return"} and here:
            self.n_places += 1
            self.is_due = self.is_due or self.n_places == self.place
            self.run()

    def run(self):
        if self.is_due and not self.n_held:
            self.is_due, self.has_raised = False, True
            sys.setprofile(None)
            raise KeyboardInterrupt("now")


class held_back:
    """Hold back what a `Handler` raises, as `signals_held_back` does with signals."""

    def __enter__(self):
        self.handler = sys.getprofile()
        if self.handler is not None:
            self.handler.n_held += 1

    def __exit__(self, *_):
        if self.handler is not None:
            self.handler.n_held -= 1
            self.handler.run()


def interrupted_at(place, operation):
    """Do an operation; on one rank, the handler raises."""
    handler = Handler(place)
    error = None
    spare[:] = [WORLD.Dup() if operation is first_guard else None]
    try:
        with allraise.guard(WORLD, "region") as g:
            comm = g.comm
            if ME == BAD:
                sys.setprofile(handler)
            try:
                operation(comm)
            finally:
                sys.setprofile(None)
    except BaseException as raised:
        error = raised
    # Python itself may swallow what a handler raises, in a generator that it closes.
    failed = WORLD.allgather(error is not None)
    assert len(set(failed)) == 1, failed
    if error is not None:
        assert isinstance(error, allraise.CheckpointException), repr(error)
        assert error.ranks == (BAD,), error.ranks
    has_raised = WORLD.bcast(handler.has_raised, root=BAD)
    if spare[0]:
        spare[0].Free()
    return has_raised


if __name__ == "__main__":
    for module in (interruptible, methods, creation, rendezvous):
        module.signals_held_back = held_back
    for name, operation in OPERATIONS.items():
        place, has_raised = 0, True
        while has_raised:
            place += 1
            if ME == 0:
                print(f"{name} at place {place}", file=sys.stderr, flush=True)
            has_raised = interrupted_at(place, operation)
        if ME == 0:
            print(f"{name}: {place - 1} places", flush=True)
    if ME == 0:
        print("ok", flush=True)
