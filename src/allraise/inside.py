"""What lies within an open region: communicators of some of its ranks, or of all.

Owns which of them a rank that fails must tell of or revoke, what is given up when a
region has failed, and what becomes of those that the user frees meanwhile::

    freed in an open region    kept until that closes, for others may wait on it
    its region has failed      what a rank has entered in it is given up by all
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allraise.nesting import contains, enclosing, open_sides
from allraise.registry import forget, registered

if TYPE_CHECKING:
    from allraise.private import Private

# What is kept so may be many, where a program makes and frees in a loop, and MPI has
# some thousand communicators.
MAX_KEPT: Final = 64


def within(private: Private) -> list[Private]:
    """Return the other sides whose group lies within this one's. Not collective.

    Also those that the user has freed in an open region.
    """
    kept = [side for opened in open_sides() for side in opened.to_free]
    return [
        side
        for side in (*registered(), *kept)
        if side is not private and side.size > 1 and contains(private, side.group)
    ]


def keep_until_closed(private: Private) -> bool:
    """Keep a side whose communicator the user frees while a region is open.

    Not collective. The regions that are open on it end as any. And a rank that fails in
    one around, and frees this one as it cleans up, has to tell those who wait for it
    here how far it came.

    Returns:
        Whether it is kept, until the outermost of these regions here closes.
    """
    around = [private] if private.innermost is not None else []
    if not around and private.size > 1:
        around = enclosing(private.group, private)
    if not around:
        return False
    holder = around[-1]
    holder.to_free.append(private)
    holder.note_plain()
    closed = [side for side in holder.to_free if side.innermost is None]
    if len(closed) > MAX_KEPT:
        oldest = closed[0]
        holder.to_free.remove(oldest)
        if oldest.gates is not None:
            for side in open_sides():
                side.entered.discard(oldest.gates.ident)  # there is nothing to give up
        free_duplicates(oldest)
    return True


def give_up_within(private: Private, depth: int, entered: set[int]) -> list[Private]:
    """Give up what was used within a region that has failed. Not collective.

    All its ranks call this alike, after the agreement. Not what other threads use: a
    checkpoint that is saved in the background goes on when a step has failed.

    Args:
        private: Its side.
        depth: Of the region that failed.
        entered: Idents of what a rank has entered within it.

    Returns:
        What must be made anew, for it has a region around that one.
    """
    around = _around(private, depth)
    used = [s for s in within(private) if s.gates and s.gates.ident in entered]
    for side in used:
        if side not in around:
            forget(side)
        for holder in open_sides():
            if side in holder.to_free:
                holder.to_free.remove(side)  # for good: others may send to it still
        side.channel.abandon()
        if side.beacon is not side.channel:
            side.beacon.abandon()
    return [side for side in around if side in used]


def _around(private: Private, depth: int) -> list[Private]:
    """Return the other sides with a region around one of this, outermost first."""
    found: list[Private] = []
    n_open = 0
    for side in open_sides():
        n_open += side is private
        if n_open == depth:
            break
        if side is not private and side not in found and side.size > 1:
            found.append(side)
    return found


def within_here(private: Private) -> list[Private]:
    """Return what lies within, and has no region around the innermost here.

    Not collective.
    """
    around = _around(private, private.depth)
    return [side for side in within(private) if side not in around]


def revoked(private: Private, inner: list[Private]) -> list[Private]:
    """Return those within whose lanes a rank that fails must revoke. Not collective.

    A revoke wakes whoever waits there, also another thread that saves in the background
    and has nothing to do with this failure. Who waits for this rank cannot be known here;
    but where `wakes` is not set nobody can wait on a lane, and what was never within a
    guard elsewhere, and was used by another thread last, is most likely that thread's.

    Args:
        private: The side that has failed.
        inner: Those within, which have no region around the one that failed.
    """
    return [
        side
        for side in inner
        if side.wakes and (side.was_nested or side.thread == private.thread)
    ]


def free_duplicates(private: Private) -> None:
    """Free what a side communicates on. Not collective, as MPI does it."""
    if private.comm is not None:
        from allraise.impasse import note_freed  # which needs this

        # Others may be about to hear that they have passed the last agreement on it.
        note_freed(private)
        private.channel.close()
        if private.beacon is not private.channel:
            private.beacon.close()
        if private.lifeboat is not None:
            private.lifeboat.Free()
        if private.beacon.is_dirty:
            from allraise.lane import LEAKED  # late, for it is loaded with `channel`

            # MPICH delivers what is left there on the next that gets its number.
            LEAKED.append(private.comm)
        else:
            private.comm.Free()
