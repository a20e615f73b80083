"""Guards on communicators of one rank, in and around others: they change nothing."""

from mpi4py import MPI

import allraise

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF
ME = WORLD.rank
new, known = WORLD.Dup(), WORLD.Dup()
allraise.agree(None, known)


def nested(*comms, failing=None):
    """Enter guards in each other; in which one rank fails before the innermost."""
    if len(comms) == 1 and failing == ME:
        raise OSError(failing)
    with allraise.guard(comms[0]) as g:
        if comms[1:]:
            nested(*comms[1:], failing=failing)
        else:
            g.comm.barrier()


for comms in (
    (SELF, WORLD, new),
    (WORLD, SELF, WORLD),
    (WORLD, SELF, WORLD.Dup()),
    (SELF, SELF.Dup(), WORLD),
    (WORLD, SELF, SELF),
):
    nested(*comms)
for comms in (
    (SELF, WORLD, known),
    (WORLD, SELF, known),
    (WORLD, known, SELF),
    (SELF, WORLD, SELF, known),
    (WORLD, SELF, WORLD),
):
    failed = None
    try:
        nested(*comms, failing=1)
    except allraise.CheckpointError as error:
        failed = error.ranks
    assert failed in {(1,), (0,)}, failed  # of one rank, that is 0

with allraise.guard(WORLD) as g, allraise.guard(g.comm.Split(ME)) as lone:
    lone.comm.barrier()
    assert lone.comm.allreduce(ME) == ME
print(f"rank {ME} ok", flush=True)
