"""Making the private communicator, at the first use of the user's.

Owns the one expensive moment: two duplicates of the user's communicator, one for
our traffic and one that ``g.comm`` runs on, and the error channel on the former.
Collective, and safe within an open region on another communicator: there each
step waits for the failure of that region as well.

A rank that gives the creation up tells so by the number of the communicator, which
every member knows before anything is sent: it is made of the group and of how
often this process has made one for that group.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from allraise.exceptions import PeerFailure
from allraise.gates import Gates
from allraise.lane import LEAKED, UNKNOWN
from allraise.nesting import enclosing, within
from allraise.private import Private, known_private, register
from allraise.ulfm import is_active, make_channels

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.channel import Channel

_IDENT_BITS: Final = 62

_made: Counter[bytes] = Counter()


def private_of(comm: MPI.Intracomm) -> Private:
    """Return this rank's side of the protocol on a communicator.

    Collective over comm at the first use on this communicator, not collective
    afterwards.

    Args:
        comm: As `resolve_comm` returned it.

    Raises:
        PeerFailure: A region on a communicator around this one has failed.
    """
    known = known_private(comm)
    return _create(comm) if known is None else known


def _create(comm: MPI.Intracomm) -> Private:
    from mpi4py import MPI

    rank, size = comm.Get_rank(), comm.Get_size()
    if size == 1:
        private = Private(None, rank, size, MPI.MAX)
        register(comm, private)
        return private
    # The interruptible communicator of a region around this one would wait for
    # the failure too, but on gates of its own.
    plain = getattr(comm, "plain", comm)
    group = plain.Get_group()
    ident = _next_ident(group)
    watch = enclosing(group)
    made: list[MPI.Intracomm] = []
    beacons: list[Channel] = [side.beacon for side in watch]
    gates = Gates(ident)
    for beacon in beacons:
        beacon.pending.append(gates)
    try:
        duplicate = _duplicate(plain, beacons, made)
        duplicate.Set_name("allraise")
        # An error in our own traffic is an exception, whatever handler the
        # user's communicator has (a duplicate inherits it).
        duplicate.Set_errhandler(MPI.ERRORS_RETURN)
        private = Private(duplicate, rank, size, MPI.MAX)
        private.group, private.gates = group, gates
        # The number as agreed: processes that were spawned count groups apart.
        mine, most = array("q", [-is_active(), ident]), array("q", [0, 0])
        _wait(duplicate.Iallreduce(mine, most, MPI.MAX), beacons, (mine, most))
        gates.ident = most[1]
        lane = _duplicate(plain, beacons, made)
        lane.Set_name("allraise g.comm")
        private.channel, private.beacon = make_channels(
            # A number of its own: the lane's gates are others.
            duplicate,
            lane,
            most[1] ^ 2,
            _interruption,
            revokes=most[0] < 0,
        )
    except BaseException:
        LEAKED.append(made)
        for one in made:
            if is_active():  # wakes those who are a step further
                one.Revoke()
        raise
    finally:
        for beacon in beacons:
            beacon.pending.remove(gates)
    private.beacon.gates_within = lambda: _gates_within(private)
    register(comm, private)
    return private


def _gates_within(private: Private) -> list[Gates]:
    """Return the gates that a failure of this communicator closes."""
    return [
        gates
        for side in within(private)
        for gates in (side.gates, *side.beacon.gates)
        if gates is not None
    ]


def _next_ident(group: MPI.Group) -> int:
    """Return a number for the next communicator made of a group.

    Not collective: its members count alike, for they create together.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD.Get_group()  # noqa: TID251 to name processes by
    ranks = array("q", MPI.Group.Translate_ranks(group, None, world))
    world.Free()
    name = ranks.tobytes()
    _made[name] += 1
    digest = hashlib.blake2b(name + b"%d" % _made[name], digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _IDENT_BITS)


def _duplicate(
    comm: MPI.Intracomm, beacons: list[Any], made: list[MPI.Intracomm]
) -> MPI.Intracomm:
    duplicate, request = comm.Idup()
    _wait(request, beacons, duplicate)
    made.append(duplicate)
    return duplicate


def _wait(request: MPI.Request, beacons: list[Any], buffers: object) -> None:
    """Wait for a step of the creation, or raise where a region around failed."""
    from mpi4py import MPI

    watched = [request, *(beacon.listen for beacon in beacons)]
    while not any(beacon.failed for beacon in beacons):
        place = MPI.Request.Waitany(watched)
        if place == 0:
            return
        beacons[place - 1].read()
    LEAKED.extend((request, buffers))
    failed = next(beacon for beacon in reversed(beacons) if beacon.failed)
    failed.announce()  # that this rank will not be there
    operation = "the first use of a communicator"
    raise failed.interruption(failed.failed_rank, operation)


def _interruption(rank: int, operation: str) -> PeerFailure:
    who = "a peer" if rank == UNKNOWN else f"rank {rank}"
    return PeerFailure(f"{who} has failed, so {operation} was given up")
