"""What an argument of a collective is: a rank, a number, an object of MPI.

Owns how mpi4py takes the plain arguments of its methods, so that what it, or MPI, would
refuse on one rank is refused before the others wait for it. What a buffer is knows
`buffers`. Not collective.
"""

from __future__ import annotations

import functools
from array import array
from typing import Any, Final

# In place of an argument that was not given: what mpi4py has there is right.
DEFAULT: Final[Any] = object()

# CPython has one 0. To compare with it needs no call to learn how many ranks there are.
ZERO: Final = 0

# MPI's own operations on numbers; their place here is what other ranks are told of one.
REDUCTIONS: Final = (
    "SUM", "MAX", "MIN", "PROD", "LAND", "BAND", "LOR", "BOR", "LXOR", "BXOR",
)  # fmt: skip

#: MPI's own operations that were looked at, by ``id``: a look that takes no call. With
#: each its place among `REDUCTIONS`, or None; and itself, that the ``id`` stays its own.
OPS: Final[dict[int, tuple[int | None, Any]]] = {}


@functools.cache  # an import statement costs 0.4 us, this 0.05
def mpi() -> Any:
    """Return ``mpi4py.MPI``. Not collective."""
    from mpi4py import MPI

    return MPI


def rank_of(comm: Any, root: Any) -> int:
    """Return a root as the number of a rank, or refuse it."""
    if type(root) is not int:
        root = integer(root, "root")
    if not 0 <= root < comm.size:
        message = f"root={root} is out of range: pass a rank from 0 to {comm.size - 1}"
        raise ValueError(message)
    return root  # type: ignore[no-any-return]


def integer(value: Any, name: str) -> int:
    """Return what mpi4py takes for a number: also one of numpy's, or ``0.0``."""
    if not hasattr(type(value), "__int__") and not hasattr(type(value), "__index__"):
        message = f"{name}: an integer is required, got {type(value).__name__}"
        raise TypeError(message)
    return int(value)


def one_of_mpi(value: Any, kind: str, name: str) -> None:
    """Refuse what is not an Op, Group or Info."""
    if value is not DEFAULT and not isinstance(value, getattr(mpi(), kind)):
        message = f"{name} must be an MPI.{kind}, got {type(value).__name__}"
        raise TypeError(message)


def operation(op: Any) -> int | None:
    """Refuse what does not reduce; note what is not to be looked at again.

    Returns:
        Its place among `REDUCTIONS`, or None.
    """
    if op is DEFAULT:
        return 0
    known = OPS.get(id(op))
    if known is not None:
        return known[0]
    one_of_mpi(op, "Op", "op")
    if not op:
        message = "op is MPI.OP_NULL"
        raise ValueError(message)
    place = None
    if op.is_predefined:
        places = (i for i, name in enumerate(REDUCTIONS) if getattr(mpi(), name) == op)
        place = next(places, None)
        OPS[id(op)] = place, op
    return place


def c_integer(value: Any, name: str) -> int:
    """Return what mpi4py takes for a number, if C has room for it."""
    number = integer(value, name)
    if not -(1 << 31) <= number < 1 << 31:
        message = f"{name}={number} is too large"
        raise OverflowError(message)
    return number


def numbers(values: Any, n: int | None = None) -> array[int]:
    """Return whole numbers as mpi4py takes them, or raise what it would.

    Args:
        values: A sequence.
        n: How many there must be, if that is known.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    elif not isinstance(values, (list, tuple)):
        values = [values[i] for i in range(len(values))]
    found = array("q", values)
    if n is not None and len(found) != n:
        message = f"expecting {n} items, got {len(found)}"
        raise ValueError(message)
    return found
