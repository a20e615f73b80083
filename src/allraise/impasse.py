"""Ranks that wait for each other in regions of several communicators.

Owns what a rank does about it: it tells where it stands, finds that it waits for
itself, and ends the outermost region, whose group contains all that is within.
`standing` has the arithmetic, and why. Costs nothing before a rank has failed, but
for an agreement on the outermost communicator within a region of other ranks: that
is an Allreduce that listens to nothing, so they meet at a *door* before, by log2 P
messages a rank.

To end the outermost region is to announce that it has failed: who waits within it
gives up what cannot open, by the numbers of gates as ever. Where a rank is wrong in
thinking that it waits for ever, a region ends that nobody has failed in: so a stand
tells of each gate that its rank has entered, also of those that exist no more.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from allraise.inside import revoked, within
from allraise.lane import LEAKED
from allraise.nesting import depth_outside, open_sides, outermost, watch_nothing
from allraise.places import entered, gates_at, way_out
from allraise.polling import way_to
from allraise.standing import Gate, Stand, never_open

if TYPE_CHECKING:
    from allraise.private import Private
    from allraise.waits import Place, Waits

# On the private communicator, beside the error channel's and the meetings'.
TAG_DOOR: Final = 1202


def note_skip() -> None:
    """Note that this rank skips something that others may come to. Not collective."""
    root = outermost()
    if root is None:
        return
    if root.beacon is not None and not root.skips:
        root.skips = True
        root.beacon.standing.set_skips(skips=True)
        root.note_plain()


def note_met(gate: Gate) -> None:
    """Note that this rank comes to a meeting, see `rendezvous`. Not collective."""
    root = outermost()
    if root is not None and root.beacon is not None:
        root.beacon.standing.note_met(root.opened()[0], gate.ident, gate.number)


def note_freed(private: Private) -> None:
    """Note what this rank has entered of a communicator that is freed.

    Not collective.
    """
    root = outermost()
    if root is not None and root.beacon is not None and root is not private:
        region = root.opened()[0]
        known = entered((private.gates, *private.beacon.gates))
        for ident, number in known.items():
            root.beacon.standing.note_met(region, ident, number)


def look(channel: Waits, place: Place, *, tells: bool) -> None:
    """See where this rank stands when it waits on a channel. Not collective.

    Args:
        channel: On which it waits.
        place: For what.
        tells: Whether it has waited for a while, and is to tell the others.
    """
    root = outermost()
    last = channel.enclosing[-1] if channel.enclosing else channel
    # At the agreement of the outermost region all come by.
    if root is not None and root.beacon is last and place is not root.gates:
        if not tells and not _depth_over(root):
            return
        consider(root, gates_at(channel, place))


def consider(root: Private, gates: tuple[Gate, ...]) -> None:
    """Tell where this rank stands if that may matter, and see if all is lost.

    Not collective.

    Args:
        root: The side of the outermost open region.
        gates: All those for which this rank waits, if it does.
    """
    standing = root.beacon.standing
    if not standing.is_active:
        return
    if not _depth_over(root):
        path = way_out(root, gates)
        told = root.skips or root.rank in standing.stands
        if told or any(
            rank in known.members and stand.is_before(known)
            for known in path
            for rank, stand in standing.stands.items()
        ):
            root.beacon.tell_stand(_stand(root, path, gates))
            if gates and not never_open(standing.stands).isdisjoint(gates):
                _end(root)
    if gates and _depth_over(root):
        # This rank enters nothing more, nor do those at the end, who listen no more.
        root.beacon.announce()
        for gate in gates:
            for rank, stand in standing.stands.items():
                if stand.is_at_end and rank in gate.members and stand.is_before(gate):
                    number = stand.counts.get(gate.ident, 0)
                    root.beacon.announced.learn({gate.ident: number})


def _depth_over(root: Private) -> int:
    """Return the depth of a failure that ends all within the outermost region.

    Not collective. 0 where there is none. One in regions on it that lie within
    others may be known to those alone that have come there.
    """
    beacon = root.beacon
    if beacon is None or not beacon.failed:
        return 0
    known = beacon.failed_depth <= depth_outside(root)
    return int(beacon.failed_depth) if known else 0


def come_by(root: Private, exc: BaseException | None) -> BaseException | None:
    """Come to an agreement on the outermost communicator, where all come by.

    Collective over comm where regions on others are open around this one.

    Returns:
        What this rank fails with.
    """
    if root.watched_before:
        found = _pass_door(root)
        exc = found if exc is None else exc
        watch_nothing(root)
    elif root.skips:
        if exc is None and root.beacon.standing.is_over:
            exc = _ended(root)
        _tell_end(root)
    root.over = _depth_over(root)
    return exc


def _tell_end(root: Private) -> None:
    """Tell that this rank comes to the end, and what it has skipped.

    Not collective.
    """
    stand = _stand(root)._replace(is_at_end=True)
    root.beacon.tell_stand(stand)


def _pass_door(root: Private) -> BaseException | None:
    """Wait until all come to an agreement on the outermost communicator.

    Collective over comm, but that it is left where the region is over. The
    agreement follows either way.

    Returns:
        The failure of this rank, where it has found that there is no way on.
    """
    beacon = root.beacon
    wait_any = way_to("Waitany")
    beacon.door.entered += 1
    number = beacon.door.entered
    gate = Gate(beacon.door.ident, number, frozenset(range(root.size)))
    distance = 1
    while distance < root.size:
        source = (root.rank - distance) % root.size
        target = (root.rank + distance) % root.size
        send = root.comm.Isend(array("q", [number]), target, TAG_DOOR)
        if not send.Test():
            LEAKED.append(send)
        word = array("q", [0])
        while word[0] != number:  # else of a door that was not passed
            request = root.comm.Irecv(word, source, TAG_DOOR)
            while True:
                consider(root, (gate,))
                if _depth_over(root):
                    beacon.is_dirty = True
                    request.Cancel()
                    request.Wait()
                    beacon.announce()  # that this rank enters nothing before
                    return _ended(root) if beacon.standing.is_over else None
                if wait_any([request, beacon.listen]) == 0:
                    break
                beacon.read()
        distance *= 2
    return None


def _ended(root: Private) -> BaseException:
    """Return what a rank raises that has found ranks to wait for each other."""
    failure: BaseException = root.beacon.interruption(
        root.beacon.failed_rank,
        "a region that ranks cannot come to, for they wait for each other",
    )
    return failure


def _end(root: Private) -> None:
    """End the outermost region, at its first depth. Not collective."""
    root.beacon.standing.is_over = True
    note_skip()
    root.beacon.announce(depth=1)
    if root.channel is not root.beacon:
        inner = revoked(root, within(root))
        for side in inner:
            root.note_entered(side)  # its lane is of no use any more
        root.channel.announce([side.channel for side in inner])


def _stand(
    root: Private,
    path: tuple[Gate, ...] = (),
    gates: tuple[Gate, ...] = (),
) -> Stand:
    standing, beacon = root.beacon.standing, root.beacon
    all_gates = [beacon.door, *beacon.gates, *beacon.gates_within()]
    counts = entered(all_gates)
    if standing.met_in is root.opened()[0]:
        counts |= standing.met
    counts |= {gate.ident: gate.number for gate in gates if not gate.gives_way}
    sides = dict.fromkeys(side for side in open_sides() if side.beacon is not None)
    failed = tuple(
        (side.gates.ident, side.beacon.failed_depth)
        for side in sides
        if side is not root and side.beacon.failed and side.gates is not None
    )
    return Stand(bool(gates), path, counts, is_at_end=False, failed=failed)
