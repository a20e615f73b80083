"""What the ranks show each other at a gate: a slot each.

Owns where the slots of a communicator are. With few ranks a gate is an ``Iallgather`` of
all slots, which takes no longer than an ``Ibarrier``, and for what is small nothing is
left to be done behind it; with more, the slots are exchanged behind the gate::

    this rank's slot -> gate                         -> all slots     up to 16 ranks
                     -> gate -> Allgather            -> all slots     up to 64
                                                        none          above

A slot is a word and what belongs to it. The word says what is in it; 0, that there is
nothing: so it is while no operation has put anything there. See `_gated.c` for that of
collectives on buffers, `scalars` and `broadcast` for theirs.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from allraise.kinds import mpi
from allraise.moving import gated

if TYPE_CHECKING:
    from allraise.moving import Course

# Bytes of a slot, and of the word it begins with: enough for a number, a name, a path.
SLOT: Final = 128
HEAD: Final = 8

# With so many ranks a gate has slots: each sends its own to every other one, so beyond
# this it would take longer than one that has none.
MAX_AT_GATE: Final = 16

# With so many they are exchanged at all: beyond, a tree takes less.
MAX_RANKS: Final = 64

# What a word is of, in its second byte; 1 and 2 are in `_gated.c`.
OF_BROADCAST: Final = 3 << 8
OF_NUMBERS: Final = 4 << 8

# A slot has so many words.
WORDS: Final = SLOT // 8

pack: Final = struct.Struct(f"<Q{SLOT - HEAD}s").pack


class Slots:
    """The slots of a communicator, and views of them.

    Args:
        n: Its ranks.
    """

    __slots__ = ("found", "given", "is_at_gate", "mine")

    def __init__(self, n: int) -> None:
        self.is_at_gate = n <= MAX_AT_GATE
        mine, found = bytearray(SLOT), bytearray(SLOT * n)
        # With their types: to find them takes mpi4py half a microsecond.
        self.given = [mine, SLOT, mpi().BYTE], [found, SLOT, mpi().BYTE]
        self.mine, self.found = Views(mine), Views(found)

    def exchange(self, comm: Any, operation: str) -> None:
        """Show all ranks this one's slot. Collective over `comm`."""
        if self.is_at_gate:
            late = comm.gate(comm, operation)
            if late is not None:
                raise late
            return
        gated(comm, operation, comm.plain.Allgather, self.given, self._exchange)

    def _exchange(self, course: Course) -> None:
        course.once(0, None, course.comm.plain.Allgather, *self.given)


class Views:
    """The same memory as bytes, as whole numbers, and as others."""

    __slots__ = ("data", "reals", "words")

    def __init__(self, memory: bytearray) -> None:
        self.data = memoryview(memory)
        self.words = self.data.cast("q")
        self.reals = self.data.cast("d")
