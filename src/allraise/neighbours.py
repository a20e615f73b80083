"""The other processes of this job on this host, where an abort leaves them alive.

Owns their end under Open MPI's ``--with-ft ulfm``. There ``MPI_Abort`` of 5.0.11
ends the rank that calls it and nobody else, whatever the others do: asleep, in a
barrier, in a receive or in a loop, 8 runs of 8 with 4 ranks on one host. Its launcher
ends when two ranks have, or three, depending on how, and leaves the others behind. Its
exit code is that of a rank that has exited by itself; where all were killed before the
last one aborts it is 0.

So ranks exit by themselves where they can be told to, those that are left are
killed, and who kills exits last.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

# Exits that were asked for come first; a launcher that does not tolerate dead ranks
# ends all of them meanwhile.
EXIT_S: Final = 1.0

POLL_S: Final = 0.02

# How Open MPI 5 names the job, in the environment of all its processes.
JOB: Final = "PMIX_NAMESPACE"

_PR_SET_PDEATHSIG: Final = 1

# Held until this process ends, by the one that was first.
_lock: list[socket.socket] = []


def end_with_launcher() -> None:
    """Have the kernel end this process when the launcher's on its host does.

    Not collective.
    """
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def end_neighbours() -> None:
    """End the other processes of this job on this host; then this one must exit.

    Not collective. Returns at once in all processes but one, which would else kill
    each other: an exit code would be lost.
    """
    job = os.environ.get(JOB)
    if job is None or sys.platform != "linux" or not is_first(job):
        return
    deadline = time.monotonic() + EXIT_S
    while (left := _processes_of(job)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def is_first(what: str) -> bool:
    """Take a name that the kernel gives once on this host, until this process ends.

    Not collective. Where the kernel has no such names, everybody is the first.
    """
    if sys.platform != "linux":
        return True
    digest = hashlib.blake2b(f"{os.getuid()} {what}".encode(), digest_size=16)
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0allraise-{digest.hexdigest()}")
    except OSError:
        name.close()
        return False
    _lock.append(name)
    return True


def _processes_of(job: str) -> list[int]:
    """Return the processes of a job on this host that are not around this one."""
    mark = f"{JOB}={job}".encode()
    found, parents = [], {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (comm) state ppid ...; comm may hold anything
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
            state, parent = fields.split()[:2]
            parents[int(folder.name)] = int(parent)
            # Of another user, or of a process that has ended: not to be read.
            if state != "Z" and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    own: int | None = os.getpid()
    around = set()
    while own is not None and own not in around:
        around.add(own)
        own = parents.get(own)
    return [pid for pid in found if pid not in around]
