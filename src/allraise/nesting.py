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
regions on two communicators of the same ranks are within each other, some may
stand in the outermost one, which nothing is around: so the agreements on either
are gates from the time that both are known (`Private.has_twin`).

**When A has failed**, every rank gives up its private communicators of the same
thread whose group lies within A's, except A's own: a rule that each rank can apply alone and that
all apply alike. Those with a region open around the one that failed are made anew
at once, by all their ranks, which have all come to A's agreement. The others are
forgotten, and the next guard on B makes a new one.

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
from allraise.registry import forget, registered

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.private import Cell, Opened, Private


def cell_here() -> Cell:
    """Return where this thread keeps its innermost open region."""
    return OPEN.setdefault(get_ident(), [None])


def open_sides() -> list[Private]:
    """Return the side of each open region of this thread, outermost first."""
    opened, found = cell_here()[0], []
    while opened is not None:
        found.append(opened[0])
        opened = opened[4]
    return found[::-1]


def note_nested(private: Private) -> None:
    """Note that the region just opened lies in one elsewhere. Not collective."""
    private.watched_before.append(private.watched)
    _watch(private, tuple(enclosing(private.group, private)))


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
    if around is None:
        if private.skips:
            private.skips = False
            private.beacon.standing.set_skips(skips=False)
            private.note_plain()
    elif around[0] is not private:
        _watch(private, private.watched_before.pop())


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
            n_nested += kept[0] is side is not around[0]
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
        private.beacon.enclosing = tuple(side.beacon for side in around)
        private.channel.enclosing = tuple(side.channel for side in around)


def enclosing(group: MPI.Group | None, private: Private | None = None) -> list[Private]:
    """Return the sides of the open regions that contain a group, innermost first.

    Not collective.

    Args:
        group: Of the communicator in question.
        private: Its side, which does not enclose itself.
    """
    found: list[Private] = []
    for side in reversed(open_sides()):
        if side is not private and side not in found and contains(side, group):
            found.append(side)
    return found


def outermost() -> Private | None:
    """Return the side of the outermost open region of this thread, if any."""
    opened = cell_here()[0]
    if opened is None:
        return None
    while (around := opened[4]) is not None:
        opened = around
    return opened[0]


def within(private: Private) -> list[Private]:
    """Return the other sides whose group lies within this one's.

    Not collective. Not those of other threads: regions nest within a thread, and a
    checkpoint that is saved in the background goes on when a step has failed. Which
    thread a communicator is used in is the same on all ranks of a program.
    """
    return [
        side
        for side in registered()
        if side is not private
        and side.size > 1
        and side.thread == private.thread
        and contains(private, side.group)
    ]


def give_up_within(private: Private, depth: int) -> list[Private]:
    """Give up what lies within a communicator that has failed. Not collective.

    All its ranks call this alike, after the agreement.

    Args:
        private: Its side.
        depth: Of the region that failed.

    Returns:
        What must be made anew, for it has a region around that one.
    """
    around = _around(private, depth)
    for side in within(private):
        if side not in around:
            forget(side)
        side.channel.abandon()
        if side.beacon is not side.channel:
            side.beacon.abandon()
    return [side for side in around if contains(private, side.group)]


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


def watch_anew() -> None:
    """Have open regions watch the channels that others have now. Not collective."""
    for side in open_sides():
        _watch(side, side.watched)


def note_twins(private: Private) -> None:
    """Note of communicators of the same ranks that there are several.

    Not collective.
    """
    for side in within(private):
        if side.size == private.size:
            for twin in (side, private):
                twin.has_twin = True
                twin.note_plain()


def contains(outer: Private, group: MPI.Group | None) -> bool:
    """Return whether a communicator's group contains another. Not collective."""
    if outer.group is None or group is None or outer.beacon is None:
        return False
    from mpi4py import MPI

    common = MPI.Group.Intersection(group, outer.group)
    n_common = common.Get_size()
    common.Free()
    return bool(n_common == group.Get_size())
