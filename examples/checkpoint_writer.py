"""Write a checkpoint that is there whole, or not at all.

Each rank writes its shard of a NumPy state and brings it to disk. Rank 0 then
publishes an index by an atomic rename, but only if every rank has succeeded.
What is published is read again and compared::

    $ mpiexec -n 4 python examples/checkpoint_writer.py checkpoints
    checkpoint 1: 4 shards published, read back and equal

With ``--fail-ranks`` those ranks run out of quota in the middle of their shard.
Then nothing is published, rank 0 shows every failure, the previous checkpoint
is still there, and every rank ends with exit code 1::

    $ mpiexec -n 4 python examples/checkpoint_writer.py checkpoints --fail-ranks 1,3
    CheckpointException ranks:dict_keys([1, 3])
    Traceback (most recent call last): (RANK 1)
      File "examples/checkpoint_writer.py", line 74, in write_shard
        file.write(shard.data)
    OSError: [Errno 27] File too large
    Traceback (most recent call last): (RANK 3)
      ...
    OSError: [Errno 27] File too large

    checkpoint 2: nothing published
    checkpoint 1: 4 shards still read back and equal

(The frames of ``save`` and ``main`` are left out here.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

import allraise

if TYPE_CHECKING:
    from collections.abc import Iterator

N_VALUES = 100_000  # of each rank: 800 kB
QUOTA_BYTES = 256 * 1024  # of a rank that runs out of it


def make_state(rank: int, number: int) -> np.ndarray:
    """Stand in for what a real job has computed."""
    return np.random.default_rng((rank, number)).normal(size=N_VALUES)


@contextlib.contextmanager
def quota(n_bytes: int | None) -> Iterator[None]:
    """Let no file grow beyond a size, as a full quota does, for root as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes or soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_shard(path: Path, shard: np.ndarray) -> dict[str, Any]:
    """Write one rank's part and bring it to disk; return its index entry."""
    with path.open("wb") as file:
        file.write(shard.data)
        file.flush()
        os.fsync(file.fileno())
    return {"file": path.name, "size": shard.size, "crc": zlib.crc32(shard.data)}


def sync_folder(path: Path) -> None:
    """Bring to disk which files a folder has."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def publish(root: Path, number: int, entries: list[dict[str, Any]] | None) -> None:
    """Make a checkpoint the current one, in one step that cannot be half done."""
    sync_folder(root / f"checkpoint-{number}")
    part = root / ".index.json.part"
    with part.open("w") as file:
        json.dump({"number": number, "shards": entries}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(root / "index.json")
    sync_folder(root)


def save(comm: MPI.Intracomm, root: Path, number: int, limit: int | None) -> None:
    """Write a checkpoint, whole or not at all. Collective over comm."""
    shard = make_state(comm.rank, number)
    folder = root / f"checkpoint-{number}"
    try:
        with allraise.guard(comm, "write shards"):
            folder.mkdir(parents=True, exist_ok=True)
            with quota(limit):
                entry = write_shard(folder / f"shard-{comm.rank}.bin", shard)
    except allraise.CheckpointException:
        # Every rank comes here, and none is writing any more.
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    entries = comm.gather(entry)
    with allraise.guard(comm, "publish"):
        if comm.rank == 0:
            publish(root, number, entries)


def current(comm: MPI.Intracomm, root: Path) -> int:
    """Return the number of the published checkpoint, or 0. Collective over comm."""
    index = root / "index.json"
    number = 0
    with allraise.guard(comm, "look for the index"):
        if comm.rank == 0 and index.exists():
            number = json.loads(index.read_text())["number"]
    return comm.bcast(number)


def check(comm: MPI.Intracomm, root: Path) -> int:
    """Read the published checkpoint and compare it. Collective over comm."""
    number = current(comm, root)
    with allraise.guard(comm, "read back"):
        shards = json.loads((root / "index.json").read_text())["shards"]
        if len(shards) != comm.size:
            msg = f"checkpoint {number} is of {len(shards)} ranks"
            raise ValueError(f"{msg}, this job has {comm.size}")
        entry = shards[comm.rank]
        shard = np.fromfile(root / f"checkpoint-{number}" / entry["file"])
        assert zlib.crc32(shard.data) == entry["crc"], "the shard was damaged"
        np.testing.assert_array_equal(shard, make_state(comm.rank, number))
    return number


def main() -> int:
    """Write one checkpoint; the exit code is the same on every rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the checkpoints")
    parser.add_argument("--fail-ranks", default="", help="such as 1,3")
    options = parser.parse_args()
    failing = [int(rank) for rank in options.fail_ranks.split(",") if rank]

    comm = MPI.COMM_WORLD
    say = print if comm.rank == 0 else lambda *_args, **_options: None
    number = current(comm, options.root) + 1
    limit = QUOTA_BYTES if comm.rank in failing else None
    code, words = 0, "published,"
    try:
        save(comm, options.root, number, limit)
    except allraise.CheckpointException as failure:
        say(failure)
        if current(comm, options.root) != number:
            say(f"checkpoint {number}: nothing published")
        code, words = 1, "still"
    if code == 0 or number > 1:
        try:
            number = check(comm, options.root)
        except allraise.CheckpointException as failure:
            say(failure.report, end="")
            return 1
        say(f"checkpoint {number}: {comm.size} shards {words} read back and equal")
    return code


if __name__ == "__main__":
    sys.exit(main())
