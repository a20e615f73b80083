"""Numbers that are reduced to all ranks, by each rank itself.

Owns ``allreduce`` of plain numbers by MPI's own operations, on an interruptible
communicator::

    kind and value of each rank -> `slots` -> all of one kind: reduce them here
                                           -> else as objects, see `trees`

A tree of objects takes a message up and one down for each level, each of them waited
for in Python: most of what an allreduce of an ``int`` costs. Here it is a gate, and with
more than a few ranks one collective behind it. Operands are joined in the order and the
grouping of that tree, so that a sum of floats has the same last bit as without allraise.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from allraise.kinds import REDUCTIONS, mpi
from allraise.slots import OF_NUMBERS, WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

# Of these alone, and not of what is derived from them: what they are is known.
_INT, _FLOAT, _BOOL = 1, 2, 3
_TYPES: Final = {int: _INT, float: _FLOAT, bool: _BOOL}


@functools.cache
def _kinds() -> dict[int, int]:
    """Return the number of each of MPI's operations, by its ``id``."""
    return {
        id(getattr(mpi(), name)): len(_TYPES) * place
        for place, name in enumerate(REDUCTIONS)
    }


def reduce_numbers(comm: Any, obj: Any, op: Callable[[Any, Any], Any]) -> Any:
    """Reduce numbers to all ranks, if all have given one of a kind.

    Collective over `comm`.

    Returns:
        The result, or ``NotImplemented`` on all ranks.
    """
    slots = comm.slots
    mine, found = slots.mine, slots.found
    words = mine.words
    tag, place = _TYPES.get(type(obj), 0), _kinds().get(id(op))
    words[0] = 0
    if tag and place is not None:
        with suppress(ValueError):  # too large a number
            (mine.reals if tag == _FLOAT else words)[1] = obj
            words[0] = OF_NUMBERS + place + tag
    try:
        slots.exchange(comm, "allreduce")
    finally:
        words[0] = 0  # it says nothing but at its own gate
    kinds = found.words[::WORDS].tolist()
    kind = kinds[0]
    if not kind or kinds.count(kind) != len(kinds):
        return NotImplemented
    tag = (kind - OF_NUMBERS - 1) % len(_TYPES) + 1
    values = found.reals if tag == _FLOAT else found.words
    numbers: list[Any] = values[1::WORDS].tolist()
    if tag == _BOOL:
        numbers = [*map(bool, numbers)]
    # As in `trees`: neighbours first, then pairs, and so on.
    while len(numbers) > 1:
        last = numbers[len(numbers) & ~1 :]
        numbers = [*map(op, numbers[:-1:2], numbers[1::2]), *last]
    return numbers[0]
