"""Making the private communicator, at the first use of the user's.

Owns the one expensive moment: two duplicates of the user's communicator, one for
our traffic and one that ``g.comm`` runs on, and the error channel on the former.

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

from allraise.chains import is_of_mpi
from allraise.errors import PeerFailure
from allraise.gates import Gates, new_ident
from allraise.impasse import consider, look, note_met
from allraise.lane import LEAKED, UNKNOWN
from allraise.nesting import (
    enclosing,
    open_sides,
    passed_on,
    watch_anew,
    within,
)
from allraise.polling import way_to
from allraise.private import VECTOR_LENGTH, Private
from allraise.registry import known_private, register
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.standing import Gate
from allraise.survivors import end_if_died_first, watch_exit
from allraise.ulfm import is_active, make_channels

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.channel import Channel

_IDENT_BITS: Final = 62

# On the private communicator, beside the error channel's and the tree's.
TAG_MEETING: Final = 2000
N_TAGS: Final = 30_000  # any MPI has tags up to 32767

_OPERATION: Final = "the first use of a communicator"

_made: Counter[tuple[bytes, bytes]] = Counter()

# Meetings that a signal's handler has thrown this rank out of: where the user deals with
# that and comes again, the others are still in it.
_begun: dict[tuple[bytes, bytes], _Meeting] = {}


def private_of(comm: MPI.Intracomm) -> Private:
    """Return this rank's side of the protocol on a communicator.

    Collective over comm at the first use on this communicator, not collective
    afterwards.

    Args:
        comm: As `resolve_comm` returned it.

    Raises:
        PeerFailure: A region on a communicator around this one has failed.
        BaseException: What is settled there, while this rank is on its way out.
    """
    known = known_private(comm)
    if known is not None:
        return known
    try:
        return _create(comm)
    except Exception as error:
        if is_of_mpi(error) and is_active():
            end_if_died_first(getattr(comm, "plain", comm), error)
        raise


def _create(comm: MPI.Intracomm) -> Private:
    from mpi4py import MPI

    rank, size = comm.Get_rank(), comm.Get_size()
    if size == 1:
        private = Private(None, rank, size, MPI.MAX)
        register(comm, private)
        return private
    group = comm.Get_group()
    around = enclosing(group)
    for side in around:
        if side.settled is not None:
            raise side.settled[1]
    meeting = _meet(group, around) if around else None
    # From here on the other ranks count on this one.
    with room_on_the_stack(), signals_held_back():
        if meeting is not None:
            del _begun[_key_of(group, around)]
            meeting.pass_through()
        private = Private(None, rank, size, MPI.MAX)
        private.group = group
        # The interruptible communicator of a region is not to wait at gates here.
        _connect(private, getattr(comm, "plain", comm))
        register(comm, private)
    return private


def renew(private: Private, failed: Private) -> None:
    """Give a side another private communicator, for the old one is out of step.

    Collective over comm.

    Args:
        private: The side.
        failed: One that contains it, and is in step. The user's communicator may have
            been freed, by some ranks.
    """
    # What was given up may still write to the vectors.
    LEAKED.extend((private.comm, private.mine, private.total))
    private.mine, private.total = (
        array("q", bytes(8 * VECTOR_LENGTH)) for _ in range(2)
    )
    made = failed.comm.Create_group(private.group)
    _connect(private, made)
    made.Free()
    for side in enclosing(private.group, private):
        side.note_entered(private)  # it has another name now, and is open
    watch_anew()


def _connect(private: Private, plain: MPI.Intracomm) -> None:
    """Make what a side communicates on. Collective over comm."""
    from mpi4py import MPI

    duplicate = plain.Dup()
    duplicate.Set_name("allraise")
    # An error in our own traffic is an exception, whatever handler the user's
    # communicator has (a duplicate inherits it).
    duplicate.Set_errhandler(MPI.ERRORS_RETURN)
    lane = plain.Dup()
    lane.Set_name("allraise g.comm")
    lane.Set_errhandler(MPI.ERRORS_RETURN)
    mine = array("q", [-is_active(), new_ident(), new_ident()])
    most = array("q", bytes(8 * len(mine)))
    duplicate.Allreduce(mine, most, MPI.MAX)
    private.communicate_on(duplicate, MPI.INT64_T)
    private.gates = Gates(most[1])
    private.channel, private.beacon = make_channels(
        duplicate, lane, most[2], _interruption, revokes=most[0] < 0
    )
    private.channel.depth_here = private.beacon.depth_here = lambda: private.depth
    private.beacon.look = look
    private.beacon.standing.set_skips(skips=private.skips)
    private.beacon.gates_within = lambda: _gates_within(private)
    if most[0] < 0:
        private.lifeboat = duplicate.Dup()
        private.lifeboat.Set_name("allraise lifeboat")
        watch_exit()
    private.note_plain()


class _Meeting:
    """The members of a group, who come together unless a region around fails.

    Collective over the group.
    """

    def __init__(self, group: MPI.Group, around: list[Private]) -> None:
        from mpi4py import MPI

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
        self.gates.entered = 1
        self.gate = self.gate._replace(number=2)
        note_met(self.gate)
        _exchange(self)
        for beacon in self.beacons:
            beacon.pending.remove(self.gates)


def _meet(group: MPI.Group, around: list[Private]) -> _Meeting:
    """Come together with the members of a group a first time.

    Collective over the group.

    Raises:
        PeerFailure: One has failed.
    """
    key = _key_of(group, around)
    meeting = _begun.get(key)
    if meeting is None:
        with room_on_the_stack(), signals_held_back():
            meeting = _begun[key] = _Meeting(group, around)
    try:
        meeting.come_together()
    except PeerFailure:
        del _begun[key]
        raise
    return meeting


def _key_of(group: MPI.Group, around: list[Private]) -> tuple[bytes, bytes]:
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


def _exchange(meeting: _Meeting) -> None:
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


def _wait_in(meeting: _Meeting, request: MPI.Request) -> None:
    """Wait for a message of a meeting. Not collective.

    Raises:
        PeerFailure: A region around has failed, and the gate, if any, is closed.
    """
    beacons, gates = meeting.beacons, meeting.gates
    heard: list[Any] = [*beacons, *meeting.beside]
    wait_any = way_to("Waitany")
    watched = [request, *(channel.listen for channel in heard)]
    while True:
        consider(open_sides()[0], meeting.gate)
        failed = [beacon for beacon in beacons if beacon.has_failed_around]
        closed = not gates.entered or any(b.announced.closes(gates) for b in beacons)
        if failed and closed:
            failed[-1].announce()  # that this rank will not be there
            raise failed[-1].interruption(failed[-1].failed_rank, _OPERATION)
        place = wait_any(watched)
        if place == 0:
            return
        heard[place - 1].read()


def _gates_within(private: Private) -> list[Gates]:
    """Return the gates that a failure of this communicator closes."""
    return [
        gates
        for side in within(private)
        for gates in (side.gates, *side.beacon.gates)
        if gates is not None
    ]


def _interruption(rank: int, operation: str) -> PeerFailure:
    who = "a peer" if rank == UNKNOWN else f"rank {rank}"
    woken = PeerFailure(f"{who} has failed, so {operation} was given up")
    woken.rank = None if rank == UNKNOWN else rank
    woken.operation = operation
    return woken
