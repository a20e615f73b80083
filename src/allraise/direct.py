"""MPI's own functions, called without mpi4py in between.

Owns how they are found: in the library that mpi4py runs on, by name. What calls them is
compiled (see `plain`), knows no MPI's header, and takes handles as numbers.
::

    mpi4py.MPI -> its library -> address of MPI_Allreduce -> `Reduction`
                                 tried on COMM_SELF; where anything is not as it should
                                 be, mpi4py's own method serves

Why: mpi4py looks at each argument of each call, which for 64 bytes and two ranks takes
as long as MPI does. Not collective.
"""

from __future__ import annotations

import functools
from array import array
from typing import TYPE_CHECKING, Any, Final

from allraise.plain import IS_COMPILED, Entry, Look, Reduction, Turnstile
from allraise.polling import be_as_deep_at_a_gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.gates import Gates
    from allraise.slots import Slots

_NAMES: Final = (
    "MPI_Allreduce",
    "MPI_Ibarrier",
    "MPI_Test",
    "MPI_Iallgather",
    "MPI_Reduce_local",
)


def reduction(
    comm: Any, mine: array[int], total: array[int], datatype: Any, op: Any
) -> Callable[[], object]:
    """Return what reduces one array to another.

    Not collective. Calling it is collective over comm.

    Args:
        comm: The communicator; freed, it is an error to reduce on it.
        mine: What this rank gives, of int64. Not to change its length.
        total: Where the result goes, as long.
        datatype: MPI's name of a number; None to have it found.
        op: The reduction.
    """
    if datatype is not None and _is_plain(comm) and _functions():
        return _reduction(comm, mine, total, datatype, op)
    vectors: list[Any] = [mine, total]
    if datatype is not None:  # mpi4py takes 0.3 us more to find it itself
        vectors = [(vector, len(vector), datatype) for vector in vectors]
    return functools.partial(comm.Allreduce, *vectors, op)


def entry(comm: Any, slots: Slots | None = None) -> Callable[[], MPI.Request]:
    """Return what starts a gate, for `plain.begin_gate`.

    Not collective. Calling it is collective over comm.

    Args:
        comm: The communicator.
        slots: What the ranks show each other at the gate, if that has slots.
    """
    shown = slots if slots is not None and slots.is_at_gate else None
    if not (_is_plain(comm) and _functions()):
        if shown is not None:
            return functools.partial(comm.Iallgather, *shown.given)
        return comm.Ibarrier  # type: ignore[no-any-return]
    from mpi4py import MPI

    _, start, test, exchange, _ = _functions()
    of_slots: tuple[Any, ...] = ()
    if shown is not None:
        (mine, *_), (found, *_) = shown.given
        of_slots = exchange, MPI.BYTE.handle, MPI.COMM_NULL.handle, mine, found
    requests = MPI.Request.fromhandle, MPI.REQUEST_NULL
    place = _place_of(comm)
    return Entry(start, test, comm, *place, *requests, MPI.Exception, *of_slots)  # type: ignore[no-any-return]


def local_reduction() -> int:
    """Return the address of what reduces one array to another, or 0. Not collective."""
    functions = _functions()
    return functions[-1] if functions else 0


@functools.cache
def look() -> Callable[[MPI.Request], bool]:
    """Return what tells whether a request is done by now, or in some microseconds.

    Not collective, nor is calling it. Done, the request is null.
    """
    from mpi4py import MPI

    test: Callable[[MPI.Request], bool] = MPI.Request.Test
    if not (IS_COMPILED and (functions := _functions())):
        return test
    null = MPI.REQUEST_NULL
    offset = MPI._addressof(null) - id(null)  # noqa: SLF001 - documented
    try:
        return Look(functions[2], offset, MPI.Request, MPI.Exception)  # type: ignore[no-any-return]
    except ValueError:
        return test


def turnstile(
    lane: Any, gates: Gates, start: Callable[[], Any]
) -> Callable[[Any, str], BaseException | None]:
    """Return what passes a gate, called with the interruptible communicator.

    Not collective. Calling it, with the operation, is collective over comm: the same
    as its method ``pass_gate``, which it calls where anything is special.

    Args:
        lane: Which can tell that.
        gates: Of the communicator.
        start: From `entry`.
    """
    if Turnstile is None or not isinstance(start, Entry):
        return _pass_gate
    return Turnstile(lane, gates, start, be_as_deep_at_a_gate)  # type: ignore[no-any-return]


def _pass_gate(comm: Any, operation: str) -> BaseException | None:
    return comm.pass_gate(operation)  # type: ignore[no-any-return]


def _reduction(
    comm: Any, mine: array[int], total: array[int], datatype: Any, op: Any
) -> Callable[[], object]:
    from mpi4py import MPI

    handles = datatype.handle, op.handle
    place = _place_of(comm)
    call = _addresses()[0]
    return Reduction(call, comm, *place, *handles, mine, total, MPI.Exception)  # type: ignore[no-any-return]


def _place_of(comm: Any) -> tuple[int, int]:
    """Return where in mpi4py's object the handle is, and of how many bytes."""
    from mpi4py import MPI

    return MPI._addressof(comm), MPI._sizeof(comm)  # noqa: SLF001 - documented


def _is_plain(comm: object) -> bool:
    """Tell whether this is mpi4py's communicator, with mpi4py's methods."""
    if not IS_COMPILED:
        return False
    from mpi4py import MPI

    kind: Any = type(comm)
    return (
        isinstance(comm, MPI.Comm)
        and kind.Allreduce is MPI.Comm.Allreduce
        and kind.Ibarrier is MPI.Comm.Ibarrier
        and kind.Iallgather is MPI.Comm.Iallgather
    )


@functools.cache
def _addresses() -> tuple[int, ...]:
    from mpi4py import MPI

    try:
        import ctypes
    except ImportError:  # Python was built without libffi
        return ()
    # As the linker does for mpi4py: what was loaded for all comes first, a profiler say.
    for path in (None, MPI.__file__):
        try:
            library = ctypes.CDLL(path)
            found = [getattr(library, name) for name in _NAMES]
        except (OSError, AttributeError):
            continue
        return tuple(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found)
    return ()


@functools.cache
def _functions() -> tuple[int, ...]:
    """Return the addresses of `_NAMES`, or nothing where they are of no use."""
    from mpi4py import MPI

    found = _addresses()
    if not all(found) or not found:
        return ()
    # Tried, on this rank alone: whoever has built this MPI, a number comes through.
    number = 1 << 62
    mine, total = array("q", [number]), array("q", [0])
    try:
        _reduction(MPI.COMM_SELF, mine, total, MPI.INT64_T, MPI.MAX)()
    except Exception:
        return ()
    return found if total[0] == number else ()
