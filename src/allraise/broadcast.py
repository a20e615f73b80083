"""An object from one rank to all, most often at the gate alone.

Owns ``bcast`` on an interruptible communicator (compiled, where nothing about a call is
special: `_objects.c`)::

    root    pickle -> gate, or what is behind it, with the first bytes -> unpickle
    others                                                             -> unpickle
                where it is longer: memory -> gate -> all bytes        -> unpickle

The first bytes are in the root's slot, see `slots`; its word says whether they are all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allraise.kinds import mpi, rank_of
from allraise.moving import Course, gated
from allraise.objects import as_bytes, dumps, loads
from allraise.slots import HEAD, OF_BROADCAST, SLOT, pack

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the word of a slot: whether it has all, and how many bytes there are.
IS_ALL: Final = 1
COUNT_BITS: Final = 16

# A collective and its arguments; and what stands for it where the gate has brought the
# slots. C code, see `gated`.
First = tuple[Any, tuple[Any, ...]]
DONE: Final[First] = bool, ()


def bcast(comm: Any, obj: Any, root: int = 0) -> Any:
    """Broadcast an object. Collective over `comm`."""
    root = rank_of(comm, root)
    data: Any = dumps(obj) if comm.rank == root else None
    slot: Any = bytearray(SLOT) if data is None else _led(data)
    slots = comm.slots
    if slots is None or not slots.is_at_gate:
        first = comm.plain.Bcast, ((slot, SLOT, mpi().BYTE), root)
        return _bcast(comm, first, slot, root, data)
    shown = slots.found.data[SLOT * root : SLOT * (root + 1)]
    try:
        slots.mine.data[:] = slot
        return _bcast(comm, DONE, shown, root, data)
    finally:
        slots.mine.words[0] = 0  # it says nothing but at its own gate


def _bcast(comm: Any, first: First, slot: Any, root: int, data: Any) -> Any:
    """Broadcast the bytes of an object behind a gate; return it.

    Collective over `comm`. The arguments are those of `_rest`.
    """
    move = _rest(first, slot, root, data)
    found = gated(comm, "bcast", *first, move, tells=slot)
    return loads(_bytes_in(slot) if found is None else found)


def broadcast_rest(
    comm: Any, root: int, data: Any, late: BaseException | None, begun: list[None]
) -> Any:
    """Broadcast what is longer than its slot, which has come; return the object.

    Collective over `comm`.

    Args:
        comm: The interruptible communicator.
        root: The rank that has the object.
        data: Its bytes, on the root; else None.
        late: What was raised at the gate, or since, or None.
        begun: Made longer once this is at work, see `Course.run`.
    """
    shown = comm.slots.found.data[SLOT * root : SLOT * (root + 1)]
    course = Course(comm, "bcast").behind([None], late)
    return loads(course.run(_rest(DONE, shown, root, data), begun))


def _led(data: bytes) -> bytes:
    """Return the slot of an object that is broadcast. Not collective."""
    n = len(data)
    is_all = IS_ALL if n <= SLOT - HEAD else 0
    return pack(n << COUNT_BITS | OF_BROADCAST | is_all, data)


def _bytes_in(slot: Any) -> bytes:
    """Return the bytes in a slot that has all. Not collective.

    A copy: what unpickles them may pass the next gate, or keep them.
    """
    return bytes(slot[HEAD : HEAD + _count_in(slot)])


def _count_in(slot: Any) -> int:
    return int.from_bytes(slot[:HEAD], "little") >> COUNT_BITS


def _rest(
    first: First, slot: Any, root: int, data: Any
) -> Callable[[Course], bytes | bytearray]:
    """Return what broadcasts bytes, from where a rank has come to.

    Not collective. Calling it is collective over the communicator of the course.

    Args:
        first: The collective that brings the root's slot.
        slot: Where that is. It stays as it is: each gate brings the slots anew.
        root: The rank that has all bytes.
        data: They, on the root; else None.
    """

    def move(course: Course) -> bytes | bytearray:
        course.once(0, None, first[0], *first[1])
        if slot[0] & IS_ALL:
            return _bytes_in(slot)
        n = _count_in(slot)
        into = course.room(lambda: bytearray(n) if data is None else data)
        plain = course.comm.plain
        return course.once(1, into, plain.Bcast, as_bytes(into), root)  # type: ignore[no-any-return]

    return move
