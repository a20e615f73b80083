"""``os._exit`` before ``MPI_Finalize``: told, because MPICH says nothing of it.

Owns the replacement of ``os._exit`` under ``allraise run``. A C library that calls
``_exit`` itself is not seen.
"""

from __future__ import annotations

import os
import signal
import sys
from traceback import extract_stack, format_list
from typing import TYPE_CHECKING

from allraise.own import is_own_file
from allraise.publishing import write_error_stream
from allraise.viewer import sanitise

if TYPE_CHECKING:
    from typing import NoReturn

#: Python's own.
exit_now = os._exit


def watch_exits(rank: int) -> None:
    """Have ``os._exit`` of this process told. Not collective."""
    pid = os.getpid()

    def tell_and_exit(status: int) -> NoReturn:
        if os.getpid() == pid:  # children end in this way by right
            status = _tell(rank, status)
        exit_now(status)

    os._exit = tell_and_exit


def _tell(rank: int, status: int) -> int:
    """Tell it, and return the status to exit with."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or mpi.Is_finalized():
        return status
    stack = [entry for entry in extract_stack() if not is_own_file(entry.filename)]
    where = sanitise("".join(format_list(stack[-1:])))
    write_error_stream(
        f"allraise: rank {rank} calls os._exit({status}) before MPI_Finalize\n{where}"
    )
    from allraise.ulfm import is_active

    if is_active():
        # An exit is not detected there, and the others would wait for ever; a
        # signal is.
        os.kill(os.getpid(), signal.SIGKILL)
    return status or 1  # MPICH's launcher may take 0 for the end of a good job
