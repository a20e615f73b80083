"""Which rank ends a region whose time has passed: one, whoever can answer.

Owns how it is found, and what ranks promise each other so that two never end one
region with two reports. The lowest rank that answers does it. All are asked in
rounds that grow, and within a round at once, so that ranks whose interpreter is held
cost one wait a round, not one each::

    rank 70 asks    0          not if its own timer has written that it is held, or
                               it has told that it has finished its program
                    1 ... 7
                    8 ... 63   nobody? then
                    64 ... 69  nobody? then it leads itself

**Two that lead.** A rank that was only slow finds that another leads already. Who
leads says so to every rank that it asks, before it does anything else. Of two, one
asks the other when that leads already, and then the lower one goes on: a rank that
has heard of a lower one does not become final any more. Unless it was final
before: that is answered, and the lower one stops.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from allraise.stall import has_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allraise.census import Address
    from allraise.peers import Ident, Peers

# How soon who is asked must answer. Too short does no harm: who is late finds that
# another leads.
LEADER_S: Final = 1.5

GROWTH: Final = 8


class Claims:
    """Who leads in which region, as far as one rank knows. Not collective."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._lock = threading.Lock()  # all of this is done by helper threads
        self._lowest: dict[Ident, int] = {}
        self._final: set[Ident] = set()

    def claim(self, ident: Ident) -> bool:
        """Lead, unless this rank does so already, or a lower one."""
        with self._lock:
            if self._lowest.get(ident, self._rank + 1) <= self._rank:
                return False
            self._lowest[ident] = self._rank
            return True

    def hear(self, ident: Ident, rank: int) -> bool:
        """Take in that another rank leads; return whether it must stop."""
        with self._lock:
            known = self._lowest.get(ident, rank)
            self._lowest[ident] = min(known, rank)
            return ident in self._final or known == self._rank < rank

    def make_final(self, ident: Ident) -> bool:
        """Decide to end the region, unless a lower rank leads by now."""
        with self._lock:
            if self._lowest.get(ident) != self._rank:
                return False
            self._final.add(ident)
            return True


def rounds(rank: int) -> Iterator[range]:
    """Go through the ranks below one, in the rounds in which they are asked."""
    low, high = 0, 1
    while low < rank:
        yield range(low, min(high, rank))
        low, high = high, high * GROWTH


def is_held(address: Address) -> bool:
    """Tell whether it is known here that an interpreter is held, or very late."""
    here = address.host == os.uname().nodename
    return here and has_written(address.pid, address.stall)


def find_leader(
    peers: Peers, question: dict[str, Any], is_open: Callable[[], bool]
) -> int:
    """Have the lowest rank that answers take the census.

    Not collective. Runs in a helper thread.

    Args:
        peers: The ranks.
        question: Has a rank lead.
        is_open: Whether the region is still there; if not, nobody is asked more.

    Returns:
        The rank; this one, which has to do it then, if no lower one answers.
    """
    from allraise.asking import ask, ask_many

    for ranks in rounds(peers.private.rank):
        if not is_open():
            break
        known = {rank: peers.address(rank) for rank in ranks}
        there = {
            rank: address
            for rank, address in known.items()
            if address and rank not in peers.left and not is_held(address)
        }
        answering = list(there)
        if len(there) > 1:  # else the question itself shows it
            ping = {"do": "ping"}
            answering = sorted(ask_many(there.items(), peers.token, ping, LEADER_S))
        for rank in answering:
            if ask(there[rank], peers.token, question, LEADER_S):
                return rank
    return peers.private.rank
