"""Making the private communicator, at the first use of the user's.

Owns the one expensive moment: two duplicates of the user's communicator, one for
our traffic and one that ``g.comm`` runs on, and the error channel on the former.

Within an open region its members come together before, see `rendezvous`.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from allraise.chains import is_of_mpi
from allraise.errors import PeerFailure
from allraise.gates import Gates, new_ident
from allraise.impasse import look
from allraise.inside import within
from allraise.lane import LEAKED, UNKNOWN
from allraise.nesting import enclosing, watch_anew
from allraise.private import VECTOR_LENGTH, Private
from allraise.registry import known_private, register
from allraise.rendezvous import meet
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.survivors import end_if_died_first, watch_exit
from allraise.ulfm import is_active, make_channels

if TYPE_CHECKING:
    from mpi4py import MPI


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
    meeting = meet(group, around) if around else None
    # From here on the other ranks count on this one.
    with room_on_the_stack(), signals_held_back():
        if meeting is not None:
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
    # Without this MPICH 4.3.2 crashes in the next: it has not made the group of the
    # communicator yet (no issue found upstream; 5.0.2 is well).
    failed.comm.Get_group().Free()
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
