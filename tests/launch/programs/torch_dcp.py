"""Torch's own save_state_dict and load_state_dict, with MPI below them.

No process group is there. The saver and the loader make a _DistWrapper by its
name in their module: that name is all that is replaced. Each rank prints one
line of JSON: by case, what it saw.
"""

import json
import logging
import sys
import warnings

import torch
from mpi4py import MPI
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.default_planner import _create_default_local_metadata
from torch.futures import Future

from allraise import dcp

state_dict_saver._DistWrapper = dcp._DistWrapper
state_dict_loader._DistWrapper = dcp._DistWrapper
warnings.simplefilter("ignore", FutureWarning)  # torch wants save() instead
logging.disable(logging.WARNING)  # the loader logs what it falls back from

comm = MPI.COMM_WORLD


class Faulty:
    """Fails in one method on some ranks."""

    def __init__(self, method, ranks):
        self.method = method
        self.failing = comm.rank in ranks

    def fail_in(self, method):
        if method == self.method and self.failing:
            msg = f"{method} of rank {comm.rank}"
            raise ValueError(msg)

    def later(self, method, result):
        future = Future()
        try:
            self.fail_in(method)
        except ValueError as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def reset(self, checkpoint_id=None):
        pass

    def prepare_local_plan(self, plan):
        self.fail_in("prepare_local_plan")
        return plan

    def prepare_global_plan(self, plans):
        self.fail_in("prepare_global_plan")
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id):
        return True


class Writer(Faulty, checkpoint.StorageWriter):
    def set_up_storage_writer(self, is_coordinator, *args, **kwargs):
        self.fail_in("set_up_storage_writer")

    def write_data(self, plan, planner):
        self.fail_in("write_data")
        return self.later("write_data_async", [])

    def finish(self, metadata, results):
        self.fail_in("finish")


class Reader(Faulty, checkpoint.StorageReader):
    def __init__(self, metadata, method, ranks):
        super().__init__(method, ranks)
        self.metadata = metadata

    def set_up_storage_reader(self, metadata, is_coordinator, *args, **kwargs):
        self.fail_in("set_up_storage_reader")

    def read_data(self, plan, planner):
        self.fail_in("read_data")
        return self.later("read_data_async", None)

    def read_metadata(self, *args, **kwargs):
        self.fail_in("read_metadata")
        return self.metadata


def state():
    return {"replicated": torch.ones(4, 4), "bytes": [1, 2, 3, 4]}


def save(method, ranks, coordinator):
    checkpoint.save_state_dict(
        state(), Writer(method, ranks), comm, coordinator_rank=coordinator
    )


def load(method, ranks, coordinator):
    values = state()
    reader = Reader(_create_default_local_metadata(values), method, ranks)
    checkpoint.load_state_dict(values, reader, comm, coordinator_rank=coordinator)


def outcome(job, *fault):
    try:
        job(*fault)
    except dcp.CheckpointException as error:
        torchs = checkpoint.CheckpointException(error.step, error.failures)
        return {
            "step": error.step,
            "failures": {
                rank: f"{type(exc).__name__}: {exc}"
                for rank, (exc, _) in error.failures.items()
            },
            "same text as torch": str(error) == str(torchs),
        }
    return "no failure"


def real_files(folder):
    """Save to files and load again; every rank has a tensor of its own."""
    mine = torch.full((3,), float(comm.rank))
    saved = {"replicated": torch.ones(4), f"of {comm.rank}": mine}
    checkpoint.save_state_dict(saved, checkpoint.FileSystemWriter(folder), comm)
    loaded = {name: torch.zeros_like(value) for name, value in saved.items()}
    checkpoint.load_state_dict(loaded, checkpoint.FileSystemReader(folder), comm)
    return all(torch.equal(loaded[name], saved[name]) for name in saved)


folder, faults = json.loads(sys.argv[1])
jobs = {"save": save, "load": load}
seen = [outcome(jobs[job], *fault) for job, *fault in faults]
line = json.dumps({"files": real_files(folder), "seen": seen})
for rank in range(comm.size):  # one at a time, or lines mix
    comm.Barrier()
    if rank == comm.rank:
        print(line, flush=True)
