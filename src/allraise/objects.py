"""Lowercase collectives that one rank's bad object cannot tear apart.

Owns how objects are moved in collectives on an interruptible communicator.

In mpi4py an object that cannot be pickled, or a reduction that raises, leaves the
rank in the middle of the operation, where the others wait for it. Behind a gate
they could not be woken. So everything that may raise is done first::

    bcast, gather, scatter, allgather, alltoall
        pickle -> gate, which finds the largest -> bytes -> unpickle
    reduce, allreduce, scan, exscan
        a tree of sends and receives, each of which can be interrupted, with
        the reduction between them; no gate

The trees are mpi4py's (same order of the operands). They run on a communicator of
their own, made behind a gate at the first use, as mpi4py does, so that they do
not meet a user's receive from any source with any tag.
"""

from __future__ import annotations

import functools
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from allraise.lane import LEAKED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Op = Callable[[Any, Any], Any]

# Up to so many bytes, all objects of a collective are sent as if of the same length;
# above, their lengths are exchanged first.
SMALL = 512
HEAD = 4  # bytes of a length

# A message of a tree: its length, and the bytes if they are few; others follow.
INLINE = 4096
WORD = 8


@functools.cache  # an import statement costs 0.4 us, this 0.05
def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _dumps(obj: Any) -> bytes:
    return _mpi().pickle.dumps(obj)  # type: ignore[no-any-return]


def _loads(data: Any) -> Any:
    return _mpi().pickle.loads(data)


def _gate(comm: Any, operation: str, n: int) -> tuple[Any, int, BaseException | None]:
    """Pass a gate that finds the largest `n` of all ranks. Collective over `comm`.

    It saves small objects the exchange of their lengths.

    Returns:
        The plain communicator, the largest n, and what to raise in the end.
    """
    mine, most = array("q", [n]), _words(1)
    plain, largest = comm.plain, _mpi().MAX
    late = comm.pass_gate(operation, lambda: plain.Iallreduce(mine, most, largest))
    return plain, most[0], late


def _end(late: BaseException | None) -> None:
    if late is not None:
        raise late


def _bytes(data: Any, counts: array[int] | None = None) -> list[Any]:
    byte = _mpi().BYTE
    return [data, byte] if counts is None else [data, counts, None, byte]


def _words(n: int) -> array[int]:
    return array("q", bytes(WORD * n))


def _slot(data: bytes, most: int) -> bytes:
    """Return a small object's bytes, led by their number, filled up to `most`."""
    return (len(data).to_bytes(HEAD, "little") + data).ljust(HEAD + most, b"\0")


def _unslot(slots: Any, most: int) -> list[Any]:
    """Unpickle the objects of a row of slots."""
    view = memoryview(slots)
    found = []
    for at in range(HEAD, len(view) + 1, HEAD + most):
        n = int.from_bytes(view[at - HEAD : at], "little")
        found.append(_loads(view[at : at + n]))
    return found


def _cut(data: Any, lengths: Sequence[int]) -> list[Any]:
    """Unpickle the objects that stand one after the other in a buffer."""
    view = memoryview(data)
    ends = accumulate(lengths)
    return [_loads(view[end - n : end]) for end, n in zip(ends, lengths, strict=True)]


def bcast(comm: Any, obj: Any, root: int = 0) -> Any:
    """Broadcast an object. Collective over `comm`."""
    data: Any = _dumps(obj) if comm.rank == root else b""
    plain, most, late = _gate(comm, "bcast", len(data))
    if comm.rank != root:
        data = bytearray(most)
    plain.Bcast(_bytes(data), root)
    _end(late)
    return _loads(data)


def gather(comm: Any, obj: Any, root: int = 0) -> list[Any] | None:
    """Gather objects. Collective over `comm`."""
    data = _dumps(obj)
    here = comm.rank == root
    plain, most, late = _gate(comm, "gather", len(data))
    if most <= SMALL:
        into = bytearray(comm.size * (HEAD + most) if here else 0)
        plain.Gather(_bytes(_slot(data, most)), _bytes(into) if here else None, root)
        _end(late)
        return _unslot(into, most) if here else None
    lengths = _words(comm.size if here else 0)
    plain.Gather(array("q", [len(data)]), lengths if here else None, root)
    into = bytearray(sum(lengths))
    plain.Gatherv(_bytes(data), _bytes(into, lengths) if here else None, root)
    _end(late)
    return _cut(into, lengths) if here else None


def scatter(comm: Any, objs: Sequence[Any] | None, root: int = 0) -> Any:
    """Scatter objects. Collective over `comm`."""
    here = comm.rank == root
    parts = _dumps_each(objs or (), comm.size) if here else []
    plain, most, late = _gate(comm, "scatter", max(map(len, parts), default=0))
    if most <= SMALL:
        slots = b"".join([_slot(part, most) for part in parts])
        into = bytearray(HEAD + most)
        plain.Scatter(_bytes(slots) if here else None, _bytes(into), root)
        _end(late)
        return _unslot(into, most)[0]
    length, lengths = _words(1), array("q", map(len, parts))
    plain.Scatter(lengths if here else None, length, root)
    into = bytearray(length[0])
    together = _bytes(b"".join(parts), lengths) if here else None
    plain.Scatterv(together, _bytes(into), root)
    _end(late)
    return _loads(into)


def allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather objects to all ranks. Collective over `comm`."""
    return _to_all(comm, obj, "allgather", "Allgather", comm.size)


def neighbor_allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather the neighbours' objects. Collective over `comm`."""
    names = "neighbor_allgather", "Neighbor_allgather"
    return _to_all(comm, obj, *names, comm.indegree)


