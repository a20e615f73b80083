"""A collective step of ours against torch's over gloo, in one process each.

Run by ``benchmarks/run.py`` under mpiexec, where torch is installed; prints one
line of JSON on rank 0.
"""

import json
import os
import statistics
import time

import torch.distributed as dist
from mpi4py import MPI
from torch.distributed.checkpoint.utils import _DistWrapper

import allraise

comm = MPI.COMM_WORLD
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
dist.init_process_group("gloo", rank=comm.rank, world_size=comm.size)
theirs, ours = _DistWrapper(None, True, 0), allraise.CollectiveSteps(comm)


def fail():
    msg = f"rank {comm.rank}"
    raise ValueError(msg)


def timed(steps, function, n):
    times = []
    for _ in range(n):
        comm.Barrier()
        began = time.perf_counter()
        try:
            steps.all_gather("step", function)
        except BaseException as error:
            if type(error).__name__ not in {"CheckpointException", "CheckpointError"}:
                raise
        times.append(comm.allreduce(time.perf_counter() - began, MPI.MAX))
    return statistics.median(times)


ratios = {}
for name, function, n in (("success", lambda: comm.rank, 50), ("failure", fail, 10)):
    for steps in (theirs, ours):
        timed(steps, function, 2)
    ratios[f"{name}_ratio"] = timed(theirs, function, n) / timed(ours, function, n)
if comm.rank == 0:
    print(json.dumps({"ranks": comm.size, **ratios}))
dist.destroy_process_group()
