"""The survivors of a death come together, without a collective.

Owns how ranks that agree on nothing any more, not even on who is dead, bring what
they know to one of them, by messages on the lifeboat::

    every survivor --- record ---> the lowest rank not known to be dead
                   <--- heard ----
    or, if that one is dead too, or does not come in time, to the next

"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from allraise.private import Private

# How long the others wait for a survivor that does not come to MPI.
ARRIVE_S: Final = 10.0

POLL_S: Final = 0.002

# On the lifeboat, where there is no other traffic.
TAG_RECORD: Final = 1
TAG_HEARD: Final = 2


def dead_ranks(private: Private) -> set[int]:
    """Return which ranks are known to be dead, here. Not collective."""
    from mpi4py import MPI

    comm = private.lifeboat
    comm.Ack_failed()
    failed, own = comm.Get_failed(), comm.Get_group()
    try:
        return set(MPI.Group.Translate_ranks(failed, None, own))
    finally:
        if failed != MPI.GROUP_EMPTY:
            failed.Free()
        own.Free()


class Meeting:
    """The survivors of a communicator, as one of them meets the others.

    Not collective.

    Attributes:
        dead: The ranks that are known to be dead.

    Args:
        side: Whose lifeboat they meet on.
        data: What this rank knows.
    """

    def __init__(self, side: Private, data: bytes) -> None:
        self.dead: set[int] = set()
        self._side = side
        self._comm = side.lifeboat
        self._data = data
        self._passed_over: set[int] = set()
        self._under_way: list[object] = []

    def meet(self) -> dict[int, bytes] | None:
        """Come together.

        Returns:
            What the others know, on the rank that leads; None on another.
        """
        self._look()
        while True:
            leader = min(
                rank
                for rank in range(self._side.size)
                if rank == self._side.rank
                or not (rank in self.dead or rank in self._passed_over)
            )
            if leader == self._side.rank:
                return self._collect()
            if self._hand_in(leader):
                return None
            self._passed_over.add(leader)

    def _look(self) -> None:
        with suppress(Exception):
            self.dead |= dead_ranks(self._side)

    def _send(self, dest: int, data: bytes, tag: int) -> None:
        from mpi4py import MPI

        with suppress(MPI.Exception):  # it has died as well
            request = self._comm.Isend([data, MPI.BYTE], dest, tag)
            self._under_way.append((request, data))

    def _receive(self, source: int, tag: int) -> bytes | None:
        from mpi4py import MPI

        try:
            status = MPI.Status()
            message = self._comm.Improbe(source, tag, status)
            if message is None:
                return None
            data = bytearray(status.Get_count(MPI.BYTE))
            message.Recv([data, MPI.BYTE])
        except MPI.Exception:  # it has died as well
            return None
        return bytes(data)

    def _hand_in(self, leader: int) -> bool:
        """Tell the leader what this rank knows; whether it has heard."""
        self._send(leader, self._data, TAG_RECORD)
        deadline = time.monotonic() + ARRIVE_S
        while leader not in self.dead and time.monotonic() < deadline:
            if self._receive(leader, TAG_HEARD) is not None:
                return True
            time.sleep(POLL_S)
            self._look()
        return False

    def _collect(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        deadline = time.monotonic() + ARRIVE_S
        others = set(range(self._side.size)) - {self._side.rank}
        while time.monotonic() < deadline:
            for rank in sorted(others - self.dead - set(found)):
                data = self._receive(rank, TAG_RECORD)
                if data is not None:
                    found[rank] = data
                    self._send(rank, b"", TAG_HEARD)
            if self.dead and others <= self.dead | set(found):
                break
            time.sleep(POLL_S)
            self._look()
        return found
