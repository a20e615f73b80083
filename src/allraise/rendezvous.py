"""How the members of a communicator come together before it is made.

Within an open region on a communicator A around this one, B, a rank may fail
before it comes here, and ``Dup`` cannot be interrupted, nor begun and given up: it
would leave B, which is the user's, out of step for ever. So B's members first meet
by small messages on A's private communicator, which is ours, twice::

    first meeting    given up when A has failed. Who gets through knows that every
                     member has come, so knows that B is being made.
    second meeting   a numbered gate (see `gates`): given up only if a member
                     announced that it gave up the first. Who gets through knows
                     that every member gets through.
    Dup              of B, by all

Either meeting costs log2 P messages a rank.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from allraise.errors import PeerFailure
from allraise.gates import Gates
from allraise.impasse import consider, note_met
from allraise.lane import LEAKED
from allraise.nesting import open_sides, passed_on
from allraise.polling import way_to
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.standing import Gate

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.channel import Channel
    from allraise.private import Private

_IDENT_BITS: Final = 62

# On the private communicator, beside the error channel's and the tree's.
TAG_MEETING: Final = 2000
N_TAGS: Final = 30_000  # any MPI has tags up to 32767

_OPERATION: Final = "the first use of a communicator"

# Who the members are, and in what time.
Key = tuple[bytes, bytes]

_made: Counter[Key] = Counter()

# Meetings that a signal's handler has thrown this rank out of: where the user deals with
# that and comes again, the others are still in it.
_begun: dict[Key, Meeting] = {}


class Meeting:
    """The members of a group, who come together unless a region around fails.

    Collective over the group.
    """

    def __init__(self, key: Key, group: MPI.Group, around: list[Private]) -> None:
        from mpi4py import MPI

        self.key = key
        self.outer = around[0]
        self.beside = passed_on(None, around)
        self.beacons: list[Channel] = [side.beacon for side in around]
        self.ranks = MPI.Group.Translate_ranks(group, None, self.outer.group)
        ident = _ident_of(array("q", self.ranks).tobytes(), around)
        self.gates = Gates(ident)
        outermost = around[-1].group
        names = MPI.Group.Translate_ranks(group, None, outermost)
        sides = tuple(
            (side.gates.ident, side.depth) for side in around[:-1] if side.gates
        )
        self.gate = Gate(ident ^ 2, 1, frozenset(names), sides)
        # Distances, with the gate.
        self.sent: set[tuple[int, int]] = set()
        self.received: set[tuple[int, int]] = set()

    def come_together(self) -> None:
        """Wait until each member has come.

        Raises:
            PeerFailure: One has failed.
        """
        # Where this rank does not get through, its failure tells the others so.
        for beacon in self.beacons:
            if self.gates not in beacon.pending:
                beacon.pending.append(self.gates)
        note_met(self.gate)
        _exchange(self)

    def pass_through(self) -> None:
        """Wait until each member knows that each has come.

        Raises:
            PeerFailure: One has failed, and another one has not come therefore.
        """
        del _begun[self.key]
        self.gates.entered = 1
        self.gate = self.gate._replace(number=2)
        note_met(self.gate)
        _exchange(self)
        for beacon in self.beacons:
            beacon.pending.remove(self.gates)


def meet(group: MPI.Group, around: list[Private]) -> Meeting:
    """Come together with the members of a group a first time.

    Collective over the group.

    Raises:
        PeerFailure: One has failed.
    """
    key = _key_of(group, around)
    meeting = _begun.get(key)
    if meeting is None:
        with room_on_the_stack(), signals_held_back():
            meeting = _begun[key] = Meeting(key, group, around)
    try:
        meeting.come_together()
    except PeerFailure:
        del _begun[key]
        raise
    return meeting


def _key_of(group: MPI.Group, around: list[Private]) -> Key:
    """Return what tells the meetings of a group, and of a time, from others."""
    from mpi4py import MPI

    ranks = MPI.Group.Translate_ranks(group, None, around[0].group)
    return array("q", ranks).tobytes(), _generation(around)


def _generation(around: list[Private]) -> bytes:
    return b" ".join(
        b"%d %d" % (side.gates.ident if side.gates else 0, side.n_failed)
        for side in around
    )


def _ident_of(name: bytes, around: list[Private]) -> int:
    """Return a number for a communicator that is being made.

    Not collective: every member makes the same one of the group and of how many
    were made of it since a region around last failed.
    """
    generation = _generation(around)
    _made[name, generation] += 1
    text = name + generation + b" %d" % _made[name, generation]
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _IDENT_BITS)


def _exchange(meeting: Meeting) -> None:
    """Send to, and hear from, the ranks at distance 1, 2, 4, ...

    Collective over the ranks: the dissemination barrier of Hensgen, Finkel and
    Manber (1988).

    Raises:
        PeerFailure: A region around has failed, and the gate, if any, is closed.
    """
    comm, ranks, gates = meeting.outer.comm, meeting.ranks, meeting.gates
    rank = ranks.index(meeting.outer.rank)
    tag = TAG_MEETING + gates.ident % N_TAGS
    here = array("q", [gates.ident, gates.entered])
    distance = 1
    while distance < len(ranks):
        step = gates.entered, distance
        with room_on_the_stack(), signals_held_back():
            if step not in meeting.sent:
                send = comm.Isend(here, ranks[(rank + distance) % len(ranks)], tag)
                if not send.Test():
                    LEAKED.append(send)
                meeting.sent.add(step)
        there = here if step in meeting.received else array("q", [0, 0])
        # What somebody sent to a meeting that was given up is still there. Where 300
        # were, one in a hundred later ones has the tag of one of them.
        while there != here:
            request = comm.Irecv(there, ranks[(rank - distance) % len(ranks)], tag)
            try:
                _wait_in(meeting, request)
            except BaseException:  # of a signal's handler, too
                if request:
                    request.Cancel()
                    request.Wait()
                if there == here:
                    meeting.received.add(step)
                raise
        meeting.received.add(step)
        distance *= 2


def _wait_in(meeting: Meeting, request: MPI.Request) -> None:
    """Wait for a message of a meeting. Not collective.

    Raises:
        PeerFailure: A region around has failed, and the gate, if any, is closed.
    """
    beacons, gates = meeting.beacons, meeting.gates
    heard: list[Any] = [*beacons, *meeting.beside]
    wait_any = way_to("Waitany")
    watched = [request, *(channel.listen for channel in heard)]
    while True:
        consider(open_sides()[0], (meeting.gate,))
        failed = [beacon for beacon in beacons if beacon.has_failed_around]
        closed = not gates.entered or any(b.announced.closes(gates) for b in beacons)
        if failed and closed:
            failed[-1].announce()  # that this rank will not be there
            raise failed[-1].interruption(failed[-1].failed_rank, _OPERATION)
        place = wait_any(watched)
        if place == 0:
            return
        heard[place - 1].read()
