"""The main job, shown and checked: what ``make demo`` runs.

Starts the checkpoint writer with four ranks twice, once well and once with
ranks 1 and 3 running out of quota, shows what rank 0 prints, and checks that
what must hold does hold::

    $ python examples/demo.py
    == four ranks, all well
    checkpoint 1: 4 shards published, read back and equal
    == four ranks, 1 and 3 run out of quota
    CheckpointException ranks:dict_keys([1, 3])
    Traceback (most recent call last): (RANK 1)
      ...
    == checked
    ok: exit codes of the first run: [0, 0, 0, 0]
    ok: exit codes of the second run: [1, 1, 1, 1]
    ok: rank 0 shows a block for rank 1 and one for rank 3
    ok: nothing was published: there are checkpoint-1, index.json
    ok: the previous checkpoint reads back equal
    ok: no rank was left behind

Exits with 1 if any of it does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import mpirun  # noqa: E402 it lives with the tests

N_RANKS = 4
DEADLINE_S = 120.0
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MPI_RANKID")


def run_one_rank(folder: Path, program: list[str]) -> int:
    """Run one rank, and note what the launcher would not tell: how it ended."""
    rank = next(os.environ[name] for name in RANK_VARIABLES if name in os.environ)
    # MPICH reaches its launcher through a file that it inherits.
    command = [sys.executable, *program]
    with subprocess.Popen(command, close_fds=False) as process:  # noqa: S603
        code = process.wait()
    (folder / f"{rank}.json").write_text(json.dumps([process.pid, code]))
    # The launcher ends the others when one has failed: let them end by themselves.
    deadline = time.monotonic() + DEADLINE_S / 2
    while len(list(folder.iterdir())) < N_RANKS and time.monotonic() < deadline:
        time.sleep(0.01)
    return code


def run_job(checkpoints: Path, *options: str) -> tuple[str, list[int], list[int]]:
    """Run the writer; return its output, the exit codes, and who is still there."""
    with tempfile.TemporaryDirectory() as name:
        program = [str(HERE / "checkpoint_writer.py"), str(checkpoints), *options]
        process = mpirun.start(
            N_RANKS,
            [str(Path(__file__).resolve()), "--one-rank", name, *program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            mpirun.end_session(process)
            raise
        # The launcher's own helpers take a moment to go.
        deadline = time.monotonic() + 5
        while (
            left := mpirun.session_pids(process.pid)
        ) and time.monotonic() < deadline:
            time.sleep(0.05)
        mpirun.kill_session(process.pid)
        ended = [json.loads(path.read_text()) for path in sorted(Path(name).iterdir())]
    if len(ended) != N_RANKS or (process.returncode and not options):
        print(errors, file=sys.stderr)
    left += [pid for pid, _ in ended if Path(f"/proc/{pid}").exists()]
    return output, [code for _, code in ended], left


def read_index(folder: Path) -> bytes:
    """Return the published index, or nothing."""
    index = folder / "index.json"
    return index.read_bytes() if index.exists() else b""


def main() -> int:
    """Run both jobs, show them, and check them."""
    with tempfile.TemporaryDirectory(prefix="allraise demo ") as name:
        folder = Path(name)
        print("== four ranks, all well", flush=True)
        well, well_codes, well_left = run_job(folder)
        print(well, end="")
        before = read_index(folder)
        print("== four ranks, 1 and 3 run out of quota", flush=True)
        failed, codes, left = run_job(folder, "--fail-ranks", "1,3")
        print(failed, end="")
        unchanged = read_index(folder) == before != b""
        found = sorted(path.name for path in folder.iterdir())

    shown = [f"(RANK {rank})" in failed for rank in range(N_RANKS)]
    n_blocks = failed.count("OSError: [Errno 27] File too large\n")
    checks = {
        f"exit codes of the first run: {well_codes}": well_codes == [0] * N_RANKS,
        f"exit codes of the second run: {codes}": codes == [1] * N_RANKS,
        "rank 0 shows a block for rank 1 and one for rank 3": (
            shown == [False, True, False, True] and n_blocks == sum(shown)
        ),
        f"nothing was published: there are {', '.join(found)}": (
            unchanged and found == ["checkpoint-1", "index.json"]
        ),
        "the previous checkpoint reads back equal": (
            f": {N_RANKS} shards still read back and equal" in failed
        ),
        "no rank was left behind": not (well_left or left),
    }
    print("== checked")
    for check, holds in checks.items():
        print(f"{'ok' if holds else 'NOT SO'}: {check}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-rank"]:
        sys.exit(run_one_rank(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(main())
