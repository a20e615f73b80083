"""The messages of a communicator, counted by whom they are for and from.

Owns what a rank that waits for a message must know of its peer, to tell whether that is
on its way or can never come (see `standing`, where waits are gates)::

    waits to receive from 0   a gate that 0 has entered if it has sent more than was
                              received from it
    waits in Ibarrier, ...    one that all enter, by having begun as many

Others may know of a rank what was so a while ago. So a count only grows; and nobody
passes such a gate before the other rank has entered it. An error on the safe side is to
count too many that were sent, or too few that were received: then the rank waits on.

To send is no such wait: a small message that finds a queue full goes when its receiver
makes room, which needs no receive.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from contextlib import suppress
from typing import Any, Final

# What a rank waits for.
TO_RECEIVE: Final = 0
TO_MEET: Final = 1

ANYBODY: Final = -1  # or whatever is negative: MPI's names differ

# In place of a count: of a persistent request, which may be started at any time.
MANY: Final = 1 << 40

_IDENT_BITS: Final = 62

#: the tally, one of the two, and the rank in its communicator, or the number of the
#: collective
Awaited = tuple["Tally", int, int]


class Tally:
    """What this rank has sent, received and begun on one communicator."""

    __slots__ = ("_names", "begun", "comm", "ident", "received", "sent")

    def __init__(self, ident: int, comm: Any) -> None:
        self.ident = ident  # the same on all ranks
        self.comm = comm  # mpi4py's, null when it is freed
        # By rank, as ``int``: what mpi4py takes for one may be a float or an array.
        self.sent: defaultdict[int, int] = defaultdict(int)
        self.received: defaultdict[int, int] = defaultdict(int)
        self.begun = 0
        self._names: dict[tuple[int, int, int], int] = {}

    def note_sent(self, dest: object, n: int = 1) -> None:
        """Count what may have been sent, perhaps twice. Not collective.

        Args:
            dest: As the user gave it: MPI may have refused it.
            n: How much.
        """
        with suppress(Exception):
            self.sent[int(dest)] += n  # type: ignore[call-overload]

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
        here = self.comm.rank
        counts = {self.name(TO_RECEIVE, here, rank): n for rank, n in self.sent.items()}
        if self.begun:
            counts[self.name(TO_MEET)] = self.begun
        return counts

    def gate(self, kind: int, what: int) -> tuple[int, int]:
        """Return name and number of the gate at which this rank waits.

        Not collective.
        """
        if kind == TO_RECEIVE:
            return self.name(kind, what, self.comm.rank), self.received[what] + 1
        return self.name(kind), what
