"""Lowercase collectives that one rank's bad object cannot tear apart.

Owns how objects are moved in collectives on an interruptible communicator; what goes
from one rank to all is in `broadcast`, the reductions are in `trees`.

In mpi4py an object that cannot be pickled raises in the middle of the operation,
where the others wait for it. Behind a gate they could not be woken. So whatever
may raise is done first::

    gather, scatter, allgather, alltoall
        pickle -> gate, which finds the largest -> bytes -> unpickle
            where that is large: lengths -> memory -> gate -> bytes -> unpickle
"""

from __future__ import annotations

import functools
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from allraise.kinds import mpi, rank_of
from allraise.moving import Course, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Up to so many bytes, all objects of a collective are sent as if of the same length;
# above, their lengths are exchanged first.
SMALL = 512
LENGTH = 4  # bytes of such a length


def dumps(obj: Any) -> bytes:
    """Pickle as mpi4py does. Not collective."""
    return mpi().pickle.dumps(obj)  # type: ignore[no-any-return]


def loads(data: Any) -> Any:
    """Unpickle as mpi4py does. Not collective."""
    return mpi().pickle.loads(data)


def _largest(comm: Any, n: int) -> tuple[Callable[[], Any], array[int]]:
    """Return what starts a gate that finds the largest n, and where that will be.

    Not collective. It saves small objects the exchange of their lengths.
    """
    if comm.sizes is None:
        # Once per communicator: to make them takes as long as the gate. They are
        # not used again after a gate that was given up, nor is the communicator.
        mine, most = words(1), words(1)
        # With their types: to find them takes mpi4py half a microsecond.
        pair = [(words, 1, mpi().INT64_T) for words in (mine, most)]
        start = functools.partial(comm.plain.Iallreduce, *pair, mpi().MAX)
        comm.sizes = start, mine, most
    start, mine, most = comm.sizes
    mine[0] = n
    return start, most


def as_bytes(data: Any, counts: array[int] | None = None) -> list[Any]:
    """Return a buffer as mpi4py takes it. Not collective."""
    byte = mpi().BYTE
    return [data, byte] if counts is None else [data, counts, None, byte]


def _slot(data: bytes, most: int) -> bytes:
    """Return a small object's bytes, led by their number, filled up to `most`."""
    return (len(data).to_bytes(LENGTH, "little") + data).ljust(LENGTH + most, b"\0")


def _length_in(slot: Any) -> int:
    return int.from_bytes(slot[:LENGTH], "little")


def _loads_each(data: Any, sizes: int | Sequence[int]) -> list[Any]:
    """Unpickle the objects of a buffer.

    Args:
        data: The buffer.
        sizes: The bytes of each, one after the other; or those of the largest, where
            they are in slots.
    """
    view = memoryview(data)
    if isinstance(sizes, int):
        ends = range(LENGTH, len(view) + 1, LENGTH + sizes)
        sizes = [_length_in(view[at - LENGTH : at]) for at in ends]
        return [loads(view[at : at + n]) for at, n in zip(ends, sizes, strict=True)]
    places = accumulate(sizes)
    return [loads(view[end - n : end]) for end, n in zip(places, sizes, strict=True)]


def gather(comm: Any, sendobj: Any, root: int = 0) -> list[Any] | None:
    """Gather objects. Collective over `comm`."""
    data = dumps(sendobj)
    root = rank_of(comm, root)
    here = comm.rank == root
    start, largest = _largest(comm, len(data))

    def move(course: Course) -> tuple[Any, Any]:
        if (most := largest[0]) <= SMALL:
            into = bytearray(comm.size * (LENGTH + most) if here else 0)
            slots = as_bytes(_slot(data, most)), as_bytes(into) if here else None
            return course.once(0, into, comm.plain.Gather, *slots, root), most
        lengths = words(comm.size if here else 0)
        length = array("q", [len(data)]), lengths if here else None
        lengths = course.once(0, lengths, comm.plain.Gather, *length, root)
        into = course.room(lambda: bytearray(sum(lengths)))
        parts = as_bytes(data), as_bytes(into, lengths) if here else None
        return course.once(1, into, comm.plain.Gatherv, *parts, root), lengths

    into, sizes = Course(comm, "gather", start).run(move)
    return _loads_each(into, sizes) if here else None


