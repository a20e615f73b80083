"""The gates at which a rank waits, and those that it must pass on its way out.

Owns how open regions, and what is waited for on a lane, are turned into the gates of
`standing`. A region ends at a gate of its communicator, a collective on ``g.comm`` has
one before it, and to wait for a message is one of two ranks, see `tally`. Not collective.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from allraise.gates import Gates
from allraise.nesting import contains, open_sides
from allraise.standing import Gate
from allraise.tally import TO_MEET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mpi4py import MPI

    from allraise.private import Private
    from allraise.tally import Awaited
    from allraise.waits import Place, Waits


def way_out(root: Private, waits_at: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """Return what this rank must pass until the outermost region ends.

    Args:
        root: The side of that region.
        waits_at: The gates at which this rank waits: they come first.
    """
    path = list(waits_at)
    regions = open_sides()
    for n in range(len(regions) - 1, 0, -1):
        side = regions[n]
        if side.gates is None:
            continue  # one rank
        gates = side.beacon.door if side is root else side.gates
        if all(gates.ident != known.ident for known in path):
            around = _around(side, n)
            number = gates.entered + 1
            members = frozenset(_members_in(root, side.group))
            path.append(Gate(gates.ident, number, members, around))
    return tuple(path)


def gates_at(channel: Waits, place: Place) -> tuple[Gate, ...]:
    """Return the gates at which this rank waits; none where it is unknown whose.

    Args:
        channel: On which it waits.
        place: A gate, or what is awaited on the lane.
    """
    regions = open_sides()
    root = regions[0]
    for n in range(len(regions), 0, -1):
        side = regions[n - 1]
        if side.beacon is not channel:
            continue
        # Not what was opened since, within this one: nobody listens to that here.
        if not isinstance(place, Gates):
            return _gates_of(root, place, _around(side, n, itself=True))
        is_lane = place is channel.gates[0]
        if not (is_lane or place is side.gates):
            return ()
        around = _around(side, n, itself=is_lane)
        members = frozenset(_members_in(root, side.group))
        return (Gate(place.ident, place.entered, members, around),)
    return ()


def _gates_of(
    root: Private, place: Sequence[Awaited], around: tuple[tuple[int, int], ...]
) -> tuple[Gate, ...]:
    """Return the gates of what is awaited, but for what may come from anybody."""
    found = []
    for tally, kind, what in place:
        if not tally.comm or what < 0:
            continue  # freed, or from anybody
        group = tally.comm.Get_group()
        members = _members_in(root, group)
        group.Free()  # a rank may look again and again
        ident, number = tally.gate(kind, int(what))
        if kind != TO_MEET:
            members = [members[int(what)]]
        found.append(Gate(ident, number, frozenset(members), around, gives_way=True))
    return tuple(found)


def entered(all_gates: Iterable[Gates | None]) -> dict[int, int]:
    """Return how often this rank has entered each kind of gate, by ident."""
    counts = {}
    for gates in all_gates:
        if gates is None:
            continue  # one rank
        counts[gates.ident] = gates.entered
        for tally in gates.tallies:
            if tally.comm:
                counts |= tally.counts()
    return counts


def _around(
    side: Private, n_open: int, *, itself: bool = False
) -> tuple[tuple[int, int], ...]:
    """Return what contains a side, but for the outermost, and how often."""
    regions = open_sides()
    counted = Counter(
        outer.gates.ident
        for outer in regions[:n_open]
        if outer is not regions[0]
        and outer.gates is not None
        and (itself if outer is side else contains(outer, side.group))
    )
    return tuple(counted.items())


def _members_in(root: Private, group: MPI.Group | None) -> list[int]:
    """Return the members of a group as ranks of the outermost communicator."""
    from mpi4py import MPI

    if group is None or root.group is None:
        return []
    return list(MPI.Group.Translate_ranks(group, None, root.group))
