"""Lowercase collectives that one rank's bad object cannot tear apart.

Owns how objects are moved in collectives on an interruptible communicator; the
reductions are in `trees`.

In mpi4py an object that cannot be pickled raises in the middle of the operation,
where the others wait for it. Behind a gate they could not be woken. So whatever
may raise is done first::

    bcast
        pickle -> gate -> length and first bytes -> unpickle
                                    where it is long -> gate -> bytes -> unpickle
    gather, scatter, allgather, alltoall
        pickle -> gate, which finds the largest -> bytes -> unpickle
"""

from __future__ import annotations

import functools
from array import array
from itertools import accumulate, starmap
from sys import getrecursionlimit
from typing import TYPE_CHECKING, Any, TypeVar

from allraise.parts import is_of_mpi
from allraise.signals import MAX_TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

# What the collectives of an operation have filled, one after the other.
Moved = list[tuple[None, Any]]

# Up to so many bytes, all objects of a collective are sent as if of the same length;
# above, their lengths are exchanged first.
SMALL = 512
HEAD = 4  # bytes of a length

# What all ranks are sent of an object that is broadcast, before they know how long it
# is: a number, a word, a path.
FIRST = 124


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


def _behind_gate(
    comm: Any,
    operation: str,
    start: Callable[[], Any],
    move: Callable[[Any, Moved], T],
) -> T:
    """Move bytes behind a gate. Collective over `comm`.

    Args:
        comm: The interruptible communicator.
        operation: Named in an interruption.
        start: Starts the gate; in C code, for `pass_gate` depends on that.
        move: Called with the plain communicator and what `_once` wants. Where a
            signal's handler raises in it, it is called again, and that is raised in
            the end: the others wait for this rank.
    """
    moved: Moved = []
    n_tries = 0
    late = comm.pass_gate(operation, start)
    while True:
        try:
            result = move(comm.plain, moved)
            break
        except BaseException as error:
            late = error
            try:
                getrecursionlimit()  # the handler of a second signal runs here
            except BaseException as second:
                late = second
            n_tries += 1
            if is_of_mpi(late) or n_tries > MAX_TRIES:
                raise late  # noqa: B904 it is the same one
    if late is not None:
        raise late
    return result


def _largest(comm: Any, n: int) -> tuple[Callable[[], Any], array[int]]:
    """Return what starts a gate that finds the largest n, and where that will be.

    Not collective. It saves small objects the exchange of their lengths.
    """
    if comm.sizes is None:
        # Once per communicator: to make them takes as long as the gate. They are
        # not used again after a gate that was given up, nor is the communicator.
        mine, most = _words(1), _words(1)
        # With their types: to find them takes mpi4py half a microsecond.
        pair = [(words, 1, mpi().INT64_T) for words in (mine, most)]
        start = functools.partial(comm.plain.Iallreduce, *pair, mpi().MAX)
        comm.sizes = start, mine, most
    start, mine, most = comm.sizes
    mine[0] = n
    return start, most


def _once(moved: Moved, place: int, into: Any, collective: Any, *args: Any) -> Any:
    """Do a collective unless it was done before; return what it has filled.

    Collective over `comm`. It is done by C code, and noted by an operation that is no call: so no
    signal's handler comes in between.
    """
    if len(moved) == place:
        moved += zip(starmap(collective, (args,)), (into,), strict=True)
    return moved[place][1]


def as_bytes(data: Any, counts: array[int] | None = None) -> list[Any]:
    """Return a buffer as mpi4py takes it. Not collective."""
    byte = mpi().BYTE
    return [data, byte] if counts is None else [data, counts, None, byte]


def _words(n: int) -> array[int]:
    return array("q", bytes(8 * n))


def _slot(data: bytes, most: int) -> bytes:
    """Return a small object's bytes, led by their number, filled up to `most`."""
    return (len(data).to_bytes(HEAD, "little") + data).ljust(HEAD + most, b"\0")


