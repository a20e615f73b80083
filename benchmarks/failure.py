"""The failure path: every rank fails, 13 frames deep.

Run by ``benchmarks/run.py`` under mpiexec; prints one line of JSON on rank 0.
The yardstick is what torch does: pickle a pair of exception and summary, gather
the pairs, and write them one by one. Time is the root's, from a barrier to the
end of the text. Beside it, in turns of their own, the two collectives that no
failure can do without, which agree and bring together, with nothing to carry.
"""

import json
import statistics
import sys
import time
import traceback
from array import array

from mpi4py import MPI

import allraise
from allraise import gathering
from allraise.creation import private_of
from allraise.polling import receive
from allraise.private import VECTOR_LENGTH

comm = MPI.COMM_WORLD
repeats = int(sys.argv[1])
FRAMES = 13


def descend(depth, message):
    if depth <= 1:
        raise OSError(28, "No space left on device", message)
    descend_again(depth - 1, message)


def descend_again(depth, message):
    if depth <= 1:
        raise OSError(28, "No space left on device", message)
    descend(depth - 1, message)


def failure(message):
    try:
        descend(FRAMES - 1, message)
    except OSError as error:
        return error
    return None


class Counted:
    """The private communicator, with what comes into the root counted."""

    def __init__(self, inner):
        self.inner = inner
        self.n_bytes = self.n_messages = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def gather(self, data, root):
        chunks = self.inner.gather(data, root)
        if chunks is not None:
            others = [c for i, c in enumerate(chunks) if i != root]
            self.n_bytes += sum(map(len, others))
            self.n_messages += len(others)
        return chunks

    def receive(self, _comm, *args):
        data = receive(self.inner, *args)
        self.n_bytes += len(data)
        self.n_messages += 1
        return data


def naive(exc):
    summary = traceback.extract_tb(exc.__traceback__)
    for frame in summary:
        if hasattr(frame, "_code"):
            frame._code = None
    pairs = comm.gather((exc, summary), 0)
    if pairs is None:
        return None
    text = f"CheckpointException ranks:dict_keys({list(range(comm.size))})\n"
    for rank, (error, stack) in enumerate(pairs):
        text += f"Traceback (most recent call last): (RANK {rank})\n"
        text += "".join(traceback.format_list(stack))
        text += "".join(traceback.format_exception_only(type(error), value=error))
    return text


def ours(exc):
    outcome = allraise.collect(exc, comm, "step")
    return str(outcome) if comm.rank == 0 else None


def empty_handed(_exc):
    comm.Allreduce(vector, total, MPI.MAX)
    comm.gather(b"", 0)


def timed(function, message):
    exc = failure(message)
    comm.Barrier()
    began = time.perf_counter()
    text = function(exc)
    took = time.perf_counter() - began
    comm.Barrier()
    return took * 1e3, text


allraise.agree(None, comm, "first")
private = private_of(comm)
result = {"ranks": comm.size}
vector, total = (array("q", bytes(8 * VECTOR_LENGTH)) for _ in range(2))
for case in ("same", "vary"):
    message = "/scratch/shard" if case == "same" else f"/scratch/shard-{comm.rank}"
    times = {"naive": [], "ours": []}
    texts = {}
    for _ in range(repeats):
        for function in (naive, ours):
            took, texts[function.__name__] = timed(function, message)
            times[function.__name__].append(took)
    if comm.rank == 0:
        assert texts["naive"] == texts["ours"], "the two reports differ"
    bare = private.comm
    if bare is not None:
        private.comm = Counted(bare)
        gathering.receive = private.comm.receive
        allraise.collect(failure(message), comm, "step")
        counted, private.comm = private.comm, bare
        gathering.receive = receive
        result[f"{case}_bytes"] = counted.n_bytes
        result[f"{case}_messages"] = counted.n_messages
    for name, values in times.items():
        result[f"{case}_{name}_ms"] = statistics.median(values)
    # Of two that ran one after the other: how fast the machine is changes meanwhile.
    pairs = zip(times["ours"], times["naive"], strict=True)
    result[f"{case}_ratio"] = statistics.median(ours / naive for ours, naive in pairs)
times = {"naive": [], "empty_handed": []}
for _ in range(repeats):
    for function in (naive, empty_handed):
        times[function.__name__].append(timed(function, "/scratch/shard")[0])
medians = {name: statistics.median(values) for name, values in times.items()}
result["least_ratio"] = medians["empty_handed"] / medians["naive"]
if comm.rank == 0:
    print(json.dumps(result))
