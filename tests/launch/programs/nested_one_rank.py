"""Guards on communicators of one rank, in and around others: they change nothing."""

from itertools import product

from mpi4py import MPI

import allraise

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
ME = WORLD.rank
new, known = WORLD.Dup(), WORLD.Dup()
allraise.agree(None, known)


def nested(*comms, failing=None, late=None):
    """Enter guards in each other; a rank fails before the innermost, or after it."""
    if len(comms) == 1 and failing == ME:
        raise OSError(failing)
    with allraise.guard(comms[0]) as g:
        if comms[1:]:
            nested(*comms[1:], failing=failing, late=late)
        else:
            g.comm.barrier()
        if len(comms) == 2 and late == ME:
            raise OSError(late)


for comms in (
    (SELF, WORLD, new),
    (WORLD, SELF, WORLD),
    (WORLD, SELF, WORLD.Dup()),
    (SELF, SELF.Dup(), WORLD),
    (WORLD, SELF, SELF),
):
    nested(*comms)
for comms, how in product(
    (
        (SELF, WORLD, known),
        (WORLD, SELF, known),
        (WORLD, known, SELF),
        (SELF, WORLD, SELF, known),
        (WORLD, SELF, WORLD),
        (WORLD, SELF, SELF),
        (SELF, WORLD, SELF, SELF, SELF),
    ),
    ({"failing": 1}, {"late": 1}),
):
    failed = None
    try:
        nested(*comms, **how)
    except allraise.CheckpointError as error:
        failed, text = error.ranks, str(error)
    assert failed in {(1,), (0,)}, failed  # of one rank, that is 0
    assert text.count("Error: ") == text.count("OSError: 1") > 0, text

with allraise.guard(WORLD) as g, allraise.guard(g.comm.Split(ME)) as lone:
    lone.comm.barrier()
    assert lone.comm.allreduce(ME) == ME
print(f"rank {ME} ok", flush=True)
