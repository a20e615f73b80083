"""Guards in two threads, each on a communicator of its own, and one of them fails.

As where a checkpoint is saved in the background: a step that fails, and is dealt with,
is nothing to the saver.
"""

import threading
import time

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME, FAILING = WORLD.rank, WORLD.size - 1
N_STEPS = 40
saving = WORLD.Dup()
outcomes = {"step": [], "save": []}


def run(comm, name, uses):
    for i in range(N_STEPS):
        time.sleep(0.001 * ((7 * ME + 3 * i + len(name)) % 5))
        ranks = ()
        try:
            with allraise.guard(comm, f"{name} {i}") as g:
                if uses:
                    g.comm.Barrier()
                if name == "step" and i % 5 == 4 and ME == FAILING:
                    raise ValueError(i)
                if uses:
                    assert g.comm.bcast(i) == i
        except allraise.CheckpointException as failure:
            ranks = failure.ranks
        outcomes[name].append(ranks)


for uses in (False, True):
    for comm in (WORLD, saving):  # both known in the main thread, at first
        with allraise.guard(comm, "first") as g:
            if uses:
                g.comm.Barrier()
    for found in outcomes.values():
        found.clear()
    saver = threading.Thread(target=run, args=(saving, "save", uses))
    saver.start()
    run(WORLD, "step", uses)
    saver.join()
    assert outcomes["save"] == [()] * N_STEPS, outcomes
    expected = [(FAILING,) if i % 5 == 4 else () for i in range(N_STEPS)]
    assert outcomes["step"] == expected, outcomes
print(f"rank {ME} ok", flush=True)