def _to_all(comm: Any, obj: Any, operation: str, method: str, n_in: int) -> list[Any]:
    data = _dumps(obj)
    plain, most, late = _gate(comm, operation, len(data))
    if most <= SMALL:
        into = bytearray(n_in * (HEAD + most))
        getattr(plain, method)(_bytes(_slot(data, most)), _bytes(into))
        _end(late)
        return _unslot(into, most)
    lengths = _words(n_in)
    getattr(plain, method)(array("q", [len(data)]), lengths)
    into = bytearray(sum(lengths))
    getattr(plain, method + "v")(_bytes(data), _bytes(into, lengths))
    _end(late)
    return _cut(into, lengths)


def alltoall(comm: Any, objs: Sequence[Any]) -> list[Any]:
    """Exchange objects between all ranks. Collective over `comm`."""
    parts = _dumps_each(objs, comm.size)
    return _all_to_all(comm, parts, "alltoall", "Alltoall", comm.size)


def neighbor_alltoall(comm: Any, objs: Sequence[Any]) -> list[Any]:
    """Exchange objects with the neighbours. Collective over `comm`."""
    parts = _dumps_each(objs, comm.outdegree)
    names = "neighbor_alltoall", "Neighbor_alltoall"
    return _all_to_all(comm, parts, *names, comm.indegree)


def _all_to_all(
    comm: Any, parts: list[bytes], operation: str, method: str, n_in: int
) -> list[Any]:
    plain, most, late = _gate(comm, operation, max(map(len, parts), default=0))
    if most <= SMALL:
        slots = b"".join([_slot(part, most) for part in parts])
        into = bytearray(n_in * (HEAD + most))
        getattr(plain, method)(_bytes(slots), _bytes(into))
        _end(late)
        return _unslot(into, most)
    sent, received = array("q", map(len, parts)), _words(n_in)
    getattr(plain, method)(sent, received)
    into = bytearray(sum(received))
    together = _bytes(b"".join(parts), sent)
    getattr(plain, method + "v")(together, _bytes(into, received))
    _end(late)
    return _cut(into, received)


def _dumps_each(objs: Sequence[Any], n: int) -> list[bytes]:
    parts = [_dumps(obj) for obj in objs]
    if len(parts) != n:
        message = f"expecting {n} items, got {len(parts)}"
        raise ValueError(message)
    return parts


# -- reductions ----------------------------------------------------------------------


def reduce(comm: Any, obj: Any, op: Op | None = None, root: int = 0) -> Any:
    """Reduce objects to `root`. Collective over `comm`."""
    link = Link(comm, "reduce")
    result = _reduce_to_0(link, obj, _op(op))
    # To rank 0 first, whatever the root: operands stay in the order of ranks.
    if root != 0:
        if link.rank == 0:
            link.send(result, root)
        elif link.rank == root:
            return link.recv(0)
    return result if link.rank == root else None


def allreduce(comm: Any, obj: Any, op: Op | None = None) -> Any:
    """Reduce objects to all ranks. Collective over `comm`."""
    link = Link(comm, "allreduce")
    result = _reduce_to_0(link, obj, _op(op))
    # And down the same tree.
    mask = 1
    while mask < link.size and not link.rank & mask:
        mask <<= 1
    data = _dumps(result) if link.rank == 0 else None
    if link.rank:
        data = link.recv_bytes(link.rank - mask)
    while mask := mask >> 1:
        if link.rank + mask < link.size:
            link.send_bytes(data, link.rank + mask)
    return _loads(data)


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


def scan(comm: Any, obj: Any, op: Op | None = None) -> Any:
    """Reduce over the ranks up to this one. Collective over `comm`."""
    return _prefix(Link(comm, "scan"), obj, _op(op))[0]


def exscan(comm: Any, obj: Any, op: Op | None = None) -> Any:
    """Reduce over the ranks below this one. Collective over `comm`."""
    return _prefix(Link(comm, "exscan"), obj, _op(op))[1]


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
    return _mpi().SUM if op is None else op


class Link:
    """Interruptible sends and receives of objects on the hidden communicator."""

    def __init__(self, comm: Any, operation: str) -> None:
        self.channel, self.hidden = comm.hidden(operation)
        self.operation = operation
        self.rank, self.size = comm.rank, comm.size

    def send(self, obj: Any, rank: int) -> None:
        self.send_bytes(_dumps(obj), rank)

    def send_bytes(self, data: Any, rank: int) -> None:
        self._wait(self._start(data, rank))

    def recv(self, rank: int) -> Any:
        return _loads(self.recv_bytes(rank))

    def recv_bytes(self, rank: int) -> Any:
        into = bytearray(WORD + INLINE)
        self._wait([self.hidden.Irecv(_bytes(into), rank, 0)])
        n = int.from_bytes(into[:WORD], "little")
        if n <= INLINE:
            return memoryview(into)[WORD : WORD + n]
        into = bytearray(n)
        self._wait([self.hidden.Irecv(_bytes(into), rank, 1)])
        return into

    def exchange(self, obj: Any, rank: int) -> Any:
        sends = self._start(_dumps(obj), rank)
        try:
            theirs = self.recv(rank)
        except BaseException:
            LEAKED.extend(sends)
            raise
        self._wait(sends)
        return theirs

    def _wait(self, requests: list[Any]) -> None:
        try:
            for request in requests:
                self.channel.wait(request, self.operation)
        except BaseException:
            LEAKED.extend(requests)
            raise

    def _start(self, data: Any, rank: int) -> list[Any]:
        n = len(data)
        head = n.to_bytes(WORD, "little")
        if n <= INLINE:
            return [self.hidden.Isend(_bytes(b"".join((head, data))), rank, 0)]
        return [
            self.hidden.Isend(_bytes(head), rank, 0),
            self.hidden.Isend(_bytes(data), rank, 1),
        ]
