"""Numbers that are reduced to all ranks, by each rank itself.

Owns ``allreduce`` of plain numbers by MPI's own operations, on an interruptible
communicator::

    kind and value of each rank -> gate -> Allgather -> all of one kind: reduce them here
                                                     -> else as objects, see `trees`

A tree of objects takes a message up and one down for each level, each of them waited
for in Python: most of what an allreduce of an ``int`` costs. Here it is a gate and one
collective. Operands are joined in the order and the grouping of that tree, so that a
sum of floats has the same last bit as without allraise.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from allraise.kinds import mpi
from allraise.moving import gated

if TYPE_CHECKING:
    from collections.abc import Callable

# Every rank gets and joins the numbers of all: beyond this, a tree takes less.
MAX_RANKS: Final = 64

# Of these alone, and not of what is derived from them: what they are is known.
_INT, _FLOAT, _BOOL = 1, 2, 3
_TYPES: Final = {int: _INT, float: _FLOAT, bool: _BOOL}

_NAMES: Final = (
    "SUM", "MAX", "MIN", "PROD", "LAND", "BAND", "LOR", "BOR", "LXOR", "BXOR",
)  # fmt: skip

# Kind and value.
_WORDS: Final = 2
_WORD_BYTES: Final = 8


@functools.cache
def _kinds() -> dict[int, int]:
    """Return the number of each of MPI's operations, by its ``id``."""
    return {
        id(getattr(mpi(), name)): len(_TYPES) * place
        for place, name in enumerate(_NAMES)
    }


class _Room:
    """Where a communicator's numbers are exchanged; made once, for that takes long."""

    def __init__(self, comm: Any) -> None:
        n_bytes = _WORDS * _WORD_BYTES
        mine, found = bytearray(n_bytes), bytearray(n_bytes * comm.size)
        self.mine, self.found = _views(mine), _views(found)
        # With their types: to find them takes mpi4py half a microsecond.
        self.given = [mine, n_bytes, mpi().BYTE], [found, n_bytes, mpi().BYTE]
        self.collective = comm.plain.Allgather


def _views(words: bytearray) -> tuple[memoryview[int], memoryview[float]]:
    """Return the same words as whole numbers and as the others."""
    return memoryview(words).cast("q"), memoryview(words).cast("d")


def reduce_numbers(comm: Any, obj: Any, op: Callable[[Any, Any], Any]) -> Any:
    """Reduce numbers to all ranks, if all have given one of a kind.

    Collective over `comm`.

    Returns:
        The result, or ``NotImplemented`` on all ranks.
    """
    room = comm.numbers
    if room is None:
        room = comm.numbers = _Room(comm)
    tag, place = _TYPES.get(type(obj), 0), _kinds().get(id(op))
    kinds = room.mine[0]
    kinds[0] = 0
    if tag and place is not None:
        with suppress(ValueError):  # too large a number
            room.mine[tag == _FLOAT][1] = obj
            kinds[0] = place + tag
    course = gated(comm, "allreduce", room.collective, room.given)
    if course is not None:
        course.run(lambda course: course.once(0, None, room.collective, *room.given))
    found = room.found[0][::_WORDS].tolist()
    kind = found[0]
    if not kind or found.count(kind) != len(found):
        return NotImplemented
    tag = (kind - 1) % len(_TYPES) + 1
    numbers: list[Any] = room.found[tag == _FLOAT][1::_WORDS].tolist()
    if tag == _BOOL:
        numbers = [*map(bool, numbers)]
    # As in `trees`: neighbours first, then pairs, and so on.
    while len(numbers) > 1:
        last = numbers[len(numbers) & ~1 :]
        numbers = [*map(op, numbers[:-1:2], numbers[1::2]), *last]
    return numbers[0]
