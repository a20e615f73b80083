"""Regions on different communicators, open within each other.

Owns what a rank knows of its open regions across communicators: which failure
must wake it where, and what is given up together. A region on B within a region
on A, where B's group lies within A's::

    rank 1 fails in A before it reaches B    beacon of A -----> ranks 0, 2
    ranks 0, 2 wait in B's agreement         given up: rank 1 will never come
    all meet in A's agreement                everything within A is given up

**An agreement on B is a numbered gate** (see `gates`) for A: a rank that hears of
A's failure leaves B's agreement only if a member of B announced that it entered
fewer of them. Otherwise all have entered or will, and it ends. So B's agreement
ends on all its members or on none, and the collectives that follow a failed one
need no watching.

All ranks of B must use one kind of reduction, wherever they stand in it. Where
regions on two communicators of the same ranks are within each other, A, B and A again,
some may stand in the outermost one, which nothing is around: so before B is entered
there, the ranks agree that the agreements on A are gates from then on
(`Private.has_twin`).

**When A has failed**, its ranks agree on which communicators within it some of them have
entered meanwhile, and give up the private communicators of those. Those with a region
open around the one that failed are made anew at once, by all their ranks, which have all
come to A's agreement. The others are forgotten, and the next guard on B makes a new one.
What no rank has entered is in step, and may be in use by another thread.

**An announcement tells the depth** of the region that failed, for a rank that is
behind may still be outside of it: a region on B ends only for the failure of one
that is around it. Regions on B within one on A that has failed, once that is
settled, end as those on A do: without an agreement.

Where B reaches outside of A, B's other members know nothing of A: its agreement
is not woken by A's failure and comes first. What ranks do that wait for each other
then, in the two agreements, is the business of `impasse`. It needs a region around
both; without one, only a deadline ends that.
"""

from __future__ import annotations

from _thread import get_ident  # `threading` takes a millisecond to load
from typing import TYPE_CHECKING

from allraise.plain import OPEN
from allraise.verdict import TO_WAKE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpi4py import MPI

    from allraise.private import Cell, Opened, Private
    from allraise.waits import Beside


def cell_here() -> Cell:
    """Return where this thread keeps its innermost open region."""
    return OPEN.setdefault(get_ident(), [None])


def open_sides() -> list[Private]:
    """Return the side of each open region of this thread, outermost first.

    Not those of one rank: nobody else knows of them, and they end nothing.
    """
    opened, found = cell_here()[0], []
    while opened is not None:
        if opened[0].size > 1:
            found.append(opened[0])
        opened = opened[4]
    return found[::-1]


def past_one_rank(opened: Opened | None) -> Opened | None:
    """Return a region, or the first around it that is of several ranks.

    Not collective.
    """
    while opened is not None and opened[0].size == 1:
        opened = opened[4]
    return opened


def is_nested(private: Private, around: Opened | None) -> bool:
    """Tell whether a region lies in one elsewhere, of several ranks. Not collective.

    Args:
        private: Its side.
        around: The region around it in its thread.
    """
    if around is None or around[0] is private:
        return False
    beyond = past_one_rank(around)
    if beyond is None or beyond[0] is not private:
        return beyond is not None
    # Where others are not within a region yet they ask at its beginning.
    return private.asking != TO_WAKE and is_part(around[0])


def is_part(private: Private) -> bool:
    """Tell whether a side is this rank's part of what others share. Not collective.

    Where a communicator is split into parts, and this rank's has no other, the others
    are within a region of theirs. But nobody else knows of one on `COMM_SELF`.
    """
    if private.size > 1:
        return False
    from mpi4py import MPI

    return bool(private.handle != MPI.COMM_SELF.handle)


def depth_outside(root: Private) -> int:
    """Return how many regions of the outermost side are around all on others here.

    Not collective. Alike on ranks whose part of a communicator is of one or of several.
    """
    opened, depth, is_other_within = cell_here()[0], 0, False
    while opened is not None:
        side = opened[0]
        if side is not root:
            is_other_within = is_other_within or side.size > 1 or is_part(side)
        elif is_other_within:
            depth, is_other_within = 1, False
        else:
            depth += 1
        opened = opened[4]
    return depth


def note_nested(private: Private) -> None:
    """Note that the region just opened lies in one elsewhere. Not collective."""
    around = tuple(enclosing(private.group, private))
    for side in around:
        side.note_entered(private)
    if around:
        private.was_nested = True
        # Without an agreement: asked at a region further in, a rank may wait elsewhere, on
        # the `g.comm` of one around. Who fails before needs it only to revoke.
        if not private.channel.revokes:
            private.wakes = True
    private.watched_before.append(private.watched)
    _watch(private, around)


