"""Run a job under mpiexec, each rank with output and exit code of its own.

The launcher mixes the output of the ranks, tells one exit code for all of them,
and ends the others once a rank has failed. So each rank is started by a process
that stays outside MPI, keeps what its rank printed and how it ended, and waits
for the others before it tells the launcher::

    mpiexec -n 4 python apart.py FOLDER job.py      leaves FOLDER/0.out, 0.err,
                                                    0.ended and so on
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mpirun

# Open MPI, MPICH and Intel MPI.
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
SETTLE_S = 5.0  # the launcher's own helpers take a moment to go


@dataclass(frozen=True)
class Job:
    """How a job ended: by rank, None where a rank did not end by itself."""

    codes: list[int | None]
    outs: list[str]
    errs: list[str]
    launcher: str
    returncode: int
    left: list[int]
    timed_out: bool


def run(
    n_ranks: int,
    program: list[str],
    *,
    deadline_s: float = 60.0,
    cwd: str | Path | None = None,
    env: dict[str, str] | None = None,
) -> Job:
    """Run a job; processes that it leaves behind are told, and killed."""
    with tempfile.TemporaryDirectory() as name:
        process = mpirun.start(
            n_ranks,
            [__file__, name, str(n_ranks), str(deadline_s), *program],
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        timed_out, left = False, []
        try:
            launcher, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            mpirun.end_session(process)
            launcher, _ = process.communicate()
        else:
            deadline = time.monotonic() + SETTLE_S
            while left := mpirun.session_pids(process.pid):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        finally:
            mpirun.kill_session(process.pid)
        folder = Path(name)
        codes: list[int | None] = []
        for rank in range(n_ranks):
            ended = folder / f"{rank}.ended"
            pid, code = json.loads(ended.read_text()) if ended.exists() else (0, None)
            codes.append(code)
            if pid and Path(f"/proc/{pid}").exists():
                left.append(pid)

        def read(suffix: str) -> list[str]:
            paths = [folder / f"{rank}.{suffix}" for rank in range(n_ranks)]
            return [p.read_text(errors="replace") if p.exists() else "" for p in paths]

        return Job(
            codes,
            read("out"),
            read("err"),
            launcher,
            process.returncode,
            left,
            timed_out,
        )


def run_one_rank(folder: Path, n_ranks: int, wait_s: float, program: list[str]) -> int:
    """Start one rank, note how it ended, and wait for the others."""
    rank = next(os.environ[name] for name in RANK_VARIABLES if name in os.environ)
    with (
        (folder / f"{rank}.out").open("wb") as out,
        (folder / f"{rank}.err").open("wb") as err,
        # MPICH reaches its launcher through a file that it inherits.
        subprocess.Popen(
            [sys.executable, *program], stdout=out, stderr=err, close_fds=False
        ) as process,
    ):
        code = process.wait()
    part = folder / f"{rank}.part"
    part.write_text(json.dumps([process.pid, code]))
    part.rename(folder / f"{rank}.ended")
    deadline = time.monotonic() + wait_s
    while len(list(folder.glob("*.ended"))) < n_ranks and time.monotonic() < deadline:
        time.sleep(0.01)
    return code & 0xFF  # a signal, negative, is a failure as well


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(run_one_rank(Path(given[0]), int(given[1]), float(given[2]), given[3:]))
