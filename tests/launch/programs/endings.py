"""Jobs that end in a failure; the argument says in which."""

import sys

from mpi4py import MPI

import allraise

world = MPI.COMM_WORLD
rank, last = world.rank, world.size - 1
ending = sys.argv[1]
print(f"rank {rank} begins", flush=True)

if ending == "after MPI was finalized":
    MPI.Finalize()
    try:
        with allraise.guard(step="too late"):
            print("entered")
    except ValueError as error:
        print(f"rank {rank}: {error}", flush=True)
    allraise.agree(ValueError(f"of {rank}"), step="too late")
elif ending == "finalized between two uses of a guard":
    used = allraise.guard(step="used")
    with used:
        pass
    MPI.Finalize()
    with used:
        print("entered")
elif ending == "finalized in a guard":
    with allraise.guard(step="block"):
        MPI.Finalize()
        raise OSError(f"of {rank}")
elif ending == "finalized in a step":
    allraise.CollectiveSteps().all_gather("step", MPI.Finalize)
elif ending == "import":
    with allraise.guard(step="import"):
        if rank == last:
            import a_module_that_only_this_rank_wants  # noqa: F401
elif ending == "sys.exit(0)":
    with allraise.guard(step="exit"):
        if rank == last:
            sys.exit(0)
elif ending == "uncaught":
    with allraise.guard(step="write"):
        if rank == last:
            raise OSError(28, "No space left on device")
elif ending == "uncaught, no exception":
    with allraise.guard(step="write"):
        if rank == last:
            raise KeyboardInterrupt
elif ending == "caught, and goes on":
    try:
        with allraise.guard(step="write"):
            if rank == last:
                raise OSError(28, "No space left on device")
    except allraise.CheckpointError as error:
        print(f"rank {rank} goes on without {error.ranks}", flush=True)
    with allraise.guard(step="write again"):
        pass
print(f"rank {rank} reaches the end", flush=True)
