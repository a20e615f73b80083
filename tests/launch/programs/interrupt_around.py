"""Ranks wait on the g.comm of a region around that in which another one has failed.

Rank 0 fails in its half, and waits there for rank 1: which waits for a message from
rank 0, or for ranks that do, on the g.comm of the world.
"""

import sys
from array import array
from contextlib import suppress

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME, SIZE = WORLD.rank, WORLD.size
AFTER, BEFORE = (ME + 1) % SIZE, (ME - 1) % SIZE
LARGE = 10_000_000  # bytes that wait for their receiver
half = WORLD.Split(2 * ME // SIZE)
word, into = array("q", [ME]), array("q", [0])


def both(comm):
    return [comm.Isend(word, AFTER), comm.Irecv(into, BEFORE)]


def large(comm):
    """Wait for a message, and for the receiver of one."""
    receive = comm.Irecv(bytearray(LARGE), BEFORE)
    comm.Waitall([comm.Isend(bytearray(LARGE), AFTER), receive])


def twice(comm):
    """Wait for two messages of a rank, of which one comes, and for what is done."""
    first, second = (comm.Irecv(into, BEFORE) for _ in range(2))
    sent = comm.Isend(word, AFTER)
    sent.Wait()
    comm.Send(word, AFTER)
    comm.Waitall([first, second, sent])


def matched(comm):
    comm.isend(ME, AFTER)
    comm.mprobe(BEFORE).recv()


def probed(comm):
    comm.Isend(word, AFTER)
    comm.Probe(BEFORE)
    comm.Recv(into, BEFORE)


WAYS = {
    "Sendrecv": lambda comm: comm.Sendrecv(word, AFTER, 0, into, BEFORE, 0),
    "sendrecv": lambda comm: comm.sendrecv(ME, AFTER, 0, None, BEFORE, 0),
    "Recv": lambda comm: (comm.Isend(word, AFTER), comm.Recv(into, BEFORE)),
    "recv": lambda comm: (comm.isend(ME, AFTER), comm.recv(source=BEFORE)),
    "Wait": lambda comm: [request.Wait() for request in both(comm)],
    "wait": lambda comm: (comm.isend(ME, AFTER), comm.irecv(source=BEFORE).wait()),
    "Waitall": lambda comm: comm.Waitall(both(comm)),
    "Probe": probed,
    "mprobe": matched,
    "Waitall large": large,
    "Waitall twice": twice,
    "scan": lambda comm: comm.scan("text"),
    "reduce": lambda comm: comm.reduce("text", root=SIZE - 1),
    "Iallreduce": lambda comm: comm.Iallreduce(word, array("q", [0])).Wait(),
    "Ibarrier": lambda comm: comm.Waitall([comm.Ibarrier()]),
    "derived": lambda comm: comm.Dup().sendrecv(ME, AFTER, 0, None, BEFORE, 0),
    "allgather": lambda comm: comm.allgather(ME),
}


def waits_for_ever(way, *, is_dealt_with):
    """The world's region ends: rank 0 never comes to what it is waited for."""
    failed = None
    try:
        with allraise.guard(WORLD, "world") as g:
            WAYS[way](g.comm)
            try:
                with allraise.guard(half, "half"):
                    if ME == 0:
                        if way == "Waitall twice":  # one of the two
                            g.comm.Send(word, AFTER)
                        raise OSError
                    WAYS[way](g.comm)
            except allraise.CheckpointException:
                if not is_dealt_with:
                    raise
    except allraise.CheckpointException as error:
        failed = error.ranks
    # Dealt with, it is told where rank 1 was not waiting for rank 0.
    assert failed if is_dealt_with else failed == (0,), (way, failed)


def comes():
    """Who waits for one that comes waits on, for a message or for its receiver."""
    for source in (1, MPI.ANY_SOURCE):
        with allraise.guard(WORLD, "world") as g:
            with suppress(allraise.CheckpointError), allraise.guard(half, "half"):
                if ME == 0:
                    raise OSError
                if ME > 1:
                    g.comm.Send(bytearray(LARGE), 1)
                    assert g.comm.recv(source=source) == "late"
            if ME == 1:
                for rank in range(2, SIZE):
                    # Of those that have come to know where it stands meanwhile.
                    g.comm.Recv(bytearray(LARGE), rank if source == 1 else source)
                for rank in range(2, SIZE):
                    g.comm.send("late", rank)


def further_in():
    """Some ranks enter a third region while one waits in the first; nobody fails."""
    twin = WORLD.Dup()
    rest = WORLD.Create_group(WORLD.group.Excl([0])) if ME else None
    with allraise.guard(WORLD, "world") as g:
        comm = g.comm
        with allraise.guard(twin, "twin"):
            if ME:
                with allraise.guard(rest, "rest"):
                    pass
            assert comm.allreduce(1) == SIZE


cases = {"comes": comes, "further in": further_in}
if sys.argv[1] in cases:
    cases[sys.argv[1]]()
else:
    for way in WAYS:
        waits_for_ever(way, is_dealt_with=sys.argv[1] == "dealt with")
print(f"rank {ME} ok", flush=True)
