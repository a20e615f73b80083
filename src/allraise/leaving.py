"""What a rank tells the others when it has finished its program.

Owns that it is told, and whom. Python's threads stop before MPI_Finalize is called,
which may wait for the other ranks: a rank that is there, for it left a loop too soon,
answers no more. So it tells a few others before, those at the distances 1, 2, 4, ...
on each communicator, and whoever takes a census hears of it from them::

    rank 2                         ranks 0, 1, 3, ...
    ------                         ------------------
    exit functions  -- "left" -->  remember it        no answer is waited for: at the
    threads end                                       end of a good job there is none
    MPI_Finalize    (census: no answer, but the others know why)
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allraise.capture import capture
from allraise.peers import PEERS
from allraise.private import step_of
from allraise.record import clip

if TYPE_CHECKING:
    from allraise.census import Message
    from allraise.peers import Peers

# How long the end of a program may be held up by a network that is gone.
TELL_S: Final = 0.5

MAX_HOW_CHARS: Final = 200


def tell_at_exit() -> None:
    """Have the end of this process's program told. Not collective."""
    atexit.register(tell, os.getpid())


def tell(pid: int) -> None:
    """Tell others that this rank has finished its program.

    Not collective. Nothing is told by a forked child.
    """
    if os.getpid() != pid:
        return
    from allraise.asking import tell_many

    limit = time.monotonic() + TELL_S
    with suppress(Exception):  # the end of a program is no place for an error of ours
        for peers in list(PEERS.values()):
            there = [
                (rank, address)
                for rank in sorted(told_by(peers.private.rank, peers.private.size))
                if (address := peers.address(rank)) is not None
            ]
            tell_many(there, peers.token, last_words(peers), limit - time.monotonic())


def told_by(rank: int, size: int) -> set[int]:
    """Return the ranks that one tells of its end."""
    steps = [1 << k for k in range((size - 1).bit_length())]
    around = {(rank + step) % size for step in steps}
    return (around | {(rank - step) % size for step in steps}) - {rank}


def last_words(peers: Peers) -> Message:
    """Say how the program ended on this rank."""
    opened = peers.private.innermost
    how = ""
    error = getattr(sys, "last_value", None)  # what Python has printed at the end
    if isinstance(error, BaseException):
        link = capture(error).links[0]
        how = f"{link.type_name}: {link.message}".partition("\n")[0]
    return {
        "do": "left",
        "rank": peers.private.rank,
        "how": clip(how, MAX_HOW_CHARS),
        "inner": step_of(opened[1]) if opened is not None else "",
    }