def scatter(comm: Any, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
    """Scatter objects. Collective over `comm`."""
    root = rank_of(comm, root)
    here = comm.rank == root
    parts = _dumps_each(sendobj, comm.size) if here else []
    start, largest = _largest(comm, max(map(len, parts), default=0))

    def move(course: Course) -> Any:
        if (most := largest[0]) <= SMALL:
            slots = b"".join([_slot(part, most) for part in parts])
            into = bytearray(LENGTH + most)
            pair = as_bytes(slots) if here else None, as_bytes(into)
            into = course.once(0, into, comm.plain.Scatter, *pair, root)
            return memoryview(into)[LENGTH : LENGTH + _length_in(into)]
        length, lengths = words(1), array("q", map(len, parts))
        each = lengths if here else None
        length = course.once(0, length, comm.plain.Scatter, each, length, root)
        into, given = course.room(lambda: (bytearray(length[0]), b"".join(parts)))
        pair = as_bytes(given, lengths) if here else None, as_bytes(into)
        return course.once(1, into, comm.plain.Scatterv, *pair, root)

    return loads(Course(comm, "scatter", start).run(move))


def allgather(comm: Any, sendobj: Any) -> list[Any]:
    """Gather objects to all ranks. Collective over `comm`."""
    return _to_all(comm, sendobj, "allgather", "Allgather", comm.size)


def neighbor_allgather(comm: Any, sendobj: Any) -> list[Any]:
    """Gather the neighbours' objects. Collective over `comm`."""
    names = "neighbor_allgather", "Neighbor_allgather"
    return _to_all(comm, sendobj, *names, comm.indegree)


def _to_all(comm: Any, obj: Any, operation: str, method: str, n_in: int) -> list[Any]:
    data = dumps(obj)
    start, largest = _largest(comm, len(data))
    plain = comm.plain
    collective, for_long = getattr(plain, method), getattr(plain, method + "v")

    def move(course: Course) -> tuple[Any, Any]:
        if (most := largest[0]) <= SMALL:
            into = bytearray(n_in * (LENGTH + most))
            slots = as_bytes(_slot(data, most)), as_bytes(into)
            return course.once(0, into, collective, *slots), most
        lengths, length = words(n_in), array("q", [len(data)])
        lengths = course.once(0, lengths, collective, length, lengths)
        into = course.room(lambda: bytearray(sum(lengths)))
        parts = as_bytes(data), as_bytes(into, lengths)
        return course.once(1, into, for_long, *parts), lengths

    return _loads_each(*Course(comm, operation, start).run(move))


def alltoall(comm: Any, sendobj: Sequence[Any] | None) -> list[Any]:
    """Exchange objects between all ranks. Collective over `comm`."""
    parts = _dumps_each(sendobj, comm.size)
    return _all_to_all(comm, parts, "alltoall", "Alltoall", comm.size)


def neighbor_alltoall(comm: Any, sendobj: Sequence[Any] | None) -> list[Any]:
    """Exchange objects with the neighbours. Collective over `comm`."""
    parts = _dumps_each(sendobj, comm.outdegree)
    names = "neighbor_alltoall", "Neighbor_alltoall"
    return _all_to_all(comm, parts, *names, comm.indegree)


def _all_to_all(
    comm: Any, parts: list[bytes], operation: str, method: str, n_in: int
) -> list[Any]:
    start, largest = _largest(comm, max(map(len, parts), default=0))
    plain = comm.plain
    collective, for_long = getattr(plain, method), getattr(plain, method + "v")

    def move(course: Course) -> tuple[Any, Any]:
        if (most := largest[0]) <= SMALL:
            slots = b"".join([_slot(part, most) for part in parts])
            into = bytearray(n_in * (LENGTH + most))
            pair = as_bytes(slots), as_bytes(into)
            return course.once(0, into, collective, *pair), most
        sent, received = array("q", map(len, parts)), words(n_in)
        received = course.once(0, received, collective, sent, received)
        given, into = course.room(lambda: (b"".join(parts), bytearray(sum(received))))
        pair = as_bytes(given, sent), as_bytes(into, received)
        return course.once(1, into, for_long, *pair), received

    return _loads_each(*Course(comm, operation, start).run(move))


def _dumps_each(objs: Sequence[Any] | None, n: int) -> list[bytes]:
    # As mpi4py: nothing is None for each. And an array has no truth value.
    items = [None] * n if objs is None else list(objs)
    if len(items) != n:
        message = f"expecting {n} items, got {len(items)}"
        raise ValueError(message)
    return [dumps(item) for item in items]
