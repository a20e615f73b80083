"""Lowercase collectives that one rank's bad object cannot tear apart.

Owns how objects are moved in collectives on an interruptible communicator; the
reductions are in `trees`.

In mpi4py an object that cannot be pickled raises in the middle of the operation,
where the others wait for it. Behind a gate they could not be woken. So whatever
may raise is done first::

    bcast, gather, scatter, allgather, alltoall
        pickle -> gate, which finds the largest -> bytes -> unpickle
"""

from __future__ import annotations

import functools
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Up to so many bytes, all objects of a collective are sent as if of the same length;
# above, their lengths are exchanged first.
SMALL = 512
HEAD = 4  # bytes of a length


@functools.cache  # an import statement costs 0.4 us, this 0.05
def mpi() -> Any:
    """Return ``mpi4py.MPI``. Not collective."""
    from mpi4py import MPI

    return MPI


def dumps(obj: Any) -> bytes:
    """Pickle as mpi4py does. Not collective."""
    return mpi().pickle.dumps(obj)  # type: ignore[no-any-return]


def loads(data: Any) -> Any:
    """Unpickle as mpi4py does. Not collective."""
    return mpi().pickle.loads(data)


def _gate(comm: Any, operation: str, n: int) -> tuple[Any, int, BaseException | None]:
    """Pass a gate that finds the largest `n` of all ranks. Collective over `comm`.

    It saves small objects the exchange of their lengths.

    Returns:
        The plain communicator, the largest n, and what to raise in the end.
    """
    if comm.sizes is None:
        # Once per communicator: to make them takes as long as the gate. They are
        # not used again after a gate that was given up, nor is the communicator.
        mine, most = _words(1), _words(1)
        start = functools.partial(comm.plain.Iallreduce, mine, most, mpi().MAX)
        comm.sizes = mine, most, start
    mine, most, start = comm.sizes
    mine[0] = n
    late = comm.pass_gate(operation, start)
    return comm.plain, most[0], late


def _end(late: BaseException | None) -> None:
    if late is not None:
        raise late


def as_bytes(data: Any, counts: array[int] | None = None) -> list[Any]:
    """Return a buffer as mpi4py takes it. Not collective."""
    byte = mpi().BYTE
    return [data, byte] if counts is None else [data, counts, None, byte]


def _words(n: int) -> array[int]:
    return array("q", bytes(8 * n))


def _slot(data: bytes, most: int) -> bytes:
    """Return a small object's bytes, led by their number, filled up to `most`."""
    return (len(data).to_bytes(HEAD, "little") + data).ljust(HEAD + most, b"\0")


def _unslot(slots: Any, most: int) -> list[Any]:
    """Unpickle the objects of a row of slots."""
    view = memoryview(slots)
    found = []
    for at in range(HEAD, len(view) + 1, HEAD + most):
        n = int.from_bytes(view[at - HEAD : at], "little")
        found.append(loads(view[at : at + n]))
    return found


def _cut(data: Any, lengths: Sequence[int]) -> list[Any]:
    """Unpickle the objects that stand one after the other in a buffer."""
    view = memoryview(data)
    ends = accumulate(lengths)
    return [loads(view[end - n : end]) for end, n in zip(ends, lengths, strict=True)]


def bcast(comm: Any, obj: Any, root: int = 0) -> Any:
    """Broadcast an object. Collective over `comm`."""
    data: Any = dumps(obj) if comm.rank == root else b""
    plain, most, late = _gate(comm, "bcast", len(data))
    if comm.rank != root:
        data = bytearray(most)
    plain.Bcast(as_bytes(data), root)
    _end(late)
    return loads(data)


def gather(comm: Any, obj: Any, root: int = 0) -> list[Any] | None:
    """Gather objects. Collective over `comm`."""
    data = dumps(obj)
    here = comm.rank == root
    plain, most, late = _gate(comm, "gather", len(data))
    if most <= SMALL:
        into = bytearray(comm.size * (HEAD + most) if here else 0)
        plain.Gather(
            as_bytes(_slot(data, most)), as_bytes(into) if here else None, root
        )
        _end(late)
        return _unslot(into, most) if here else None
    lengths = _words(comm.size if here else 0)
    plain.Gather(array("q", [len(data)]), lengths if here else None, root)
    into = bytearray(sum(lengths))
    plain.Gatherv(as_bytes(data), as_bytes(into, lengths) if here else None, root)
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
        plain.Scatter(as_bytes(slots) if here else None, as_bytes(into), root)
        _end(late)
        return _unslot(into, most)[0]
    length, lengths = _words(1), array("q", map(len, parts))
    plain.Scatter(lengths if here else None, length, root)
    into = bytearray(length[0])
    together = as_bytes(b"".join(parts), lengths) if here else None
    plain.Scatterv(together, as_bytes(into), root)
    _end(late)
    return loads(into)


def allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather objects to all ranks. Collective over `comm`."""
    return _to_all(comm, obj, "allgather", "Allgather", comm.size)


def neighbor_allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather the neighbours' objects. Collective over `comm`."""
    names = "neighbor_allgather", "Neighbor_allgather"
    return _to_all(comm, obj, *names, comm.indegree)


def _to_all(comm: Any, obj: Any, operation: str, method: str, n_in: int) -> list[Any]:
    data = dumps(obj)
    plain, most, late = _gate(comm, operation, len(data))
    if most <= SMALL:
        into = bytearray(n_in * (HEAD + most))
        getattr(plain, method)(as_bytes(_slot(data, most)), as_bytes(into))
        _end(late)
        return _unslot(into, most)
    lengths = _words(n_in)
    getattr(plain, method)(array("q", [len(data)]), lengths)
    into = bytearray(sum(lengths))
    getattr(plain, method + "v")(as_bytes(data), as_bytes(into, lengths))
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
        getattr(plain, method)(as_bytes(slots), as_bytes(into))
        _end(late)
        return _unslot(into, most)
    sent, received = array("q", map(len, parts)), _words(n_in)
    getattr(plain, method)(sent, received)
    into = bytearray(sum(received))
    together = as_bytes(b"".join(parts), sent)
    getattr(plain, method + "v")(together, as_bytes(into, received))
    _end(late)
    return _cut(into, received)


def _dumps_each(objs: Sequence[Any], n: int) -> list[bytes]:
    parts = [dumps(obj) for obj in objs]
    if len(parts) != n:
        message = f"expecting {n} items, got {len(parts)}"
        raise ValueError(message)
    return parts
