"""The success path: a guard against the bare Allreduce inside it.

Run by ``benchmarks/run.py`` under mpiexec; prints one line of JSON on rank 0.
Blocks of both are interleaved, because what shares the machine with them does
not hold still; a block's time is that of the slowest rank. Then both again with
the ranks brought together before each call, as after work of equal length: the
time of a call is that of its slowest rank.

What any guard costs that is written in Python is measured beside: a block at whose
entry a number goes up, and at whose end the least is done that an agreement takes.
"""

import json
import statistics
import sys
import time
from array import array
from functools import partial

from mpi4py import MPI

import allraise
from allraise.private import VECTOR_LENGTH

comm = MPI.COMM_WORLD
blocks, loops = int(sys.argv[1]), int(sys.argv[2])

with allraise.guard(comm, "first"):  # makes the private communicator
    pass
peer = comm.Dup()
mine, total = (array("q", bytes(8 * VECTOR_LENGTH)) for _ in range(2))
reused = allraise.guard(comm, "step")


def bare():
    peer.Allreduce(mine, total, MPI.MAX)


class Least:
    """A block that tells steps apart by their number, and knows nothing else."""

    number = 0

    def __init__(self):
        self.mine, self.total = (array("q", bytes(8 * VECTOR_LENGTH)) for _ in "12")
        vectors = [(v, VECTOR_LENGTH, MPI.INT64_T) for v in (self.mine, self.total)]
        self.reduce = partial(peer.Allreduce, *vectors, MPI.MAX)

    def __enter__(self):
        self.number += 1
        return self

    def __exit__(self, *_):
        mine = self.mine
        mine[3] = self.number
        mine[4] = -self.number
        self.reduce()
        if self.total != mine:
            raise RuntimeError


least_block = Least()


def in_a_block():
    with least_block:
        pass


def guarded():
    with allraise.guard(comm, "step"):
        pass


def guarded_again():
    with reused:
        pass


def agreed():
    allraise.agree(None, comm, "step")


def block(function):
    comm.Barrier()
    began = time.perf_counter()
    for _ in range(loops):
        function()
    took = (time.perf_counter() - began) / loops * 1e6
    return comm.allreduce(took, MPI.MAX)


def together(function):
    """Return the median time of calls that all ranks come to together."""
    times = array("d", bytes(8 * loops))
    slowest = array("d", times)
    for i in range(loops):
        comm.Barrier()
        began = time.perf_counter()
        function()
        times[i] = time.perf_counter() - began
    comm.Allreduce(times, slowest, MPI.MAX)
    return statistics.median(slowest) * 1e6


functions = (bare, in_a_block, guarded, guarded_again, agreed)
times = {f.__name__: [] for f in functions}
for _ in range(blocks):
    for function in functions:
        times[function.__name__].append(block(function))
met = {"bare": [], "guarded": []}
for _ in range(blocks):
    for function in (bare, guarded):
        met[function.__name__].append(together(function))
if comm.rank == 0:
    met_ratios = [g / b for g, b in zip(met["guarded"], met["bare"], strict=True)]
    least = {name: min(values) for name, values in times.items()}
    ratios = [g / b for g, b in zip(times["guarded"], times["bare"], strict=True)]
    print(
        json.dumps(
            {
                "ranks": comm.size,
                "bare_us": least["bare"],
                "block_us": least["in_a_block"],
                "guard_us": least["guarded"],
                "reused_us": least["guarded_again"],
                "agree_us": least["agreed"],
                "ratio": least["guarded"] / least["bare"],
                "median_ratio": statistics.median(ratios),
                "met_bare_us": statistics.median(met["bare"]),
                "met_guard_us": statistics.median(met["guarded"]),
                "met_ratio": statistics.median(met_ratios),
                "mpi": MPI.Get_library_version().partition("\n")[0].strip("\0"),
            }
        )
    )
