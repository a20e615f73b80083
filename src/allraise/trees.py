"""Lowercase reductions, as trees that can be interrupted between any two ranks.

Owns reduce, allreduce, scan and exscan on an interruptible communicator::

    rank  0   1   2   3
          |<--|   |<--|     each arrow a send and a receive that a failure
          |<------|         interrupts; op(lower ranks, higher ranks) after each

No gate, since user code runs in the middle: a reduction that raises on one rank
is announced like any failure, and wakes the ranks that wait for its result. The
order of the operands is mpi4py's. The trees run on a communicator of their own, as
mpi4py's do, so that they do not meet a user's receive from any source with any tag;
it is made behind a gate at the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.kinds import mpi, rank_of
from allraise.lane import LEAKED
from allraise.objects import as_bytes, dumps, loads
from allraise.scalars import reduce_numbers
from allraise.tally import TO_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.tally import Awaited

    Op = Callable[[Any, Any], Any]

# A message: its length, and the bytes if they are few; others follow.
INLINE = 4096
WORD = 8


def reduce(comm: Any, sendobj: Any, op: Op | None = None, root: int = 0) -> Any:
    """Reduce objects to `root`. Collective over `comm`."""
    root = rank_of(comm, root)
    link = Link(comm, "reduce")
    result = _reduce_to_0(link, sendobj, _op(op))
    # To rank 0 first, whatever the root: operands stay in the order of ranks.
    if root != 0:
        if link.rank == 0:
            link.send(result, root)
        elif link.rank == root:
            return link.recv(0)
    return result if link.rank == root else None


def allreduce(comm: Any, sendobj: Any, op: Op | None = None) -> Any:
    """Reduce objects to all ranks. Collective over `comm`."""
    op = _op(op)
    if comm.slots is not None:
        result = reduce_numbers(comm, sendobj, op)
        if result is not NotImplemented:
            return result
    link = Link(comm, "allreduce")
    result = _reduce_to_0(link, sendobj, op)
    # And down the same tree.
    mask = 1
    while mask < link.size and not link.rank & mask:
        mask <<= 1
    data = dumps(result) if link.rank == 0 else None
    if link.rank:
        data = link.recv_bytes(link.rank - mask)
    while mask := mask >> 1:
        if link.rank + mask < link.size:
            link.send_bytes(data, link.rank + mask)
    return loads(data)


def _reduce_to_0(link: Link, obj: Any, op: Op) -> Any:
    """Reduce along a binomial tree; the result counts on rank 0 only."""
    mask = 1
    while mask < link.size:
        if link.rank & mask:
            link.send(obj, link.rank - mask)
            break
        if link.rank + mask < link.size:
            obj = op(obj, link.recv(link.rank + mask))
        mask <<= 1
    return obj


def scan(comm: Any, sendobj: Any, op: Op | None = None) -> Any:
    """Reduce over the ranks up to this one. Collective over `comm`."""
    return _prefix(Link(comm, "scan"), sendobj, _op(op))[0]


def exscan(comm: Any, sendobj: Any, op: Op | None = None) -> Any:
    """Reduce over the ranks below this one. Collective over `comm`."""
    return _prefix(Link(comm, "exscan"), sendobj, _op(op))[1]


def _prefix(link: Link, obj: Any, op: Op) -> tuple[Any, Any]:
    """Return the reduction up to and with this rank, and without it."""
    block, upto, below = obj, obj, None
    first = True
    mask = 1
    while mask < link.size:
        other = link.rank ^ mask
        if other < link.size:
            theirs = link.exchange(block, other)
            if other < link.rank:
                block, upto = op(theirs, block), op(theirs, upto)
                below = theirs if first else op(theirs, below)
                first = False
            else:
                block = op(block, theirs)
        mask <<= 1
    return upto, below


def _op(op: Op | None) -> Op:
    return mpi().SUM if op is None else op


class Link:
    """Interruptible sends and receives of objects on the hidden communicator."""

    def __init__(self, comm: Any, operation: str) -> None:
        self.channel, self.hidden, self.tally = comm.hidden(operation)
        self.operation = operation
        self.rank, self.size = comm.rank, comm.size

    def send(self, obj: Any, rank: int) -> None:
        """Send an object."""
        self.send_bytes(dumps(obj), rank)

    def send_bytes(self, data: Any, rank: int) -> None:
        """Send a pickled object."""
        self._wait(self._start(data, rank))

    def recv(self, rank: int) -> Any:
        """Receive an object."""
        return loads(self.recv_bytes(rank))

    def recv_bytes(self, rank: int) -> Any:
        """Receive a pickled object."""
        into = bytearray(WORD + INLINE)
        self._receive(into, rank, 0)
        n = int.from_bytes(into[:WORD], "little")
        if n <= INLINE:
            return memoryview(into)[WORD : WORD + n]
        into = bytearray(n)
        self._receive(into, rank, 1)
        return into

    def _receive(self, into: bytearray, rank: int, tag: int) -> None:
        request = self.hidden.Irecv(as_bytes(into), rank, tag)
        self._wait([request], (self.tally, TO_RECEIVE, rank))
        self.tally.received[rank] += 1

    def exchange(self, obj: Any, rank: int) -> Any:
        """Send an object and receive one."""
        sends = self._start(dumps(obj), rank)
        try:
            theirs = self.recv(rank)
        except BaseException:
            LEAKED.extend(sends)
            raise
        self._wait(sends)
        return theirs

    def _wait(self, requests: list[Any], awaited: Awaited | None = None) -> None:
        try:
            for request in requests:
                self.channel.wait(request, self.operation, None, awaited)
        except BaseException:
            LEAKED.extend(requests)
            raise

    def _start(self, data: Any, rank: int) -> list[Any]:
        n = len(data)
        head = n.to_bytes(WORD, "little")
        self.tally.sent[rank] += 1 if n <= INLINE else 2
        if n <= INLINE:
            return [self.hidden.Isend(as_bytes(b"".join((head, data))), rank, 0)]
        return [
            self.hidden.Isend(as_bytes(head), rank, 0),
            self.hidden.Isend(as_bytes(data), rank, 1),
        ]