def _length_in(slot: Any) -> int:
    return int.from_bytes(slot[:HEAD], "little")


def _loads_each(data: Any, sizes: int | Sequence[int]) -> list[Any]:
    """Unpickle the objects of a buffer.

    Args:
        data: The buffer.
        sizes: The bytes of each, one after the other; or those of the largest, where
            they are in slots.
    """
    view = memoryview(data)
    if isinstance(sizes, int):
        ends = range(HEAD, len(view) + 1, HEAD + sizes)
        sizes = [_length_in(view[at - HEAD : at]) for at in ends]
        return [loads(view[at : at + n]) for at, n in zip(ends, sizes, strict=True)]
    places = accumulate(sizes)
    return [loads(view[end - n : end]) for end, n in zip(places, sizes, strict=True)]


class _Rest:
    """How far a rank has come with what is broadcast of an object besides its start."""

    __slots__ = ("into", "is_past", "late", "moved")

    def __init__(self) -> None:
        self.into: Any = None
        self.is_past = False  # the gate before it
        self.late: BaseException | None = None
        self.moved: Moved = []

    def move(self, comm: Any, data: Any, n: int, root: int) -> None:
        """Broadcast, from where this rank has come to. Collective over `comm`."""
        if self.into is None:
            # Before the gate: where there is no room for it, the others are woken.
            self.into = bytearray(n) if data is None else data
        if not self.is_past:
            self.late = comm.pass_gate("bcast")
            self.is_past = True
        _once(self.moved, 0, self.into, comm.plain.Bcast, as_bytes(self.into), root)


def bcast(comm: Any, obj: Any, root: int = 0) -> Any:  # noqa: C901 one piece, see below
    """Broadcast an object. Collective over `comm`."""
    data: Any = None
    if comm.rank == root:
        data = dumps(obj)
        slot: Any = len(data).to_bytes(HEAD, "little") + data
        if len(data) <= FIRST:
            slot = slot.ljust(HEAD + FIRST)
    else:
        slot = bytearray(HEAD + FIRST)
    first, of_first = comm.plain.Bcast, (((slot, HEAD + FIRST, mpi().BYTE), root),)
    # From the gate on a signal's handler may raise with each call, and the others
    # count on this rank: so it begins again where it was, in this function.
    done: list[None] = []
    rest: _Rest | None = None
    n_tries = 0
    late = comm.pass_gate("bcast")
    while True:
        try:
            # Noted by what is no call: so no signal's handler comes in between.
            if not done:
                done += starmap(first, of_first)
            n = int.from_bytes(slot[:HEAD], "little")
            if n > FIRST:
                rest = rest or _Rest()
                rest.move(comm, data, n, root)
            break
        except BaseException as error:
            before, late = late, error
            try:
                getrecursionlimit()  # the handler of a second signal runs here
            except BaseException as second:
                late = second
            n_tries += 1
            others_go_on = rest is not None and rest.is_past
            is_over = not others_go_on and comm.knows_failure()
            if is_over or is_of_mpi(late) or n_tries > MAX_TRIES:
                raise late if before is None else before  # noqa: B904 as its context
    if rest is not None and rest.late is not None:
        late = rest.late
    if late is not None:
        raise late
    return loads(slot[HEAD:] if rest is None else rest.into)


def gather(comm: Any, obj: Any, root: int = 0) -> list[Any] | None:
    """Gather objects. Collective over `comm`."""
    data = dumps(obj)
    here = comm.rank == root
    start, largest = _largest(comm, len(data))

    def move(plain: Any, moved: Moved) -> tuple[Any, Any]:
        if (most := largest[0]) <= SMALL:
            into = bytearray(comm.size * (HEAD + most) if here else 0)
            slots = as_bytes(_slot(data, most)), as_bytes(into) if here else None
            return _once(moved, 0, into, plain.Gather, *slots, root), most
        lengths = _words(comm.size if here else 0)
        length = array("q", [len(data)]), lengths if here else None
        lengths = _once(moved, 0, lengths, plain.Gather, *length, root)
        into = bytearray(sum(lengths))
        parts = as_bytes(data), as_bytes(into, lengths) if here else None
        return _once(moved, 1, into, plain.Gatherv, *parts, root), lengths

    into, sizes = _behind_gate(comm, "gather", start, move)
    return _loads_each(into, sizes) if here else None


