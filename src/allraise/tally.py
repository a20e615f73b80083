"""The messages of a communicator, counted by whom they are for and from.

Owns what a rank that waits for a message must know of its peer, to tell whether that is
on its way or can never come (see `standing`, where waits are gates)::

    waits to receive from 0   a gate that 0 has entered if it has sent more than was
                              received from it
    waits to send to 0        one that 0 has entered if it has a receive from here
                              under way
    waits in Ibarrier, ...    one that all enter, by having begun as many

An error on the safe side is to have counted too many that were sent, or too few that
were received: then something may be on its way, and the rank waits on. So the former are
counted before, and the latter behind the call.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a rank waits for: with the number of its peer, or of the collective.
TO_RECEIVE: Final = 0
TO_SEND: Final = 1
TO_MEET: Final = 2
# It may also have received: of a persistent one it is not known when.
MAY_RECEIVE: Final = 3

ANYBODY: Final = -1  # or whatever is negative: MPI's names differ

# In place of a count: of a persistent request, which may be started at any time.
MANY: Final = 1 << 40

_IDENT_BITS: Final = 62

#: the tally, one of these, and the rank in its communicator, or a number
Awaited = tuple["Tally", int, int]


class Tally:
    """What this rank has sent, received and begun on one communicator."""

    __slots__ = ("begun", "comm", "ident", "received", "sent")

    def __init__(self, ident: int, comm: Any) -> None:
        self.ident = ident  # the same on all ranks
        self.comm = comm  # mpi4py's, null when it is freed
        self.sent: defaultdict[int, int] = defaultdict(int)
        self.received: defaultdict[int, int] = defaultdict(int)
        self.begun = 0

    def name(self, kind: int, sender: int = 0, receiver: int = 0) -> int:
        """Return the number of a gate, the same on both ranks. Not collective."""
        words = array("q", (self.ident, kind, sender, receiver))
        digest = hashlib.blake2b(words.tobytes(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> (64 - _IDENT_BITS)

    def counts(self, sources: Iterable[int]) -> dict[int, int]:
        """Return which of such gates this rank has entered, by name.

        Not collective.

        Args:
            sources: From whom it has a receive under way.
        """
        here = self.comm.rank
        # A user's argument may be anything: then MPI has refused it.
        sent = ((r, n) for r, n in self.sent.items() if hasattr(r, "__index__"))
        counts = {self.name(TO_RECEIVE, here, r): n for r, n in sent}
        counts |= {self.name(TO_SEND, source, here): 1 for source in sources}
        if self.begun:
            counts[self.name(TO_MEET)] = self.begun
        return counts

    def gate(self, kind: int, what: int) -> tuple[int, int]:
        """Return name and number of the gate at which this rank waits.

        Not collective.
        """
        here = self.comm.rank
        if kind == TO_RECEIVE:
            return self.name(kind, what, here), self.received[what] + 1
        if kind == TO_SEND:
            return self.name(kind, here, what), 1
        return self.name(kind), what
