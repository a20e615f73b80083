"""Play random SPMD programs on real ranks; the arguments are first and last seed,
and ``tree`` to have reports merge as they do where the ranks are many.

Rank 0 prints a line for each program: what was agreed in it, if all that must
hold does hold, or what does not.
"""

import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mpi4py import MPI

import spmd
from allraise import gathering
from allraise.creation import private_of

if sys.argv[3:] == ["tree"]:
    gathering.MAX_GATHERED_RANKS = 1
players = {}
spmd.watch(setattr, players.get)
world = MPI.COMM_WORLD
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    # A new communicator each time, every other one with the ranks backwards.
    comm = world.Split(0, world.rank * (-1) ** seed)
    private = private_of(comm)
    player = spmd.Player(comm, comm.rank, comm.size)
    players[private] = player
    player.play(spmd.generate(seed, comm.size))
    clean = private.settled is None and not private.steps
    spmd.allraise.agree(None if clean else ValueError("not clean"), comm, "after")
    # One process tells of all: in what order mpiexec passes on what two print is not
    # promised.
    teller = comm.allreduce(comm.rank if world.rank == 0 else 0)
    seen = comm.gather((player.ledger, player.log), teller)
    if world.rank == 0:
        try:
            spmd.check([ledger for ledger, _ in seen], [log for _, log in seen])
        except AssertionError:
            print(f"seed {seed}: WRONG\n{traceback.format_exc()}", flush=True)
        else:
            n_failed = sum(entry["outcome"] is not None for entry in player.ledger)
            print(
                f"seed {seed}: well, {len(player.ledger)} agreements, "
                f"{n_failed} on a failure",
                flush=True,
            )
    comm.Free()
    players.clear()