def scatter(comm: Any, objs: Sequence[Any] | None, root: int = 0) -> Any:
    """Scatter objects. Collective over `comm`."""
    here = comm.rank == root
    parts = _dumps_each(objs or (), comm.size) if here else []
    start, largest = _largest(comm, max(map(len, parts), default=0))

    def move(plain: Any, moved: Moved) -> Any:
        if (most := largest[0]) <= SMALL:
            slots = b"".join([_slot(part, most) for part in parts])
            into = bytearray(HEAD + most)
            given = as_bytes(slots) if here else None
            into = _once(moved, 0, into, plain.Scatter, given, as_bytes(into), root)
            return memoryview(into)[HEAD : HEAD + _length_in(into)]
        length, lengths = _words(1), array("q", map(len, parts))
        each = lengths if here else None
        length = _once(moved, 0, length, plain.Scatter, each, length, root)
        into = bytearray(length[0])
        together = as_bytes(b"".join(parts), lengths) if here else None
        return _once(moved, 1, into, plain.Scatterv, together, as_bytes(into), root)

    return loads(_behind_gate(comm, "scatter", start, move))


def allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather objects to all ranks. Collective over `comm`."""
    return _to_all(comm, obj, "allgather", "Allgather", comm.size)


def neighbor_allgather(comm: Any, obj: Any) -> list[Any]:
    """Gather the neighbours' objects. Collective over `comm`."""
    names = "neighbor_allgather", "Neighbor_allgather"
    return _to_all(comm, obj, *names, comm.indegree)


def _to_all(comm: Any, obj: Any, operation: str, method: str, n_in: int) -> list[Any]:
    data = dumps(obj)
    start, largest = _largest(comm, len(data))

    def move(plain: Any, moved: Moved) -> tuple[Any, Any]:
        collective, of_lengths = getattr(plain, method), getattr(plain, method + "v")
        if (most := largest[0]) <= SMALL:
            into = bytearray(n_in * (HEAD + most))
            slots = as_bytes(_slot(data, most)), as_bytes(into)
            return _once(moved, 0, into, collective, *slots), most
        lengths, length = _words(n_in), array("q", [len(data)])
        lengths = _once(moved, 0, lengths, collective, length, lengths)
        into = bytearray(sum(lengths))
        parts = as_bytes(data), as_bytes(into, lengths)
        return _once(moved, 1, into, of_lengths, *parts), lengths

    return _loads_each(*_behind_gate(comm, operation, start, move))


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
    start, largest = _largest(comm, max(map(len, parts), default=0))

    def move(plain: Any, moved: Moved) -> tuple[Any, Any]:
        collective, of_lengths = getattr(plain, method), getattr(plain, method + "v")
        if (most := largest[0]) <= SMALL:
            slots = b"".join([_slot(part, most) for part in parts])
            into = bytearray(n_in * (HEAD + most))
            pair = as_bytes(slots), as_bytes(into)
            return _once(moved, 0, into, collective, *pair), most
        sent, received = array("q", map(len, parts)), _words(n_in)
        received = _once(moved, 0, received, collective, sent, received)
        into = bytearray(sum(received))
        pair = as_bytes(b"".join(parts), sent), as_bytes(into, received)
        return _once(moved, 1, into, of_lengths, *pair), received

    return _loads_each(*_behind_gate(comm, operation, start, move))


def _dumps_each(objs: Sequence[Any], n: int) -> list[bytes]:
    parts = [dumps(obj) for obj in objs]
    if len(parts) != n:
        message = f"expecting {n} items, got {len(parts)}"
        raise ValueError(message)
    return parts
