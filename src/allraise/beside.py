"""What a job has beside its report while it runs: the spool, and what carries.

Owns the choice of their folders, which one rank makes for all: ranks on other nodes
may see other folders, and one that failed alone would leave the rest in the broadcast.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from allraise.carrier import FileCarrier, MessageCarrier
from allraise.paths import expand_path, folder_for, job_id
from allraise.publishing import write_error_stream
from allraise.spool import Spool, folder_of, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.carrier import Carrier


class NoFolderError(Exception):
    """There is no folder for a job; raised on every rank of it."""


def make_spool(comm: MPI.Intracomm, template: str) -> Spool:
    """Make what dying ranks leave things in, and have guards use it.

    Collective over comm.

    Args:
        comm: All ranks.
        template: The path of the report, with its placeholders.

    Raises:
        NoFolderError: On every rank.
    """
    folder, there = _chosen_by_root(comm, lambda: _spool_folder(template))
    spool = Spool(Path(folder), comm.Get_rank(), comm.Get_size(), Path(there))
    use(spool)
    return spool


def _spool_folder(template: str) -> tuple[str, str]:
    """Return the folder, which is made when it is needed, and the one that is there."""
    path = expand_path(template, "", job_id(os.environ))
    there = folder_for(path)
    folder = folder_of(path).absolute()
    if there is None:
        there = Path(tempfile.gettempdir())
        folder = there / f"{folder.name}-{os.getpid()}"
        write_error_stream(f"allraise: what dying ranks leave goes to {folder}\n")
    return str(folder), str(there)


def make_carrier(
    comm: MPI.Intracomm, template: str, *, threads_may_call: bool
) -> Carrier:
    """Make what carries between helper threads.

    Collective over comm.

    Args:
        comm: All ranks.
        template: The path of the report, with its placeholders.
        threads_may_call: Whether they may call MPI.

    Raises:
        NoFolderError: On every rank.
    """
    if threads_may_call:
        return MessageCarrier(comm)
    (folder,) = _chosen_by_root(comm, lambda: (_carrier_folder(template),))
    return FileCarrier(Path(folder), comm.Get_rank(), comm.Get_size())


def _carrier_folder(template: str) -> str:
    """Return one beside the report, where all ranks are likely to see it."""
    there = folder_for(expand_path(template, "", job_id(os.environ)))
    name = f".allraise-{os.getpid()}-{time.time_ns():x}"
    return str((there or Path(tempfile.gettempdir())) / name)


def _chosen_by_root(
    comm: MPI.Intracomm, choose: Callable[[], tuple[str, ...]]
) -> tuple[str, ...]:
    """Have rank 0 choose, and all ranks know what, or fail alike. Collective over comm.

    All that one rank does alone is done in here, so that it cannot leave the others
    in the broadcast.
    """
    chosen: tuple[str, ...] = ()
    problem = ""
    if comm.Get_rank() == 0:
        try:
            chosen = choose()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
    chosen, problem = comm.bcast((chosen, problem), 0)
    if problem:
        msg = f"no folder for what dying ranks leave: {problem}"
        raise NoFolderError(msg)
    return chosen