def close_region(opened: Opened, *, n_within: int) -> None:
    """Note that an innermost region closes. Not collective.

    Args:
        opened: The region.
        n_within: How many regions count from then on in the one around it.
    """
    private, _, _, _, around, outer, cell = opened
    private.n_within = n_within
    private.innermost = outer
    cell[0] = around
    if is_nested(private, around):
        _watch(private, private.watched_before.pop())
    elif private.skips and past_one_rank(around) is None:
        private.skips = False
        private.beacon.standing.set_skips(skips=False)
        private.note_plain()


def is_within(size: int, group: MPI.Group | None) -> bool:
    """Whether a region may open here: within the outermost one. Not collective."""
    root = outermost()
    if size == 1 or root is None:
        return True
    return root.size > 1 and (root.group is None or contains(root, group))


def innermost() -> Private | None:
    """Return the side of the innermost open region of several ranks, if any."""
    return next((s for s in reversed(open_sides()) if s.beacon is not None), None)


def watch_nothing(private: Private) -> None:
    """Let nothing end the agreement that follows. Not collective.

    The innermost region notes again what it watches when it closes.
    """
    _watch(private, ())


def is_open(opened: Opened) -> bool:
    """Tell whether a region has not been closed since. Not collective."""
    known = opened[6][0]
    while known is not opened:
        if known is None:
            return False
        known = known[4]
    return True


def cut_back(opened: Opened) -> bool:
    """Forget the regions that were left open within one. Not collective.

    A signal's handler may raise where a guard's ``__exit__`` begins: then that
    never runs, and the region is still open when the one around it closes.

    Args:
        opened: The region that closes.

    Returns:
        Whether it was open. If not, one around it has closed before, as it does
        where blocks of coroutines overlap, and nothing is changed.
    """
    private, cell = opened[0], opened[6]
    if not is_open(opened):
        return False
    sides = {private}
    inner = cell[0]
    while inner is not None and inner is not opened:
        side = inner[0]
        side.innermost, side.n_within = inner[5], inner[3]
        sides.add(side)
        inner = inner[4]
    private.innermost = opened
    for side in sides:
        n_nested, kept = 0, opened
        while (around := kept[4]) is not None:
            n_nested += kept[0] is side and is_nested(side, around)
            kept = around
        before = side.watched_before[n_nested:]
        del side.watched_before[n_nested:]
        if before:
            _watch(side, before[0])
    cell[0] = opened  # last, for a handler may raise before, and then it is done again
    return True


def _watch(private: Private, around: tuple[Private, ...]) -> None:
    private.watched = around
    private.note_plain()
    if private.channel is not None:
        beside = passed_on(private, around)
        private.beacon.enclosing = (*beside, *(side.beacon for side in around))
        if private.channel is not private.beacon:
            private.channel.enclosing = tuple(side.channel for side in around)


def passed_on(private: Private | None, around: Sequence[Private]) -> list[Beside]:
    """Return the channels whose news this rank passes on while it waits elsewhere.

    Not collective. Those of regions around that do not contain what it waits for, where
    that is listened to at all, and news goes from rank to rank.

    Args:
        private: The side on which it waits, if it is known.
        around: Those that contain it.
    """
    sides = [
        side
        for side in dict.fromkeys(open_sides() if around else ())
        if side is not private and side not in around and side.beacon.needs_relay
    ]
    if not sides:
        return []
    from allraise.waits import Beside  # late: it is loaded with a channel

    return [Beside(side.beacon) for side in sides]


def enclosing(group: MPI.Group | None, private: Private | None = None) -> list[Private]:
    """Return the sides of the open regions that contain a group, innermost first.

    Not collective. The outermost one is the last, also where it is open again within.

    Args:
        group: Of the communicator in question.
        private: Its side, which does not enclose itself.
    """
    sides = dict.fromkeys(open_sides())
    found = [side for side in sides if side is not private and contains(side, group)]
    return found[::-1]


def outermost() -> Private | None:
    """Return the side of the outermost open region of several ranks, if any."""
    return next(iter(open_sides()), None)


def watch_anew() -> None:
    """Have open regions watch the channels that others have now. Not collective."""
    for side in open_sides():
        _watch(side, side.watched)


def contains(outer: Private, group: MPI.Group | None) -> bool:
    """Return whether a communicator's group contains another. Not collective."""
    if outer.group is None or group is None or outer.beacon is None:
        return False
    from mpi4py import MPI

    common = MPI.Group.Intersection(group, outer.group)
    n_common = common.Get_size()
    common.Free()
    return bool(n_common == group.Get_size())
