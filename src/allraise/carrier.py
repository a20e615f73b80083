"""How helper threads of different ranks talk: by messages, or by files.

Owns bytes between ranks while the main threads may be blocked in MPI. Knows
nothing of what they mean.

Messages need ``THREAD_MULTIPLE``: below it, MPI called from a helper thread
corrupts the main thread's (5 of 6 stress runs on MPICH). There the carrier is a
folder that all ranks see. It is made when something has gone wrong, not before.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from mpi4py import MPI

TAG: Final = 7  # on a communicator of its own: any would do

CLOSED_POLL_S: Final = 0.02  # of ranks that have nothing else to do any more

# Of the folder, by who has collected: each rank writes there a few times at the end.
MAX_REMOVALS: Final = 10


class Carrier(Protocol):
    """What both kinds do."""

    rank: int
    size: int
    poll_s: float

    def send(self, dest: int, data: bytes) -> None:
        """Send; returns at once."""

    def receive(self) -> list[tuple[int, bytes]]:
        """Return what has come, with the rank it came from."""

    def flush(self, limit_s: float) -> None:
        """Wait until what was sent has left, for no longer than the limit."""

    def close(self) -> None:
        """Leave nothing behind."""

    def wait_closed(self, limit_s: float) -> None:
        """Wait until the rank that collects has done that, no longer than so."""


class MessageCarrier:
    """Messages on a private duplicate, made while all ranks are at one place.

    Collective over comm.
    """

    # Twenty looks a second cost nothing that can be measured.
    poll_s = 0.05

    def __init__(self, comm: MPI.Intracomm) -> None:
        from mpi4py import MPI

        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._comm = comm.Dup()
        self._comm.Set_name("allraise run")
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self._status = MPI.Status()
        self._byte = MPI.BYTE
        self._error = MPI.Exception
        self._under_way: list[tuple[MPI.Request, bytes]] = []

    def send(self, dest: int, data: bytes) -> None:
        """Send to a rank; returns at once."""
        self._look_after_sends()
        with contextlib.suppress(self._error):  # to a rank that has died
            request = self._comm.Isend([data, self._byte], dest, TAG)
            self._under_way.append((request, data))

    def _look_after_sends(self) -> None:
        left = []
        for request, data in self._under_way:
            with contextlib.suppress(self._error):
                if not request.Test():
                    left.append((request, data))
        self._under_way = left

    def receive(self) -> list[tuple[int, bytes]]:
        """Return what has come."""
        found = []
        try:
            while (message := self._comm.Improbe(status=self._status)) is not None:
                data = bytearray(self._status.Get_count(self._byte))
                source = self._status.Get_source()
                message.Recv([data, self._byte])
                found.append((source, bytes(data)))
        except self._error:
            # With ULFM: a rank has died, and nothing is received from any rank
            # until that was acknowledged.
            with contextlib.suppress(self._error, NotImplementedError):
                self._comm.Ack_failed()
        return found

    def flush(self, limit_s: float) -> None:
        """Wait until what was sent has left."""
        deadline = time.monotonic() + limit_s
        while self._under_way and time.monotonic() < deadline:
            self._look_after_sends()
            time.sleep(0.001)

    def close(self) -> None:
        """Do nothing: to free the duplicate would be collective."""

    def wait_closed(self, _limit_s: float) -> None:
        """Wait as long as who collects is likely to take: nothing tells."""
        time.sleep(2 * self.poll_s)


def _order(path: Path) -> tuple[int, int]:
    """Return the sender and the number that a file's name ends in."""
    source, number = path.name.split("-")[-2:]
    return int(source), int(number)


class FileCarrier:
    """Files in a folder that all ranks see.

    Not collective.

    Args:
        folder: The same on all ranks; it need not be there.
        rank: Of this process.
        size: How many there are.
    """

    # Each look is a question to a file system that thousands of ranks share.
    poll_s = 0.25

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._folder = folder
        self._n_sent = 0
        self._seen = False

    def send(self, dest: int, data: bytes) -> None:
        """Write a file; it appears whole or not at all."""
        if not self._folder.exists():
            if self._seen:  # it was removed: the job is over
                return
            self._folder.mkdir(exist_ok=True)
        self._seen = True
        name = f"to-{dest}-from-{self.rank}-{self._n_sent}"
        self._n_sent += 1
        part = self._folder / f".{name}"
        part.write_bytes(data)
        part.replace(self._folder / name)

    def receive(self) -> list[tuple[int, bytes]]:
        """Read the files that are for this rank, in the order of their senders."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._folder.glob(f"to-{self.rank}-from-*"), key=_order):
                found.append((_order(path)[0], path.read_bytes()))
                path.unlink()
                self._seen = True
        return found

    def flush(self, limit_s: float) -> None:
        """Do nothing: it is written."""

    def close(self) -> None:
        """Remove the folder; the collecting rank does it, at the end.

        Again where another rank has written a file there meanwhile.
        """
        for _ in range(MAX_REMOVALS):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                break

    def wait_closed(self, limit_s: float) -> None:
        """Wait until the folder is gone."""
        deadline = time.monotonic() + limit_s
        while self._folder.exists() and time.monotonic() < deadline:
            time.sleep(CLOSED_POLL_S)
