"""When peers are woken, and when the traces of that are cleared away.

Owns the calls into the error channel that the protocol makes. Knows nothing of
reports.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from allraise.inside import give_up_within, revoked, within_here

if TYPE_CHECKING:
    from allraise.private import Private


def announce(private: Private) -> None:
    """Wake the peers that wait for this rank in a region that has failed.

    Not collective, never waits. Never raises: this is between ``except`` and
    the agreement, which every rank comes to that is not blocked elsewhere.
    """
    if private.channel is None:
        return
    # Whatever MPI makes of it: the report matters more, and those who are not
    # woken have their deadline.
    with suppress(Exception):
        inner = within_here(private)
        if private.channel.revokes:
            inner = revoked(private, inner)
            for side in inner:
                private.note_entered(side)  # its lane is of no use any more
        for channel in _channels(private):
            # Who has heard of a failure has nothing to add, most often.
            channel.hear()
            channel.announce([side.channel for side in inner])


def _channels(private: Private) -> list[Any]:
    """Return the channel, and the one by messages where that is another."""
    if private.beacon is private.channel:
        return [private.channel]
    return [private.channel, private.beacon]


def look_outside(private: Private) -> None:
    """Raise if a region around this one, on another communicator, has failed.

    Not collective.

    Raises:
        PeerFailure: It has.
        BaseException: What is settled there, while this rank is on its way out.
    """
    for side in reversed(private.watched):
        if side.settled is not None:
            raise side.settled[1]
        side.beacon.hear()
        if side.beacon.has_failed_around:
            operation = "a region within its own"
            raise side.beacon.interruption(side.beacon.failed_rank, operation)


def tell_outside(private: Private) -> None:
    """Tell the ranks around that this one enters no further gate here.

    Not collective.
    """
    for side in private.watched:
        if side.beacon.has_failed_around:
            side.beacon.announce()


def _entered_by_any(private: Private) -> set[int]:
    """Return what a rank has entered within the open region, by ident.

    Collective over comm. An Allreduce more than there are: few, most often one.
    """
    from mpi4py import MPI

    is_open = private.entered_in is private.opened()[0]
    left, found = sorted(private.entered) if is_open else [], set[int]()
    mine, most = array("q", [0]), array("q", [0])
    while True:
        mine[0] = left[-1] if left else 0
        private.comm.Allreduce(mine, most, MPI.MAX)
        if not most[0]:
            return found
        found.add(most[0])
        if mine[0] == most[0]:
            left.pop()


def clear(private: Private, depth: int) -> None:
    """Receive what is still under way, and give up what lay within.

    Collective over comm, right after an agreement that a rank has failed.

    Args:
        private: This rank's side.
        depth: Of the region that failed.
    """
    if private.channel is None:
        return
    for channel in _channels(private):
        channel.drain()
    for side in give_up_within(private, depth, _entered_by_any(private)):
        from allraise.creation import renew  # by whom this one was made

        renew(side, private)
