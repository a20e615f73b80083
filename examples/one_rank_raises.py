"""One rank raises, the others do not know and wait for it for ever.

Without ``--guard`` this job hangs until something ends it. With it, every rank
raises at the end of the block, and rank 0 shows what happened on rank 2::

    $ mpiexec -n 4 python examples/one_rank_raises.py --guard
    ...
    allraise.CheckpointError: CheckpointException ranks:dict_keys([2])
    Traceback (most recent call last): (RANK 2)
      File "examples/one_rank_raises.py", line 28, in my_share
        return 100 // WORKERS[rank]
                      ~~~~~~~^^^^^^
    KeyError: 2
"""

import contextlib
import sys

from mpi4py import MPI

import allraise

WORKERS = {0: 4, 1: 2, 3: 8, 4: 5, 5: 1, 6: 10, 7: 20}


def my_share(rank: int) -> int:
    """Fail on rank 2, whose workers nobody has told."""
    return 100 // WORKERS[rank]


comm = MPI.COMM_WORLD
guarded = "--guard" in sys.argv
with allraise.guard(comm, "share") if guarded else contextlib.nullcontext():
    share = my_share(comm.rank)
print(f"rank {comm.rank}: {comm.allreduce(share)} in all", flush=True)
