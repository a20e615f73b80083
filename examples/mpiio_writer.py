"""Write one shared file with MPI-IO that is there whole, or not at all.

A collective write has two traps. A rank that fails before it leaves the others
waiting in it: so everything that can fail on one rank is done before, in a
guard of its own, and no guard holds more than one collective call. And its
return says little: where the process that writes for the others (the
aggregator) meets a full disk, Open MPI 5.0 raises on no rank, MPICH 5.0 on that
rank alone. So every rank reads its part back before rank 0 publishes the file
by an atomic rename::

    $ mpiexec -n 4 python examples/mpiio_writer.py state.bin
    state.bin: 4 parts published and verified

``--fail-ranks`` cuts the input of those ranks short; ``--quota`` lets the file
grow to that many bytes on every rank, as a full quota does. Either way nothing
is published, a file that was there stays as it is, and every rank ends with
exit code 1::

    $ mpiexec -n 4 python examples/mpiio_writer.py state.bin --fail-ranks 1,3
    CheckpointException ranks:dict_keys([1, 3])
    Traceback (most recent call last): (RANK 1)
      ...
    ValueError: input-1.bin holds 50000 values, not 100000
    Traceback (most recent call last): (RANK 3)
      ...
    ValueError: input-3.bin holds 50000 values, not 100000

    state.bin: step 'read input' failed, nothing published
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI

import allraise

N_VALUES = 100_000  # of each rank: 800 kB


def read_input(path: Path) -> np.ndarray:
    """Read what this rank is to write."""
    values = np.fromfile(path)
    if values.size != N_VALUES:
        msg = f"{path.name} holds {values.size} values, not {N_VALUES}"
        raise ValueError(msg)
    return values


def limit_file_size(n_bytes: int | None) -> None:
    """Let no file grow beyond a size; None for no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes or hard, hard))


def write_together(
    comm: MPI.Intracomm, part: Path, values: np.ndarray, limit: int | None
) -> None:
    """Write every rank's values into one file. Collective over comm."""
    mode = MPI.MODE_CREATE | MPI.MODE_WRONLY
    with allraise.guard(comm, "open"):
        file = MPI.File.Open(comm, part, mode)
    limit_file_size(limit)
    try:
        with allraise.guard(comm, "write"):
            file.Write_at_all(comm.rank * values.nbytes, values)
    finally:
        limit_file_size(None)
        with allraise.guard(comm, "close"):  # whatever happened, every rank is here
            file.Close()


def verify(part: Path, rank: int, values: np.ndarray) -> None:
    """Read a rank's part back and compare."""
    written = np.fromfile(part, count=values.size, offset=rank * values.nbytes)
    if not np.array_equal(written, values):
        msg = f"{part} does not hold what rank {rank} wrote"
        raise OSError(msg)


def save(
    comm: MPI.Intracomm, target: Path, source: Path, limit: int | None = None
) -> None:
    """Copy each rank's source into one target. Collective over comm."""
    part = target.with_name(f".{target.name}.part")  # of this target alone
    with allraise.guard(comm, "read input"):
        values = read_input(source)
        if comm.rank == 0:  # what a killed job has left
            part.unlink(missing_ok=True)
    try:
        write_together(comm, part, values, limit)
        with allraise.guard(comm, "verify"):
            verify(part, comm.rank, values)
        with allraise.guard(comm, "publish"):
            if comm.rank == 0:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(target)
    except allraise.CheckpointException:
        if comm.rank == 0:
            part.unlink(missing_ok=True)
        raise


def main() -> int:
    """Write one file; the exit code is the same on every rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="the shared file")
    parser.add_argument("--fail-ranks", default="", help="such as 1,3")
    parser.add_argument("--quota", type=int, help="in bytes")
    options = parser.parse_args()
    failing = [int(rank) for rank in options.fail_ranks.split(",") if rank]

    comm = MPI.COMM_WORLD
    say = print if comm.rank == 0 else lambda *_args, **_options: None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"input-{comm.rank}.bin"
        n_values = N_VALUES // 2 if comm.rank in failing else N_VALUES
        np.random.default_rng(comm.rank).normal(size=n_values).tofile(source)
        try:
            save(comm, options.target, source, options.quota)
        except allraise.CheckpointException as failure:
            say(failure)
            say(f"{options.target}: step {failure.step!r} failed, nothing published")
            return 1
    say(f"{options.target}: {comm.size} parts published and verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
