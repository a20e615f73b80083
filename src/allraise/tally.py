"""The messages of a communicator, counted by whom they are for and from.

Owns what a rank that waits for a message must know of its peer, to tell whether that is
on its way or can never come (see `standing`, where waits are gates)::

    waits to receive from 0   a gate that 0 has entered if it has sent more than was
                              received from it
    waits to send to 0        one that 0 has entered if it has asked for as many as
                              were sent to it
    waits in Ibarrier, ...    one that all enter, by having begun as many

Others may know of a rank what was so a while ago. So a count only grows; and nobody
passes such a gate before the other rank has entered it. An error on the safe side is to
count too many that were sent or asked for, or too few that were received: these are
counted before the call, and those behind it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from typing import Any, Final

# What a rank waits for.
TO_RECEIVE: Final = 0
TO_SEND: Final = 1
TO_MEET: Final = 2

ANYBODY: Final = -1  # or whatever is negative: MPI's names differ

# In place of a count: of a persistent request, which may be started at any time.
MANY: Final = 1 << 40

_IDENT_BITS: Final = 62

# In place of the number of a message: that of the last one so far.
LATEST: Final = 0

#: the tally, one of the three, the rank in its communicator, and the number of the
#: message or of the collective
Awaited = tuple["Tally", int, int, int]


class Tally:
    """What this rank has sent, asked for, received and begun on one communicator."""

    __slots__ = (
        "_names",
        "asked",
        "begun",
        "comm",
        "ident",
        "received",
        "sent",
        "tags",
    )

    def __init__(self, ident: int, comm: Any) -> None:
        self.ident = ident  # the same on all ranks
        self.comm = comm  # mpi4py's, null when it is freed
        self.sent: defaultdict[int, int] = defaultdict(int)  # by rank
        self.tags: dict[int, int | None] = {}  # of all to a rank; None: of several
        self.asked: defaultdict[int, int] = defaultdict(int)
        self.received: defaultdict[int, int] = defaultdict(int)
        self.begun = 0
        self._names: dict[tuple[int, int, int], int] = {}

    def note_tag(self, dest: int, tag: int) -> None:
        """Note another tag than that of the last message to a rank. Not collective."""
        self.tags[dest] = None if dest in self.tags else tag

    def name(self, kind: int, sender: int = 0, receiver: int = 0) -> int:
        """Return the number of a gate, the same on both ranks. Not collective."""
        key = kind, sender, receiver
        known = self._names.get(key)
        if known is None:
            words = array("q", (self.ident, *key))
            digest = hashlib.blake2b(words.tobytes(), digest_size=8).digest()
            known = int.from_bytes(digest, "big") >> (64 - _IDENT_BITS)
            self._names[key] = known
        return known

    def counts(self) -> dict[int, int]:
        """Return how often this rank has entered such gates, by name.

        Not collective.
        """
        here, counts = self.comm.rank, {}
        for rank in filter(_is_rank, self.sent):
            counts[self.name(TO_RECEIVE, here, rank)] = self.sent[rank]
        for rank in filter(_is_rank, self.asked):
            counts[self.name(TO_SEND, rank, here)] = self.asked[rank]
        if self.begun:
            counts[self.name(TO_MEET)] = self.begun
        return counts

    def asks_anybody(self) -> bool:
        """Tell whether this rank has asked for a message from anybody."""
        return min(filter(_is_rank, self.asked), default=0) < 0

    def has_order(self, dest: int) -> bool:
        """Tell whether messages are received in the order in which they were sent.

        Not collective. With another tag, a later one may be the first.
        """
        return self.tags.get(dest) is not None

    def gate(self, kind: int, rank: int, number: int) -> tuple[int, int]:
        """Return name and number of the gate at which this rank waits.

        Not collective.
        """
        here = self.comm.rank
        if kind == TO_RECEIVE:
            return self.name(kind, rank, here), self.received[rank] + 1
        if kind == TO_SEND:
            return self.name(kind, here, rank), number or self.sent[rank]
        return self.name(kind), number


def _is_rank(given: object) -> bool:
    """Whether a user's argument is a number; if not, MPI has refused it."""
    return hasattr(given, "__index__")
