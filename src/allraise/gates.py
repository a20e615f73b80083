"""The numbered gates of a collective operation, and who will enter them.

Owns the arithmetic of the waking protocol and nothing else: no MPI, no waiting.

A collective on an interruptible communicator is preceded by a *gate*, an
``Ibarrier`` (or what else waits for all, see `slots`) that can be given up.
"Look for an error, then block" is a race: one rank leaves the gate and enters
the real collective, another sees the error first and gives up, and the first
waits for ever. So gates are numbered, and an announcement of a failure carries,
for each communicator, how many gates its sender had entered::

    rank 0   gate 1, gate 2, raises      announces "I entered 2"
    rank 1   gate 1, gate 2, gate 3 ...  2 < 3: gate 3 never opens, give up
    rank 2   gate 1, gate 2 ...          2 >= 2: everyone has entered or will
                                         enter gate 2, so go on waiting

Whoever gives up anything else than a gate (a receive, a send) stops too, and
announces its own numbers where they are lower than what is known. A rank that
gives up at gate s needs not: somebody's number below s is known already, and
its own is s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from allraise.plain import GateCount

if TYPE_CHECKING:
    from allraise.tally import Tally


def new_ident() -> int:
    """Return a number to name a communicator with; not collective.

    From the system, not from ``random``: users seed that alike on all ranks,
    and do not expect it to be drawn from.
    """
    return int.from_bytes(os.urandom(8), "little") >> 2


class Gates(GateCount):
    """How many gates this process has entered on one communicator."""

    __slots__ = ("ident", "tallies")

    def __init__(self, ident: int, entered: int = 0) -> None:
        self.ident = ident  # the same on every member, different for every one
        self.entered = entered
        self.tallies: list[Tally] = []  # of the messages on it, and on its duplicate


class Announced:
    """The lowest gate number announced, by communicator.

    Numbers of communicators this process is not a member of are kept too: it
    passes them on to members.
    """

    __slots__ = ("lowest",)

    def __init__(self) -> None:
        self.lowest: dict[int, int] = {}

    def learn(self, numbers: dict[int, int]) -> dict[int, int]:
        """Take in announced numbers and return those that are news."""
        news = {
            ident: entered
            for ident, entered in numbers.items()
            if entered < self.lowest.get(ident, entered + 1)
        }
        self.lowest.update(news)
        return news

    def closes(self, gates: Gates) -> bool:
        """Whether the gate entered last can never open."""
        return self.lowest.get(gates.ident, gates.entered) < gates.entered
